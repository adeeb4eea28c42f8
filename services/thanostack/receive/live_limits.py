"""The limits file and the overrides file as they are now, and the admission that they rule.

    limits file ──┐
                  ├─ Limits ──► admission, storage of each tenant
    overrides ────┘

Both are read again when they change. A file that cannot be used stops the start; later it changes
nothing, is logged and counted.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import Final

from thanostack.lib.foundation.errors import InvalidInput, SettingsInvalid
from thanostack.lib.relabel.config import RelabelConfig, parse_relabel_configs
from thanostack.receive.admission import Admission
from thanostack.receive.config_file import ConfigFile, PathOrContent
from thanostack.receive.limit_metrics import LimitMetrics
from thanostack.receive.limits import Limits
from thanostack.receive.limits_file import LimitsFile, parse_limits
from thanostack.receive.overrides import Overrides, parse_overrides
from thanostack.receive.relabeling import Relabeling
from thanostack.receive.settings import ReceiveSettings
from thanostack.receive.write_gate import WriteGate
from thanostack.runtime.process import Process

LIMITS_FLAG: Final = "receive.limits-config"
RELABEL_FLAG: Final = "receive.relabel-config"
OVERRIDES_FLAG: Final = "receive.overrides"


class LiveLimits:
    """The files, the watch over them, and the admission.

    Args:
        settings: say where the files are.
        process: whose tasks watch them; its loop runs.
        metrics: of limits.

    Raises:
        SettingsInvalid: on construction, if a file cannot be read or is not valid.
    """

    def __init__(self, settings: ReceiveSettings, process: Process, metrics: LimitMetrics) -> None:
        self._process, self._metrics = process, metrics
        self._interval_s = settings.receive_limits_config_reload_timer / 1000
        source = PathOrContent(
            LIMITS_FLAG, settings.receive_limits_config_file, settings.receive_limits_config
        )
        self._file = ConfigFile(source, _parse)
        self._overrides = ConfigFile(
            PathOrContent(OVERRIDES_FLAG, settings.receive_overrides_file), parse_overrides
        )
        self._relabeling = Relabeling(
            relabel_rules(settings),
            process.registry,
            bytes_max=settings.receive_relabel_cache_bytes,
        )
        gate = WriteGate(
            process.registry,
            waiting_max=settings.receive_write_queue_max,
            wait_max_s=settings.receive_write_queue_wait / 1000,
        )
        self.admission = Admission(gate, self._relabeling, metrics=metrics, log=process.log)
        try:
            self._apply(self._file.value, self._overrides.value)
        except InvalidInput as error:
            raise SettingsInvalid(f"{source.given_flag}: {error}") from error

    def _apply(self, file: LimitsFile, overrides: Overrides) -> None:
        self.admission.set_limits(Limits(file, overrides))

    async def start(self) -> None:
        """Load what the first write needs; from now on watch the files and poll."""
        await asyncio.to_thread(self._relabeling.load_kernels)
        tasks = self._process.supervisor
        tasks.task("meta-monitoring", self.admission.meta_monitoring.poll_forever())
        if self._file.is_watched:
            tasks.task(
                "limits-file",
                self._file.watch(self._interval_s, self._file_changed, self._file_failed),
            )
        if self._overrides.is_watched:
            watch = self._overrides.watch(
                self._interval_s, self._overrides_changed, self._overrides_failed
            )
            tasks.task("overrides-file", watch)

    def _file_changed(self, file: LimitsFile) -> None:
        self._apply(file, self._overrides.value)
        self._metrics.reloads.inc()
        self._process.log.info("reloaded the limits file")

    def _file_failed(self, error: InvalidInput) -> None:
        self._metrics.reloads.inc()
        self._metrics.reloads_failed.inc()
        self._process.log.error("the limits file is not usable; the limits stay", err=error)

    def _overrides_changed(self, overrides: Overrides) -> None:
        self._apply(self._file.value, overrides)
        self._metrics.overrides_reloads.inc()
        self._process.log.info("reloaded the overrides file")

    def _overrides_failed(self, error: InvalidInput) -> None:
        self._metrics.overrides_reloads.inc()
        self._metrics.overrides_reloads_failed.inc()
        self._process.log.error("the overrides file is not usable; overrides stay", err=error)


def _parse(data: bytes) -> LimitsFile:
    """Return the limits of a file; a changed one is parsed in a thread."""
    file = parse_limits(data)
    if file.meta_monitoring is not None:
        # Half a second of CPU time, which the event loop would stand still for.
        importlib.import_module("httpx")
    return file


def relabel_rules(settings: ReceiveSettings) -> tuple[RelabelConfig, ...]:
    """Return the relabel rules that settings name.

    Raises:
        SettingsInvalid: if they cannot be read or are not valid.
    """
    source = PathOrContent(
        RELABEL_FLAG, settings.receive_relabel_config_file, settings.receive_relabel_config
    )
    return ConfigFile(source, parse_relabel_configs).value

"""The hashrings in force, and the file they come from.

    file ──changed, or every refresh interval──> read ──hash differs──> parse ──good──> in force
                                                   └──cannot be read, empty, bad──> counted; the
                                                       former stay in force

What watches is the file's *folder*: a ConfigMap changes by a symlink beside the file. A folder that
cannot be watched leaves the interval.

Until the first good file there is no ring: writes are answered 503, and the process is not ready
and says why. Upstream ends instead; a file that comes a moment later than the process is common
where an operator writes it.

Source: Thanos `pkg/receive/config.go`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from thanostack.lib.foundation.clock import Clock
from thanostack.lib.foundation.errors import InvalidInput, NotReady
from thanostack.lib.hashring import Hashrings, config_hash
from thanostack.receive.routing_metrics import HashringMetrics
from thanostack.runtime.logs import Logger

# Editors and the kubelet make several changes of one.
_SETTLE_MS: Final = 50
_SETTLED_S: Final = 2.0
_NONE_YET: Final = "no hashring is loaded yet"


class HashringSource:
    """The hashrings in force.

    Args:
        parse: makes hashrings of a configuration's text; raises InvalidInput.
        changed: called with new hashrings, after they are in force, on the loop.
        metrics: shows them.
        clock: of the time of loading.
        log: told about changes and failures.
        failed: called when the file could not be used, on the loop; `trouble` says why.
    """

    def __init__(
        self,
        parse: Callable[[bytes], Hashrings],
        changed: Callable[[Hashrings], None],
        *,
        metrics: HashringMetrics,
        clock: Clock,
        log: Logger,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._parse, self._changed, self._failed = parse, changed, failed
        self._metrics, self._clock, self._log = metrics, clock, log
        self._rings: Hashrings | None = None
        self._hash = 0.0
        self._trouble = _NONE_YET

    def current(self) -> Hashrings:
        """Return the hashrings in force.

        Raises:
            NotReady: if there are none yet.
        """
        if self._rings is None:
            raise NotReady(f"not ready: {self._trouble}")
        return self._rings

    @property
    def loaded(self) -> Hashrings | None:
        """Return the hashrings in force, None if there are none yet."""
        return self._rings

    @property
    def trouble(self) -> str:
        """Return why there are none."""
        return self._trouble

    def load(self, text: bytes) -> None:
        """Put a configuration in force, if it is another than the present one.

        Raises:
            InvalidInput: if it is empty or cannot be used; the present one stays.
        """
        found = config_hash(text)
        if self._rings is not None and found == self._hash:
            self._metrics.unchanged()
            return
        rings = self._parse(text)
        self._rings, self._hash = rings, found
        nodes, tenants = rings.node_counts, rings.tenant_counts
        self._metrics.loaded(found, nodes, tenants, self._clock.now_ms() / 1000)
        self._log.info("hashrings are in force", nodes=dict(nodes), hash=int(found))
        for warning in rings.warnings:
            self._log.warning("hashring configuration", warning=warning)
        self._changed(rings)

    def refresh(self, path: Path) -> None:
        """Read the file, which is small, and put what is in it in force."""
        self._metrics.refreshes.inc()
        try:
            self.load(path.read_bytes())
        except (OSError, InvalidInput) as error:
            self._metrics.failed()
            self._trouble = f"{_NONE_YET}: {error}"
            kept = "the former hashrings stay in force" if self._rings is not None else _NONE_YET
            self._log.error("cannot use the hashrings file", file=str(path), kept=kept, err=error)
            self._failed()

    async def watch(self, path: Path, refresh_interval_s: float) -> None:
        """Refresh for ever: when something in the file's folder changes, and at intervals."""
        changes = asyncio.Event()
        watcher = asyncio.ensure_future(self._notice(path.parent, changes))
        # The watcher does not say when it has begun; what came before that is seen a moment later.
        wait_s = min(refresh_interval_s, _SETTLED_S)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await changes.wait()
                changes.clear()
                self.refresh(path)
                wait_s = refresh_interval_s
        finally:
            watcher.cancel()

    async def _notice(self, folder: Path, changes: asyncio.Event) -> None:
        import watchfiles  # for those who have a file only

        try:
            async for _ in watchfiles.awatch(
                folder, watch_filter=None, recursive=False, step=_SETTLE_MS, debounce=_SETTLE_MS
            ):
                changes.set()
        except OSError as error:
            self._metrics.failed()
            self._log.error(
                "cannot watch the hashrings file, reading it at intervals only",
                folder=str(folder),
                err=error,
            )

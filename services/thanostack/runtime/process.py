"""What a component's wiring is handed, and the frame that runs it.

Every container has two functions of the same form, and nothing else is known about it here:

    settings.py    class <Component>Settings(Settings)
    wiring.py      async def start(settings, process) -> None

`start` builds everything, registers drains and releases with the supervisor, starts tasks, and
returns when the component serves (it says itself when it is ready).
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import uvloop

from thanostack.lib.foundation.clock import Clock, SystemClock
from thanostack.runtime import logs, metrics
from thanostack.runtime.grpc_metrics import GrpcMetrics
from thanostack.runtime.lean_imports import prometheus_client
from thanostack.runtime.logs import Logger
from thanostack.runtime.probes import Probes
from thanostack.runtime.shared_flags import LogAndTracingFlags
from thanostack.runtime.supervisor import Supervisor
from thanostack.runtime.tls_ports import TLS

COLLECTOR_THRESHOLDS: Final = (20_000, 20, 100)
SWITCH_INTERVAL_S: Final = 0.0005
"""A kernel's return waits up to this long for the interpreter lock; the default is ten times it."""


@dataclass(frozen=True)
class Process:
    """The process that a component lives in.

    Args:
        component: as metrics and logs name it, such as `receive`.
    """

    component: str
    supervisor: Supervisor
    probes: Probes
    registry: prometheus_client.CollectorRegistry
    log: Logger
    clock: Clock
    tls: TLS

    @cached_property
    def grpc_client(self) -> GrpcMetrics:
        """Return the metrics of gRPC clients, which a process can have once only."""
        return GrpcMetrics(self.registry, "client")


Start = Callable[[Any, Process], Awaitable[None]]


def new_process(component: str, log: Logger) -> Process:
    """Return a process with a registry, probes and a supervisor of its own."""
    registry = metrics.new_registry(component)
    probes = Probes(component, registry, log)
    clock = SystemClock()
    tls = TLS(registry, log, clock)
    return Process(component, Supervisor(probes, log), probes, registry, log, clock, tls)


def run(component: str, settings: LogAndTracingFlags, start: Start, log: Logger) -> int:
    """Run a component until it is told to stop; return the exit code."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    log.info("starting", flags=" ".join(f"{k}={v}" for k, v in settings.changed().items()))
    log.debug("effective settings", **{_field(k): v for k, v in settings.effective().items()})
    for name, reason in settings.without_effect().items():
        log.warning("flag has no effect", flag=f"--{name}", reason=reason)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_live(component, settings, start, log))


def log_of(component: str, settings: LogAndTracingFlags) -> Logger:
    """Set up the logs that settings ask for."""
    log = logs.configure(component, level=settings.log_level, form=settings.log_format)
    return log.bind(name=settings.debug_name) if settings.debug_name else log


def calm_collector() -> None:
    """Take what start-up made out of the cyclic collector's sight, and let it run rarely.

    Requests leave few cycles, and each collection of the oldest generation walks every object of
    every imported library: a stall of tens of milliseconds for nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


async def _live(component: str, settings: LogAndTracingFlags, start: Start, log: Logger) -> int:
    process = new_process(component, log)
    process.probes.set_healthy()

    async def build() -> None:
        process.supervisor.task("loop-lag", metrics.watch_loop_lag(process.registry))
        await start(settings, process)
        calm_collector()

    code = await process.supervisor.run(build)
    if process.supervisor.was_starting:
        # A replay in a thread cannot be interrupted, and has acknowledged nothing: leave it.
        sys.stderr.flush()
        os._exit(code)
    return code


def _field(name: str) -> str:
    return name.replace(".", "_").replace("-", "_")

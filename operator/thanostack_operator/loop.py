"""One reconcile loop a stack: read, observe, plan, carry out; again when woken or when time is up.

    on.event ──► wake ──► [settle] ──► read resource ──► observe ──► plan() ──► carry out ─┐
                  ▲                                                                        │
                  └────────────────────── recheck_s, or back-off after an error ───────────┘

Level-triggered: an event says only that something may have changed, and many events make one pass.
A pass that fails is logged, counted and repeated with a growing delay; it never ends the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from .api.reading import SpecInvalid, read_stack
from .api.stack import ThanosStack
from .apply import carry_out, post_event, write_status
from .kube import STACKS, ApiError, KubeClient
from .manifests.names import Object
from .metrics import Metrics
from .observe import observe
from .plan.conditions import invalid_status
from .plan.observed import dig
from .plan.outcome import Event, Plan
from .plan.planner import plan
from .pods import PodClient

SETTLE_S = 0.2
BACKOFF_MIN_S = 1.0
BACKOFF_MAX_S = 60.0
# How long an event is not posted again that says the same.
EVENT_QUIET_S = 600.0
EVENTS_REMEMBERED_MAX = 100

log = logging.getLogger(__name__)
Key = tuple[str, str]


@dataclass
class Tools:
    """What every loop uses, and the version and image that stacks get which name none."""

    kube: KubeClient
    pods: PodClient
    metrics: Metrics
    version: str
    repository: str
    clock: Callable[[], float] = time.time


@dataclass
class StackLoop:
    """The loop of one stack; `namespace` and `name` are its identity."""

    namespace: str
    name: str
    tools: Tools
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    _failures: dict[str, str] = field(default_factory=dict)
    _posted: dict[Event, float] = field(default_factory=dict)

    def wake(self) -> None:
        """Have a pass made soon."""
        self.woken.set()

    async def run(self) -> None:
        """Make passes until the resource is gone."""
        backoff_s = BACKOFF_MIN_S
        while True:
            self.woken.clear()
            started = time.perf_counter()
            try:
                recheck_s = await self.reconcile()
                result = "error" if self._failures else "success"
            except ApiError as error:
                log.warning("pass ended early: %s stack=%s/%s", error, self.namespace, self.name)
                result, recheck_s = "error", backoff_s
            except Exception:
                log.exception("pass ended by a bug stack=%s/%s", self.namespace, self.name)
                result, recheck_s = "error", backoff_s
            self.tools.metrics.reconciled(result, time.perf_counter() - started)
            if recheck_s is None:
                if not self.woken.is_set():
                    return
                recheck_s = 0.0  # gone, and perhaps made anew meanwhile
            if result == "error":
                recheck_s, backoff_s = min(recheck_s, backoff_s), min(2 * backoff_s, BACKOFF_MAX_S)
            else:
                backoff_s = BACKOFF_MIN_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.woken.wait(), recheck_s)
                await asyncio.sleep(SETTLE_S)

    async def reconcile(self) -> float | None:
        """Make one pass; return the s until the next at the latest, or None if the stack is gone.

        Raises:
            ApiError: if the API server does not answer what must be read.
        """
        tools = self.tools
        body = await tools.kube.get(STACKS, self.namespace, self.name)
        if body is None:
            return None
        try:
            stack = read_stack(body, repository=tools.repository)
        except SpecInvalid as error:
            stack = _with_defaults(body)
            if not stack.deleting:
                return await self._refuse(stack, error)
        now = tools.clock()
        observed = await observe(stack, tools.kube, tools.pods, now=now, failures=self._failures)
        planned = plan(stack, observed, operator_version=tools.version)
        self._log(planned)
        self._failures = await carry_out(planned, stack, tools.kube, tools.pods, observed.addresses)
        for name, message in self._failures.items():
            log.warning(
                "request refused: %s object=%s stack=%s/%s",
                message, name, self.namespace, self.name,
            )  # fmt: skip
        for event in planned.events:
            await self._post(stack, event, now)
        tools.metrics.planned(self.namespace, self.name, planned)
        tools.metrics.told(self.namespace, self.name, planned.status)
        return planned.recheck_s

    def _log(self, planned: Plan) -> None:
        changes = [f"apply {w['kind']}/{w['metadata']['name']}" for w in planned.apply]
        changes += [str(action) for action in planned.actions]
        changes += [f"delete {ref.kind}/{ref.name}" for ref in planned.prune]
        for change in changes:
            log.info("%s stack=%s/%s", change, self.namespace, self.name)

    async def _refuse(self, stack: ThanosStack, error: SpecInvalid) -> float:
        """Say in status and event what is wrong with a spec; its objects stay as they are."""
        now = self.tools.clock()
        status = invalid_status(stack, error.problems, now=now)
        if status != stack.status:
            await write_status(stack, self.tools.kube, status)
        self.tools.metrics.told(self.namespace, self.name, status)
        await self._post(stack, Event("Warning", "SpecInvalid", str(error)), now)
        self._failures = {}
        return BACKOFF_MAX_S

    async def _post(self, stack: ThanosStack, event: Event, now: float) -> None:
        if now - self._posted.get(event, -EVENT_QUIET_S) < EVENT_QUIET_S:
            return
        if len(self._posted) >= EVENTS_REMEMBERED_MAX:
            self._posted.pop(next(iter(self._posted)))
        self._posted[event] = now
        await post_event(stack, self.tools.kube, event, now)


def _with_defaults(body: Object) -> ThanosStack:
    """Return a stack of which only the deletion policy is read: what its deletion has to know."""
    keeps = dig(body, "spec", "deletionPolicy") == "Keep"
    return read_stack(body | {"spec": {"deletionPolicy": "Keep"} if keeps else {}})


@dataclass
class Loops:
    """The loops of all stacks, by namespace and name. Lives on one event loop."""

    tools: Tools
    _running: dict[Key, tuple[StackLoop, asyncio.Task[None]]] = field(default_factory=dict)

    def wake(self, namespace: str, name: str) -> None:
        """Wake the loop of a stack if there is one: children may outlive it."""
        if (namespace, name) in self._running:
            self._running[namespace, name][0].wake()

    def ensure(self, namespace: str, name: str) -> None:
        """Wake the loop of a stack, starting it if need be."""
        key = (namespace, name)
        # One that has just ended is forgotten a moment later, and makes no pass any more.
        if key not in self._running or self._running[key][1].done():
            loop = StackLoop(namespace, name, self.tools)
            task = asyncio.create_task(loop.run(), name=f"stack {namespace}/{name}")
            task.add_done_callback(lambda ended: self._forget(key, ended))
            self._running[key] = (loop, task)
            self.tools.metrics.stacks.set(len(self._running))
        self._running[key][0].wake()

    def _forget(self, key: Key, ended: asyncio.Task[None]) -> None:
        if self._running[key][1] is not ended:
            return
        del self._running[key]
        self.tools.metrics.forget(*key)
        self.tools.metrics.stacks.set(len(self._running))

    async def stop(self) -> None:
        """End all loops; a request on its way is broken off, as by a kill, which is safe."""
        tasks: list[Awaitable[None]] = []
        for _, task in list(self._running.values()):
            task.cancel()
            tasks.append(task)
        await asyncio.gather(*tasks, return_exceptions=True)

"""One router, two rings, and one of them falls silent: the tenants of the other do not notice.

quick ──┐            ┌──> ingestor of ring `quick`
        ├──> router ─┤
stuck ──┘            └──> ingestor of ring `stuck`, stopped: connections are taken, that is all
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal

import pytest

from thanostack.receive.write_pace import AT_ONCE_MAX
from thanostack.testing import open_loop
from thanostack.testing.open_loop import Senders
from thanostack.testing.processes import our_receive, until

pytestmark = [pytest.mark.enable_socket, pytest.mark.timeout(300)]
TENANTS = ("quick", "stuck")
BEFORE_S, SECONDS = 3.0, 12.0
"""More than two forward timeouts: for so long would each write to the silent ring have a turn."""


@contextlib.contextmanager
def started(folder):
    """Yield the router and the ingestors by tenant."""
    with contextlib.ExitStack() as stack:
        nodes = {
            name: stack.enter_context(our_receive(folder / name, replica=name)) for name in TENANTS
        }
        rings = [
            {"hashring": name, "tenants": [name], "endpoints": [f"127.0.0.1:{node.grpc_port}"]}
            for name, node in nodes.items()
        ]
        for node in nodes.values():
            node.wait_ready()
        flag = f"--receive.hashrings={json.dumps(rings)}"
        router = stack.enter_context(our_receive(folder / "router", flag))
        router.wait_ready()
        yield router, nodes


async def together(quick, stuck):
    """Let both write at the same time; return what became of it."""
    stuck_work = asyncio.ensure_future(stuck.closed(len(stuck.all), SECONDS))
    await asyncio.sleep(0.5)
    return await quick.closed(len(quick.all), SECONDS), await stuck_work


def test_a_silent_ring_takes_no_turns_of_others(tmp_path):
    """It has more writers than there are turns; they are told to come back, and are served then."""
    with started(tmp_path) as (router, nodes):
        quick = Senders(router.write_port, 4, 10, tenant="quick")
        stuck = Senders(router.write_port, AT_ONCE_MAX + 50, 1, tenant="stuck")
        silent = nodes["stuck"].process

        async def load():
            before = await quick.closed(len(quick.all), BEFORE_S)
            assert set((await stuck.once()).statuses) == {200}
            silent.send_signal(signal.SIGSTOP)
            try:
                beside, refused = await together(quick, stuck)
            finally:
                silent.send_signal(signal.SIGCONT)
            for name, tally in (("before", before), ("beside", beside), ("refused", refused)):
                times = [round(tally.quantile_s(q), 3) for q in (0.5, 0.99, 1.0)]
                print(name, dict(tally.statuses), "late", tally.late, "s:", times)
            assert set(before.statuses) == set(beside.statuses) == {200}
            # They share a process with writers that are refused in a loop.
            assert beside.acknowledged / SECONDS > before.acknowledged / BEFORE_S / 20
            assert beside.quantile_s(0.5) < 0.5
            assert set(refused.statuses) == {503}
            assert refused.acknowledged + refused.late + refused.broken + refused.hasty == 0
            # At once, but for those that found out: more than one a timeout and writer.
            assert refused.statuses[503] > 4 * len(stuck.all)
            async with asyncio.timeout(10):
                while 200 not in (await stuck.closed(1, 0.02)).statuses:
                    pass
            assert set((await stuck.closed(64, 2.0)).statuses) == {200}
            for senders in (quick, stuck):
                await senders.close()

        open_loop.run(load())
        until("probes", lambda: router.metric("thanostack_receive_writes_waiting") == [0.0])

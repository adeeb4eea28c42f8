"""What pods answer, or not, in whatever way: an answer or a reason, never an error of ours."""

import json

import aiohttp
import pytest

from thanostack_operator.plan.observed import Drain
from thanostack_operator.pods import ANSWER_BYTES_MAX, TIMEOUT_S, PodClient

MEBIBYTE = b"x" * (1 << 20)


class Session:
    """Answers every request with a status and pieces of a body, or breaks off with an error."""

    def __init__(self, *pieces, status=200, error=None):
        self.pieces, self.status, self.error = pieces, status, error
        self.asked, self.timeouts, self.read = [], [], 0

    def request(self, method, url, timeout):
        self.asked.append(f"{method} {url}")
        self.timeouts.append(timeout.total)
        return self

    async def __aenter__(self):
        if self.error is not None and not self.pieces:
            raise self.error
        return self

    async def __aexit__(self, *_):
        pass

    def raise_for_status(self):
        if self.status >= 400:
            raise aiohttp.ClientError(f"{self.status} it says")

    @property
    def content(self):
        return self

    async def iter_chunked(self, _):
        for piece in self.pieces:
            self.read += len(piece)
            yield piece
        if self.error is not None:
            raise self.error


async def hash_of(*pieces, **how):
    return await PodClient(Session(*pieces, **how)).config_hash("10.0.0.1")


async def drain_of(*pieces, **how):
    return await PodClient(Session(*pieces, **how)).drain("10.0.0.1")


@pytest.mark.parametrize(
    "pieces",
    [
        (b"thanos_receive_config_hash 1.7e+01\n",),
        (b"# TYPE thanos_receive_config_hash gauge\nthanos_receive_con", b"fig_hash 17\nup 1\n"),
        (b"thanos_receive_config_hash_other 3\nthanos_receive_config_hash 17",),
    ],
)
async def test_the_hash_is_found_among_the_metrics(pieces):
    assert await hash_of(*pieces) == (17.0, "")


@pytest.mark.parametrize(
    ("pieces", "how", "reason"),
    [
        ((b"",), {}, "it has no thanos_receive_config_hash: it is no router"),
        ((b"up 1\n",), {}, "it has no thanos_receive_config_hash: it is no router"),
        ((b"thanos_receive_config_hash many\n",), {}, "could not convert string to float: 'many'"),
        ((b"\xff\xfe",), {}, "can't decode byte"),
        ((b"no",), {"status": 503}, "503 it says"),
        ((), {"error": TimeoutError()}, "no answer within 3 s"),
        ((b"thanos_", ), {"error": TimeoutError()}, "no answer within 3 s"),
        ((), {"error": aiohttp.ClientConnectionError("refused")}, "refused"),
        ((b"half",), {"error": aiohttp.ClientPayloadError()}, "ClientPayloadError"),
        ((), {"error": OSError("no route")}, "no route"),
    ],
)  # fmt: skip
async def test_not_knowing_the_hash_has_a_reason(pieces, how, reason):
    found, said = await hash_of(*pieces, **how)
    assert found is None
    assert reason in said


async def test_an_answer_without_end_is_not_read_to_its_end():
    session = Session(*[MEBIBYTE] * 100)
    found, said = await PodClient(session).config_hash("10.0.0.1")
    assert (found, said) == (None, f"its answer is longer than {ANSWER_BYTES_MAX} bytes")
    assert session.read <= ANSWER_BYTES_MAX + len(MEBIBYTE)


@pytest.mark.parametrize("state", ["serving", "draining", "drained", "failed"])
async def test_a_drain_is_what_the_ingestor_says(state):
    answer = json.dumps({"state": state, "tenants": {}, "error": None}).encode()
    assert await drain_of(answer) == Drain(state)


async def test_a_drain_that_failed_says_why():
    assert await drain_of(b'{"state": "failed", "error": "disk full"}') == Drain(
        "failed", "disk full"
    )


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "Expecting value"),
        (b"<html>proxy</html>", "Expecting value"),
        (b"[]", "it answers b'[]' to /-/drain"),
        (b"null", "it answers b'null' to /-/drain"),
        (b"17", "it answers b'17' to /-/drain"),
        (b"{}", "it answers b'{}' to /-/drain"),
        (b'{"state": "gone"}', "to /-/drain"),
        (b'{"state": ["drained"]}', "to /-/drain"),
        (b'{"state": {}}', "to /-/drain"),
        (b'"drained"', "to /-/drain"),
        (b"\xff", "decode"),
        (b"[" * 100_000, "recursion depth"),
    ],
)
async def test_garbage_is_not_a_drain(answer, reason):
    """Least of all one that ended: nothing may be removed for it."""
    drain = await drain_of(answer)
    assert drain.state == "unknown"
    assert reason in drain.error
    assert len(drain.error) < 300


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"status": 404}, "404 it says"),
        ({"error": TimeoutError()}, "no answer within 3 s"),
        ({"error": aiohttp.ClientConnectionError("reset")}, "reset"),
    ],
)
async def test_an_ingestor_that_does_not_answer_is_unknown(how, reason):
    pieces = [] if "error" in how else [b'{"state": "drained"}']
    assert await drain_of(*pieces, **how) == Drain("unknown", reason)


async def test_requests_go_to_the_pods_own_port_and_end_in_time():
    session = Session(b'{"state": "serving"}')
    client = PodClient(session)
    await client.drain("10.0.0.1")
    await client.start_drain("fd00::1")
    await client.cancel_drain("10.0.0.1")
    assert session.asked == [
        "GET http://10.0.0.1:10902/-/drain",
        "POST http://[fd00::1]:10902/-/drain",
        "DELETE http://10.0.0.1:10902/-/drain",
    ]
    assert session.timeouts == [TIMEOUT_S] * 3


@pytest.mark.parametrize("error", [TimeoutError(), aiohttp.ClientError("refused")])
async def test_a_drain_that_is_not_taken_is_an_error(error):
    client = PodClient(Session(error=error))
    with pytest.raises(type(error)):
        await client.start_drain("10.0.0.1")
    with pytest.raises(aiohttp.ClientError, match="409"):
        await PodClient(Session(status=409)).cancel_drain("10.0.0.1")

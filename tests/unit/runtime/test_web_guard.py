"""Who gets past an HTTP port's guard, and what is sent along."""

import asyncio
import base64

import bcrypt
import httpx
import pytest

from thanostack.lib.foundation.clock import SystemClock
from thanostack.runtime import web_guard
from thanostack.runtime.http_common import Answer, send_answer
from thanostack.runtime.web_config import WebConfig
from thanostack.runtime.web_guard import PASSWORDS_KEPT, Passwords, WebGuard

HASH = bcrypt.hashpw(b"right", bcrypt.gensalt(4))
USERS = WebConfig(users={"alice": HASH})


class Clock(SystemClock):
    now_s = 100.0

    def monotonic_s(self):
        return self.now_s


async def inside(scope, _receive, send):
    await send_answer(send, Answer(200, b"inside"))


def client(config, clock=None):
    guard = WebGuard(inside, lambda: config, clock or Clock())
    return httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://g")


@pytest.fixture
def comparisons(monkeypatch):
    """Count what bcrypt is asked."""
    made = []
    real = bcrypt.checkpw
    monkeypatch.setattr(bcrypt, "checkpw", lambda *pair: (made.append(pair), real(*pair))[1])
    return made


async def test_without_users_everybody_gets_in():
    """A guard without a word to say says none."""
    assert (await client(WebConfig()).get("/")).text == "inside"


async def test_right_and_wrong(comparisons):
    """The right password gets in; anything else is asked for one, as upstream asks."""
    asking = client(USERS)
    assert (await asking.get("/", auth=("alice", "right"))).status_code == 200
    for auth in (("alice", "wrong"), ("bob", "right"), ("alice", ""), None):
        answer = await asking.get("/", auth=auth)
        assert (answer.status_code, answer.text) == (401, "Unauthorized\n")
        assert answer.headers["www-authenticate"] == "Basic"
    # bob cost a comparison as well: timing does not tell that there is no bob.
    assert len(comparisons) == 4


async def test_headers_that_are_none():
    """Other schemes, what is not base64, and a name without a colon."""
    asking = client(USERS)
    bare = base64.b64encode(b"alice").decode()
    for value in ("Bearer x", "Basic ???", f"Basic {bare}", "Basic", ""):
        assert (await asking.get("/", headers={"authorization": value})).status_code == 401
    lower = base64.b64encode(b"alice:right").decode()
    assert (await asking.get("/", headers={"authorization": f"basic {lower}"})).status_code == 200


async def test_a_comparison_is_made_once(comparisons):
    """Concurrent and later requests with the same password cost nothing more."""
    asking = client(USERS)
    found = await asyncio.gather(*(asking.get("/", auth=("alice", "right")) for _ in range(9)))
    assert {answer.status_code for answer in found} == {200}
    assert len(comparisons) == 1


async def test_what_is_remembered_is_bounded():
    """And what was asked for again stays."""
    passwords = Passwords()
    cheap = bcrypt.hashpw(b"x", bcrypt.gensalt(4))
    for i in range(PASSWORDS_KEPT + 20):
        await passwords.compare("a", cheap, b"%d" % i)
        passwords.known("a", cheap, b"0")
    assert len(passwords._known) == PASSWORDS_KEPT
    assert passwords.known("a", cheap, b"0") is False
    assert passwords.known("a", cheap, b"1") is None
    assert not any(b"119" in key for key in passwords._known)


async def test_a_crowd_is_told_to_come_back(monkeypatch):
    """Guessing cannot make everybody wait behind it."""
    monkeypatch.setattr(web_guard, "WAITING_MAX", 2)
    asking = client(USERS)
    found = await asyncio.gather(*(asking.get("/", auth=("alice", str(i))) for i in range(9)))
    assert {answer.status_code for answer in found} == {401, 503}


async def test_long_passwords():
    """72 bytes count, as in Go."""
    config = WebConfig(users={"a": bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4))})
    assert (await client(config).get("/", auth=("a", "x" * 100))).status_code == 200


async def test_headers_are_sent():
    """With answers and refusals; what the application says itself is left."""
    config = WebConfig(headers=((b"x-frame-options", b"deny"),), users={"alice": HASH})
    asking = client(config)
    for auth in (("alice", "right"), None):
        assert (await asking.get("/", auth=auth)).headers["x-frame-options"] == "deny"


async def test_rate_limit():
    """A burst, then one an interval, then 429."""
    clock = Clock()
    asking = client(WebConfig(burst=2, interval_s=0.5), clock)

    async def codes(count):
        return [(await asking.get("/")).status_code for _ in range(count)]

    assert await codes(3) == [200, 200, 429]
    clock.now_s += 0.6
    assert await codes(2) == [200, 429]
    clock.now_s += 60
    assert await codes(3) == [200, 200, 429]

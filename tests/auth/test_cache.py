"""Verified tokens are remembered: cheap the second time, within a bound, and no longer than they hold."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import Any

import pytest

from gateway.auth import jose
from gateway.auth.keys import KeyRing
from gateway.auth.tokens import CACHE_BYTES, Tokens
from gateway.core.errors import Unauthorized
from gateway.core.revoked import Revoked
from tests.support.gateway import Gateway
from tests.support.sse import SseClient
from tests.support.tokens import SECRET, bearer, claims, sign, token


class Bench:
    """A verifier, its clock, what is revoked, and how often a signature was looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, cache_bytes: int = CACHE_BYTES) -> None:
        self.now = 1_800_000_000.0
        self.revoked = Revoked()
        self.verifications = 0
        self.tokens = Tokens(
            KeyRing([jose.secret_key(SECRET.encode())], None),
            issuer=None,
            audiences=(),
            leeway_s=5,
            revoked=self.revoked,
            now=lambda: self.now,
            cache_bytes=cache_bytes,
        )
        verify = jose.verify

        def counted(*arguments: Any, **more: Any) -> dict[str, Any]:
            self.verifications += 1
            return verify(*arguments, **more)

        monkeypatch.setattr(jose, "verify", counted)

    def token(self, sub: str = "alice", **more: Any) -> str:
        return token(sub, **{"iat": int(self.now), "exp": int(self.now) + 60, **more})


async def test_the_second_time_costs_no_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is verified once, however often it comes; another one, also of the same user, for itself."""
    bench = Bench(monkeypatch)
    text = bench.token()
    first = await bench.tokens.verify(text)
    for _ in range(10):
        assert await bench.tokens.verify(text) is first
    assert bench.verifications == 1
    await bench.tokens.verify(bench.token(jti="2"))
    assert bench.verifications == 2


async def test_what_is_refused_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad tokens, of which there are any number, take no room."""
    bench = Bench(monkeypatch)
    for number in range(50):
        with pytest.raises(Unauthorized):
            await bench.tokens.verify(sign(claims(f"u{number}"), key="x" * 40))
    assert (len(bench.tokens.cache), bench.tokens.cache.bytes) == (0, 0)


# What other tests of this process have left is collected here, and is not this test's.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"subscribe": ["aa.b"] * 50},
        {"subscribe": [".".join(["aa"] * 200)]},
        {"other": [[] for _ in range(200)]},
        {"other": [{"": 0.5} for _ in range(80)]},
        {"other": "é" * 800},
    ],
    ids=["small", "patterns", "long pattern", "lists", "objects", "text"],
)
async def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]) -> None:
    """However tokens are made, what is remembered stays within its bytes, counted and real; the oldest go."""
    limit = 90_000
    bench = Bench(monkeypatch, cache_bytes=limit)
    texts = [bench.token(f"u{number}", **more) for number in range(60)]
    await bench.tokens.verify(bench.token())
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for text in texts:
        await bench.tokens.verify(text)
        assert bench.tokens.cache.bytes <= limit
    gc.collect()
    real = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    kept = len(bench.tokens.cache)
    assert 0 < kept < 60
    assert real < 1.2 * limit
    assert real > 0.3 * limit, "it counts far more than it holds"
    done = bench.verifications
    for text in texts[-kept:]:
        await bench.tokens.verify(text)
    assert bench.verifications == done
    await bench.tokens.verify(texts[0])
    assert bench.verifications == done + 1


async def test_one_that_is_too_big_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that needs more than there is gets in, and throws nobody's bytes over the bound."""
    bench = Bench(monkeypatch, cache_bytes=1000)
    assert (await bench.tokens.verify(bench.token(subscribe=["repo.1.>"] * 100))).sub == "alice"
    assert bench.tokens.cache.bytes == 0


async def test_a_remembered_token_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is held against the clock each time, with the leeway of the first time."""
    bench = Bench(monkeypatch)
    text = bench.token()
    await bench.tokens.verify(text)
    bench.now += 64.9
    await bench.tokens.verify(text)
    bench.now += 0.1
    for _ in range(2):
        with pytest.raises(Unauthorized) as refused:
            await bench.tokens.verify(text)
        assert refused.value.reason == "expired"
    assert len(bench.tokens.cache) == 0


async def test_a_remembered_token_is_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Revocation is looked at each time: of its user, since it was issued, and only as long as it stands."""
    bench = Bench(monkeypatch)
    text, other = bench.token(), bench.token("bob")
    for each in (text, other):
        await bench.tokens.verify(each)
    bench.revoked.update({"alice": bench.now + 1})
    with pytest.raises(Unauthorized) as refused:
        await bench.tokens.verify(text)
    assert refused.value.reason == "revoked"
    await bench.tokens.verify(other)
    await bench.tokens.verify(bench.token(iat=bench.now + 2))
    bench.revoked.update({"alice": None})
    await bench.tokens.verify(text)
    assert bench.verifications == 3


async def test_a_reconnect_storm(guarded: Gateway, own_id: str) -> None:
    """Seen from outside: many connections with one token take the room of one."""
    headers = bearer(token(own_id, subscribe=["user.{sub}.>"]))

    def size() -> float:
        return guarded.metrics().total("natsgate_auth_cache_bytes", cache="tokens")

    async def come() -> None:
        async with SseClient(guarded.url, f"user.{own_id}.>", headers=headers) as sse:
            await sse.ready()

    before = size()
    await come()
    one = size() - before
    assert one > 0
    await asyncio.gather(*(come() for _ in range(40)))
    assert size() == before + one

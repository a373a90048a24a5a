"""Whatever comes instead of a token or a ticket, the answer is a refusal, never a fault of ours."""

from __future__ import annotations

import json
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import jwt
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.auth import jose
from gateway.auth.keys import KeyRing
from gateway.auth.tickets import BUILT_IN_PATHS, Tickets
from gateway.auth.tokens import Tokens
from gateway.core.errors import BadRequest, Unauthorized
from gateway.core.revoked import Revoked
from gateway.core.rights import LAST_SECOND, MAX_PATTERNS, Principal
from tests.support.tokens import SECRET, claims, crafted, public_pem, sign

NOW = time.time()
RIGHTS = ["user.{sub}.>", "repo.42.>"]


def verifier() -> Tokens:
    """A gateway's verifier with SECRET and two public keys, whose time stands still."""
    keys = [
        jose.secret_key(SECRET.encode()),
        jose.public_key(public_pem("ES256")),
        jose.public_key(public_pem("RS256")),
    ]
    return Tokens(KeyRing(keys, None), issuer=None, audiences=(), leeway_s=5, revoked=Revoked(), now=lambda: NOW)


TOKENS = verifier()


def stamper(ttl_s: float = 3600, *, now: float = NOW, secret: str = SECRET) -> Tickets:
    """A gateway's maker and reader of tickets, at that time."""
    return Tickets(secret, ttl_s, leeway_s=5, now=lambda: now)


TICKETS = stamper()


def result(verifying: Coroutine[Any, Any, Principal]) -> Principal:
    """What comes of it at once: without an issuer there is nothing to wait for."""
    try:
        verifying.send(None)
    except StopIteration as done:
        principal: Principal = done.value
        return principal
    raise AssertionError("it waits for something")


def verified(text: str) -> Principal | None:
    """The principal, or None for one who is refused. Anything else fails."""
    try:
        return result(TOKENS.verify(text))
    except Unauthorized as error:
        assert error.reason in ("malformed", "unknown_key", "signature", "expired", "not_yet", "claims")
        assert error.detail.isascii()
        assert len(error.detail) < 600
        return None


def mine(sub: str = "alice", **more: Any) -> dict[str, Any]:
    """Good claims at that time."""
    return claims(sub, **{"iat": int(NOW), "exp": int(NOW) + 3600, "subscribe": RIGHTS, **more})


GOOD = {
    "HS256": sign(mine(jti="1")),
    "ES256": sign(mine(), algorithm="ES256"),
    "RS256": sign(mine(), algorithm="RS256"),
}
TICKET, _ = TICKETS.mint(result(TOKENS.verify(GOOD["HS256"])), None)

characters = st.characters() | st.sampled_from(".=-_ \0A")
edits = st.lists(
    st.tuples(st.sampled_from(["flip", "insert", "delete", "repeat"]), st.floats(0, 1), characters),
    min_size=1,
    max_size=4,
)


def edited(text: str, changes: Sequence[tuple[str, float, str]]) -> str:
    """The text with characters changed, put in, left out or doubled at relative places."""
    letters = list(text)
    for kind, place, letter in changes:
        at = min(int(place * len(letters)), max(len(letters) - 1, 0))
        match kind:
            case "flip":
                letters[at : at + 1] = [letter]
            case "insert":
                letters[at:at] = [letter]
            case "delete":
                del letters[at : at + 1]
            case "repeat":
                letters[at:at] = letters[at : at + 1] * 3
    return "".join(letters)


@given(st.sampled_from(sorted(GOOD)), edits)
def test_a_changed_token_is_refused(algorithm: str, changes: list[tuple[str, float, str]]) -> None:
    """Of all texts near a token only the token itself is taken: there is one spelling of it."""
    text = edited(GOOD[algorithm], changes)
    assert (verified(text) is not None) is (text == GOOD[algorithm])


@given(edits)
def test_a_changed_ticket_is_refused(changes: list[tuple[str, float, str]]) -> None:
    """The same of tickets."""
    text = edited(TICKET, changes)
    if text == TICKET:
        assert TICKETS.read(text, "/events").sub == "alice"
    else:
        with pytest.raises(Unauthorized):
            TICKETS.read(text, "/events")


segments = st.sampled_from([part for text in [*GOOD.values(), TICKET] for part in text.split(".")]) | st.text(
    max_size=5
)


@given(st.lists(segments, max_size=5).map(".".join))
def test_swapped_segments_are_refused(text: str) -> None:
    """Parts of different tokens make no token."""
    assume(text not in GOOD.values())
    assert verified(text) is None


# Tokens that are signed, and say anything

json_texts = st.recursive(
    st.sampled_from(
        ["null", "true", "NaN", "-Infinity", "1e400", "-1e400", "1" * 400, "-1", "0.5", '"\\ud800"', "{", ""]
    )
    | st.integers().map(str)
    | st.floats().map(json.dumps)
    | st.text(max_size=8).map(json.dumps)
    | st.sampled_from([json.dumps(each) for each in ("HS256", "none", "alice", "repo.42.>", "{sub}", int(NOW) + 60)]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda each: f"[{','.join(each)}]")
        | st.lists(st.tuples(st.sampled_from(["subscribe", "publish", "a"]), inner), max_size=3).map(
            lambda each: "{" + ",".join(f'"{name}":{value}' for name, value in each) + "}"
        )
    ),
    max_leaves=6,
)
header_names = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5c", "cty", "zip", "enc"])
claim_names = st.sampled_from(["exp", "nbf", "iat", "sub", "iss", "aud", "jti", "natsgate", "natsgate_paths", "other"])


def merged(text: str, more: Sequence[tuple[str, str]]) -> bytes:
    """A JSON object with further members behind its own; a name may come twice."""
    return (text[:-1] + "".join(f',"{name}":{value}' for name, value in more) + "}").encode()


HEADER, CLAIMS = '{"alg":"HS256"}', json.dumps(mine())


@given(
    st.lists(st.tuples(header_names, json_texts), max_size=3), st.lists(st.tuples(claim_names, json_texts), max_size=3)
)
@example([], [("exp", "1e400")])
@example([], [("exp", "1" * 400)])
@example([], [("iat", "-" + "1" * 400)])
@example([], [("iss", "5")])
@example([], [("natsgate", '{"subscribe":["{sub}"]}'), ("sub", '"\\ud800"')])
@example([], [("other", "[" * 100_000)])
@example([], [("other", "[" * 500 + "]" * 500)])
@example([("alg", '"none"')], [])
@example([("kid", "5")], [])
@example([("crit", '["b64"]'), ("b64", "false")], [])
@example([("a", "[" * 100_000)], [])
def test_a_signed_token_says_anything(header: list[tuple[str, str]], content: list[tuple[str, str]]) -> None:
    """Header and claims of any JSON, with names twice, huge numbers and deep nests: a principal whose times and
    patterns are sound, or a refusal. What a principal holds can be made a ticket of, or is too much for one."""
    principal = verified(crafted(merged(HEADER, header), merged(CLAIMS, content)))
    if principal is None:
        return
    assert isinstance(principal.sub, str)
    assert principal.sub
    assert principal.expires_at is not None
    assert NOW - 5 < principal.expires_at <= LAST_SECOND
    assert 0 <= principal.issued_at <= NOW + 5
    for rights in (principal.subscribe, principal.publish):
        assert len(rights) <= MAX_PATTERNS
        assert all(token_ and "{sub}" not in token_ for pattern in rights for token_ in pattern)
    try:
        ticket, expires_at = TICKETS.mint(principal, "/a")
    except BadRequest:
        return
    except Unauthorized as error:
        assert error.reason == "expired"
        assert principal.expires_at <= NOW + 1  # taken within the leeway, or a fraction of a second; a ticket has none
        return
    read = TICKETS.read(ticket, "/a")
    assert expires_at <= principal.expires_at
    assert (read.sub, read.subscribe, read.publish) == (principal.sub, principal.subscribe, principal.publish)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_signed_nonsense_is_refused(header: bytes, content: bytes) -> None:
    """Bytes that are no JSON, signed all the same."""
    assert verified(crafted(header, content)) is None
    assert verified(crafted(HEADER.encode(), content)) is None
    with pytest.raises(Unauthorized):
        TICKETS.read(crafted(HEADER.encode(), content), "/events")


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: data.decode("utf-8", "surrogateescape")))
@example("\ud800.a.b")
@example(".".join(["A" * 4] * 3))
@example("a" * 8192)
def test_any_text_is_refused(text: str) -> None:
    """Anything at all, as token and as ticket."""
    assert verified(text) is None
    with pytest.raises(Unauthorized):
        TICKETS.read(text, "/events")


# Tickets are no tokens

words = st.text(min_size=1, max_size=10).filter(lambda text: text.isprintable())


@given(words, st.sampled_from(["/events", "/ws", "/a/b", None]))
def test_a_ticket_is_no_token_and_a_token_no_ticket(sub: str, path: str | None) -> None:
    """Both come from one secret, and neither is taken for the other, whatever the claims."""
    text = sign(mine(sub, natsgate_paths=["/events", "/ws", "/a/b"]))
    principal = verified(text)
    assert principal is not None
    ticket, _ = TICKETS.mint(principal, path)
    assert verified(ticket) is None
    for each in ("/events", "/ws", "/a/b"):
        with pytest.raises(Unauthorized) as refused:
            TICKETS.read(text, each)
        assert refused.value.reason == "ticket"
    own = BUILT_IN_PATHS if path is None else (path,)
    for each in ("/events", "/ws", "/a/b", "/a/b/", "/a", "/events?x", "/EVENTS", "/%65vents", ""):
        if each in own:
            assert TICKETS.read(ticket, each).sub == sub
        else:
            with pytest.raises(Unauthorized) as refused:
                TICKETS.read(ticket, each)
            assert refused.value.reason == "ticket_path"


@given(st.integers(1, 10_000), st.integers(0, 10_000), st.integers(0, 20_000))
@example(10, 0, 10)
@example(10, 100, 10)
@example(100, 10, 10)
def test_a_ticket_ends(left_s: int, ttl_s: int, later_s: int) -> None:
    """A ticket lives for its time and never beyond its token, without any leeway."""
    tickets = stamper(ttl_s)
    principal = verified(sign(mine(exp=int(NOW) + left_s)))
    assert principal is not None
    ticket, expires_at = tickets.mint(principal, None)
    assert expires_at == int(min(int(NOW) + left_s, NOW + ttl_s if ttl_s else int(NOW) + left_s))
    reader = stamper(ttl_s, now=int(NOW) + later_s)
    if int(NOW) + later_s < expires_at:
        assert reader.read(ticket, "/events").expires_at == expires_at
    else:
        with pytest.raises(Unauthorized) as refused:
            reader.read(ticket, "/events")
        assert refused.value.reason == "expired"


@given(st.floats(-4, 4), st.floats(-4, 4))
def test_a_ticket_of_an_issuer_whose_clock_is_ahead(nbf: float, iat: float) -> None:
    """What was taken within the leeway makes a ticket that is good at once."""
    principal = verified(sign(mine(nbf=NOW + nbf, iat=NOW + iat)))
    assert principal is not None
    ticket, _ = TICKETS.mint(principal, None)
    assert TICKETS.read(ticket, "/events").issued_at == principal.issued_at


def test_a_ticket_of_another_gateway() -> None:
    """One that was signed with another secret, or holds what this gateway cannot read, is refused."""
    principal = verified(GOOD["HS256"])
    assert principal is not None
    ticket, _ = stamper(secret="another-secret-of-at-least-32-bytes-for-tests").mint(principal, None)
    with pytest.raises(Unauthorized):
        TICKETS.read(ticket, "/events")
    key = TICKETS._key
    assert key is not None
    strange = jwt.encode({"sub": 5, "exp": int(NOW) + 60, "natsgate_paths": ["/events"]}, key)
    stranger = jwt.encode({"exp": int(NOW) + 60, "natsgate_paths": ["/events"]}, key)
    for each in (strange, stranger):
        with pytest.raises(Unauthorized):
            TICKETS.read(each, "/events")

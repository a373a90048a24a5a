"""JSON of strangers: events from publishers, ops from clients."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.envelope import BadEvent, check
from gateway.core.ops import BadOp, Ping, Subscribe, Unsubscribe, error_reply, parse_op

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
pieces = st.sampled_from(
    [
        *(b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b" ", b"\r", b"\n", b"\0"),
        *(b"NaN", b"-Infinity", b"1e999", b"-0", b"01", b"9" * 5000),
        *(b"\xff", b"\xc3", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"\xe2\x80\xa8", b"\xef\xbb\xbf"),
    ]
)


@st.composite
def nearly_json(draw: st.DrawFn) -> bytes:
    """The text of an object, its layout at random, with a few bytes of it changed, lost or put in."""
    value = draw(st.dictionaries(st.text(max_size=5), values, max_size=4) | values)
    layout = draw(st.sampled_from([None, 1, "\r\n", "\t"]))
    text = bytearray(json.dumps(value, indent=layout, ensure_ascii=draw(st.booleans())).encode("utf-8", "replace"))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        text[at : at + draw(st.integers(0, 2))] = draw(pieces | st.binary(max_size=1))
    return bytes(text)


def by_the_letter(payload: bytes) -> Any:
    """What Python's own parser makes of it: strict UTF-8, no NaN; numbers of any size."""

    def refuse(name: str) -> Any:
        raise ValueError(name)

    text = payload.decode("utf-8", "strict")
    return json.loads(text, parse_int=float, parse_constant=refuse)


def strings(fields: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if isinstance(value, str)}


@given(nearly_json() | st.binary(max_size=60))
def test_the_guard_takes_what_json_is_and_nothing_else(payload: bytes) -> None:
    """Events are exactly the texts that another parser reads as objects; they pass byte for byte, on one line."""
    try:
        expected = by_the_letter(payload)
    except (ValueError, RecursionError):
        expected = None
    try:
        line, read = check(payload)
    except BadEvent as bad:
        assert bad.reason in {"not_utf8", "not_json", "not_object", "too_deep"}
        assert not isinstance(expected, dict)
        return
    assert isinstance(expected, dict)
    assert line == payload.replace(b"\r", b" ").replace(b"\n", b" ")
    assert by_the_letter(line) == expected
    assert list(read) == list(expected)
    assert strings(read) == strings(expected)


wrong = st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.lists(st.text(max_size=3), max_size=2)
ops = st.fixed_dictionaries(
    {},
    optional={
        "op": st.sampled_from(["subscribe", "unsubscribe", "ping", "publish", ""]) | wrong,
        "ref": st.integers() | st.text(max_size=140) | st.floats() | wrong,
        "subject": st.sampled_from(["repo.1.>", "inbox.x"]) | wrong,
        "subjects": st.lists(st.sampled_from(["repo.1.>", "user.*.x"]), max_size=3) | wrong,
        "feed": st.sampled_from(["repo.1.>"]) | wrong,
        "cursor": st.sampled_from(["abc-1", "abc-01", ""]) | wrong,
        "since": st.sampled_from(["15m", "all"]) | wrong,
        "snapshot": wrong,
    },
)


@given(ops)
def test_an_op_is_what_was_sent_or_is_refused(op: dict[str, Any]) -> None:
    """An op that is understood holds what was sent; one that is not is answered by an error with its reference."""
    try:
        read = parse_op(json.dumps(op).encode())
    except BadOp as bad:
        assert bad.detail.isprintable()
        frame = error_reply(bad, bad.ref)
        answer = json.loads(frame[4 if frame[1] == 126 else 2 :])
        assert (answer["op"], answer["code"]) == ("error", bad.code)
        assert bad.ref is None or answer["ref"] == op["ref"]
        return
    assert json.loads(read.ref or "null") == op.get("ref")
    match read:
        case Subscribe():
            assert op["op"] == "subscribe"
            assert list(read.subjects) == (op["subjects"] if "subjects" in op else [op["subject"]])
            assert str(read.start.cursor or "") == (op.get("cursor") or "")
            assert read.start.snapshot == bool(op.get("snapshot"))
        case Unsubscribe():
            assert (op["op"], op["feed"]) == ("unsubscribe", read.feed)
        case Ping():
            assert op["op"] == "ping"

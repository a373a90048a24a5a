"""Whatever a client or a publisher sends, the core answers with a value or with an error that was promised."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.cursor import Cursor, parse_cursor
from gateway.core.envelope import BadEvent, check, event_name
from gateway.core.errors import BadRequest, ClientError
from gateway.core.ops import BadOp, parse_op, reply
from gateway.core.query import parse_filters, parse_query
from gateway.core.start import Since, parse_since
from publishers.wire import DEFAULT_ROOTS, encode_id

anything = st.text(max_size=100)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(anything | st.from_regex(r"[0-9a-z]{1,40}-\d{1,30}", fullmatch=True))
def test_a_cursor_is_read_whole_or_refused(text: str) -> None:
    """A cursor that is accepted is spelled exactly as the gateway spells it; everything else is a BadRequest."""
    try:
        cursor = parse_cursor(text)
    except BadRequest:
        return
    assert str(cursor) == text
    assert 0 <= cursor.sequence < 2**64
    assert parse_cursor(str(Cursor(*cursor))) == cursor


names = st.sampled_from(["subject", "since", "snapshot", "until", "named", "last_event_id"])


@given(st.lists(st.tuples(names, anything)))
def test_a_query_is_read_or_refused(items: list[tuple[str, str]]) -> None:
    """No query raises anything but an answer for its client."""
    try:
        query = parse_query(items)
        parse_filters(query.subjects, DEFAULT_ROOTS, 32)
    except ClientError as error:
        assert error.detail


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_an_op_is_read_or_refused(message: bytes) -> None:
    """No message raises anything but a BadOp, which has a code and a sentence."""
    try:
        parse_op(message)
    except BadOp as error:
        assert error.code in {"bad_json", "bad_request", "unknown_op", "bad_cursor"}
        assert error.detail


@given(st.text(min_size=1, max_size=80).filter(lambda text: max(text) < "\ud800" or max(text) > "\udfff"))
def test_an_id_in_a_filter_is_one_literal_token(text: str) -> None:
    """No id, once encoded, selects anything but itself."""
    (filter_,) = parse_filters([f"repo.{encode_id(text)}.x"], DEFAULT_ROOTS, 32)

    assert len(filter_.tokens) == 3
    assert filter_.tokens[1] not in ("*", ">")
    assert filter_.matches(f"repo.{encode_id(text)}.x")
    assert not filter_.matches(f"repo.{encode_id(text + 'x')}.x")


@given(json_values)
def test_an_event_is_any_json_object_and_nothing_else(value: Any) -> None:
    """Objects pass as the text that they are, on one line; all other values are named."""
    text = json.dumps(value, indent=1).encode()
    if isinstance(value, dict):
        line, read = check(text)
        assert b"\n" not in line
        assert len(line) == len(text)
        assert json.loads(line) == value
        name = event_name(read, "repo.1.x")
        assert b"\n" not in name
        assert b"\r" not in name
    else:
        with pytest.raises(BadEvent):
            check(text)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_json"),
        (b"nonsense", "not_json"),
        (b'{"n":NaN}', "not_json"),
        (b'{"n":Infinity}', "not_json"),
        (b'{"a":1}{"b":2}', "not_json"),
        (b'{"a":"\n"}', "not_json"),
        (b"[" * 100_000, "too_deep"),
        (b'{"a":' * 100_000, "too_deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep"),
        (b"\xff\xfe{}", "not_utf8"),
        (b'{"a":"\xed\xa0\x80"}', "not_utf8"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b"[1]", "not_object"),
        (b'"text"', "not_object"),
        (b"null", "not_object"),
    ],
)
def test_what_is_no_event_has_a_reason(payload: bytes, reason: str) -> None:
    """Each kind of bad payload is told by its own name."""
    with pytest.raises(BadEvent) as refused:
        check(payload)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    "payload",
    [b'{"a":"\\ud800"}', b'{"n":' + b"9" * 10_000 + b"}", b'{"n":1e400}', b'{"b":1,"a":2}', b'{"n":1.0}', b'{"n":-0}'],
)
def test_unusual_objects_pass_as_they_are(payload: bytes) -> None:
    """Lone surrogates, huge numbers, key order and spelling are the publisher's business."""
    assert check(payload)[0] == payload


@pytest.mark.parametrize("event_type", [b"7", b"1.5", b"9" * 5000])
def test_a_number_is_no_type(event_type: bytes) -> None:
    """A `type` that is a number names nothing, also in an object that only our second parser reads."""
    for other in (b'"x"', b'"\\ud800"'):
        _, read = check(b'{"other":%b,"type":%b}' % (other, event_type))
        assert not isinstance(read["type"], str)
        assert event_name(read, "repo.1.tail") == b"tail"


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("all", Since()),
        ("15m", Since(ago_s=900)),
        ("1h30m", Since(ago_s=5400)),
        ("2d", Since(ago_s=172800)),
        ("250ms", Since(ago_s=0.25)),
        ("2030-01-31T12:00:00z", Since(time="2030-01-31T12:00:00Z")),
        ("2030-01-31T12:00:00.5+02:00", Since(time="2030-01-31T10:00:00.500000Z")),
        ("1970-01-01T00:00:00Z", Since(time="1970-01-01T00:00:00Z")),
        ("0001-01-01T00:00:00+23:00", Since(time="1970-01-01T00:00:00Z")),
    ],
)
def test_since_is_a_duration_or_a_time(text: str, since: Since) -> None:
    """Every spelling that is promised is understood."""
    assert parse_since(text) == since


@pytest.mark.parametrize("text", ["2026-01-01T00:00:00-00:99", "9999-01-01T00:00:00Z", "2026-02-30T00:00:00Z"])
def test_since_refuses_times_that_nats_cannot_tell(text: str) -> None:
    """What has the shape of a time and is none for NATS is refused at the door."""
    with pytest.raises(BadRequest):
        parse_since(text)


@given(anything.filter(lambda text: text != "all"))
def test_since_refuses_the_rest(text: str) -> None:
    """Everything else is a BadRequest that shows what would be right."""
    try:
        assert parse_since(text) != Since()
    except BadRequest as error:
        assert "15m" in error.detail


def test_a_reference_comes_back_as_it_was() -> None:
    """Numbers and strings are references, and come back as the text that they are; anything else is refused."""
    for ref in ("1", "1.50", "-0", "1E2", "9007199254740993", "123456789012345678901234567890", '"a"', r'"\u0041"'):
        assert parse_op(b'{"op":"ping","ref" : %b }' % ref.encode()).ref == ref
        assert reply("pong", ref=ref).endswith(b'{"op":"pong","ref":%b}' % ref.encode())
    for nothing in (b'{"op":"ping"}', b'{"op":"ping","ref":null}', b'{"ref":1,"op":"ping","ref":null}'):
        assert parse_op(nothing).ref is None
    for bad in ("true", "[1]", '{"a":1}', f'"{"x" * 129}"', "1" * 129):
        with pytest.raises(BadOp, match="ref is"):
            parse_op(b'{"op":"ping","ref":%b}' % bad.encode())


def test_a_reference_in_a_message_without_a_bottom_is_refused() -> None:
    """However deep a message is nested, it is answered."""
    for depth in (10, 500, 900, 1000, 1020, 5000):
        with pytest.raises(BadOp) as refused:
            parse_op(b'{"op":"ping","ref":1,"x":%b%b}' % (b"[" * depth, b"]" * depth))
        assert refused.value.code in ("bad_request", "bad_json")

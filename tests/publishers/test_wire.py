"""Ids, subjects and events: the published vectors, and properties over all strings."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from publishers import wire

VECTORS: dict[str, Any] = json.loads((files("publishers") / "vectors.json").read_text())
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
ROOTS = st.sampled_from(wire.DEFAULT_ROOTS)


@pytest.mark.parametrize("vector", VECTORS["ids"], ids=lambda vector: vector["about"])
def test_vector_id(vector: dict[str, str]) -> None:
    """Each id of the vectors has the token written there, and back."""
    assert wire.encode_id(vector["id"]) == vector["token"]
    assert wire.decode_id(vector["token"]) == vector["id"]
    assert wire.is_canonical_token(vector["token"])


@pytest.mark.parametrize("vector", VECTORS["invalid_ids"], ids=lambda vector: vector["about"])
def test_vector_invalid_id(vector: dict[str, str]) -> None:
    """What UTF-8 cannot write, or is empty, is refused as an id."""
    with pytest.raises(wire.InvalidId):
        wire.encode_id(vector["id"])


@pytest.mark.parametrize("vector", VECTORS["invalid_tokens"], ids=lambda vector: vector["about"])
def test_vector_invalid_token(vector: dict[str, str]) -> None:
    """Tokens that encoding cannot make are refused."""
    assert not wire.is_canonical_token(vector["token"])
    with pytest.raises(wire.InvalidId):
        wire.decode_id(vector["token"])


@pytest.mark.parametrize("vector", VECTORS["subjects"], ids=lambda vector: vector["subject"])
def test_vector_subject(vector: dict[str, str]) -> None:
    """Subjects are built and taken apart as the vectors say."""
    parts = (vector["root"], vector["id"], vector["event_type"])
    assert wire.subject(*parts) == vector["subject"]
    assert wire.parse_subject(vector["subject"]) == parts


@pytest.mark.parametrize("vector", VECTORS["invalid_subjects"], ids=lambda vector: vector["about"])
def test_vector_invalid_subject(vector: dict[str, str]) -> None:
    """Wildcards, missing tokens, foreign encodings and over-long subjects are refused."""
    with pytest.raises(wire.InvalidSubject):
        wire.parse_subject(vector["subject"])


@given(IDS)
def test_every_string_is_an_id(text: str) -> None:
    """Every non-empty string that UTF-8 can write is an id, and decoding gives it back."""
    assert wire.decode_id(wire.encode_id(text)) == text


@given(IDS)
def test_no_id_widens_a_filter(text: str) -> None:
    """A token is one literal ASCII token: no dot, wildcard, blank or control character is in it."""
    token = wire.encode_id(text)
    assert token
    assert token.isascii()
    assert token.isprintable()
    assert not set(token) & set(".*> \t\r\n")


@given(IDS, IDS)
def test_different_ids_have_different_tokens(one: str, other: str) -> None:
    """Two ids share a token only if they are the same id."""
    assert (wire.encode_id(one) == wire.encode_id(other)) == (one == other)


@given(st.text(alphabet="%2eE4F.*> aZ/é\n", max_size=12) | st.text())
def test_decoding_accepts_only_what_encoding_makes(token: str) -> None:
    """Whatever decodes is exactly the token of what it decodes to."""
    try:
        text = wire.decode_id(token)
    except wire.InvalidId:
        assert not wire.is_canonical_token(token)
    else:
        assert wire.encode_id(text) == token


@given(ROOTS, IDS, st.lists(IDS.map(wire.encode_id), min_size=1, max_size=3))
def test_subjects_come_apart_again(root: str, id: str, tokens: list[str]) -> None:
    """A built subject gives back root, id and event type, or is refused for its length."""
    try:
        subject = wire.subject(root, id, *tokens)
    except wire.InvalidSubject as err:
        assert "more than 1024" in str(err)
    else:
        assert wire.parse_subject(subject) == (root, id, ".".join(tokens))
        assert len(subject.split(".")) == 2 + len(tokens)


@pytest.mark.parametrize("root", ["", "*", ">", "a.b", "a b", "é", "$SYS"])
def test_root_is_literal(root: str) -> None:
    """A root is one plain token, and the error names the usual ones."""
    with pytest.raises(wire.InvalidSubject, match="repo, task, project"):
        wire.subject(root, "1", "x")


@pytest.mark.parametrize("event_type", ["", "a..b", "a.*", ">", "a b", "ü", ".a", "a."])
def test_event_type_is_literal(event_type: str) -> None:
    """An event type never becomes a wildcard or an empty token, and the error says how to mend it."""
    with pytest.raises(wire.InvalidSubject, match="encode_id"):
        wire.subject("repo", "1", event_type)


def test_id_must_be_text() -> None:
    """A number as an id is refused with the way to mend it."""
    with pytest.raises(wire.InvalidId, match=r"str\(\.\.\.\)"):
        wire.subject("repo", 42, "x")  # type: ignore[arg-type]


def test_envelope_is_canonical() -> None:
    """The envelope has type, ts, id and payload, the ids that were given, and passes other fields."""
    event = wire.envelope("task.progress", {"percent": 5}, repo_id=42, request_id="r", x_own=[1])
    assert list(event) == ["type", "ts", "id", "repo_id", "request_id", "payload", "x_own"]
    assert event["payload"] == {"percent": 5}
    assert event["ts"] > 1_600_000_000_000
    assert event["id"] != wire.envelope("task.progress")["id"]
    assert orjson.loads(wire.encode_event(event)) == event


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("type", {"type": ""}),
        ("payload", {"type": "a", "payload": [1]}),
        ("ts", {"type": "a", "ts": 1.5}),
        ("ts", {"type": "a", "ts": True}),
        ("ts", {"type": "a", "ts": -1}),
        ("id", {"type": "a", "id": ""}),
        ("repo_id", {"type": "a", "repo_id": 1.5}),
    ],
)
def test_envelope_names_the_wrong_field(field: str, arguments: dict[str, Any]) -> None:
    """A field of the wrong type is named in the error."""
    with pytest.raises(wire.InvalidEvent, match=f"'{field}'"):
        wire.envelope(**arguments)


def test_event_limits() -> None:
    """No object, no JSON, or too big: refused with a reason."""
    with pytest.raises(wire.InvalidEvent, match="must be a JSON object"):
        wire.encode_event([1])  # type: ignore[arg-type]
    with pytest.raises(wire.InvalidEvent, match="cannot be written as JSON"):
        wire.encode_event({"type": "a", "payload": object()})
    with pytest.raises(wire.InvalidEvent, match="more than the 10"):
        wire.encode_event({"type": "a", "payload": {}}, max_event_bytes=10)
    assert wire.encode_event({"type": "a" * 300_000}, max_event_bytes=0)

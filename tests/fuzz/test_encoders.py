"""What the gateway writes: whatever publishers put into events, frames and blocks hold, and bring back what went in."""

from __future__ import annotations

import json
import logging
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.protocol import Protocol, Side

from gateway.core import control, sse
from gateway.core.closing import Closing
from gateway.core.control import Control
from gateway.core.dialect import ENVELOPE, RAW, RAW_WITH_CONTROL, SSE, SSE_NAMED
from gateway.core.event import Event
from gateway.core.feed import Feed, Feeds
from gateway.core.index import Topic
from gateway.core.sse_reader import SseReader
from gateway.core.subjects import parse_filter
from tests.support.sse import EventStreamParser

PREFIX = b"6d84fbe51b87-"
UNSPOKEN = {"open", "error", "message"}
_SILENT = logging.getLogger("tests.websockets")

strange = st.sampled_from(
    [
        "\r",
        "\n",
        "\0",
        "\x85",
        "\u2028",
        "\u2029",
        "\ufeff",
        "\x7f",
        ":",
        " ",
        "data: x",
        "\n\ndata: x\n\n",
        "\ud800",
        "ü",
    ]
)
names = st.lists(strange | st.text(max_size=3), max_size=4).map("".join) | st.sampled_from(
    [*UNSPOKEN, "natsgate.ready", "task.progress", " task", "x" * 256, "x" * 257]
)
payloads = st.dictionaries(names, names | st.integers() | st.lists(names, max_size=2), max_size=3)


@st.composite
def json_texts(draw: st.DrawFn) -> bytes:
    """Objects as publishers spell them: any layout, line breaks before, between and behind their tokens."""
    content: dict[str, Any] = draw(payloads)
    if draw(st.booleans()):
        content["type"] = draw(names | st.none() | st.integers())
    text = json.dumps(
        content, indent=draw(st.sampled_from([None, 0, "\r", "\n\r\n"])), ensure_ascii=draw(st.booleans())
    )
    space = st.sampled_from(["", "\n", "\r\n\r\n", " ", "\t\r"])
    return (draw(space) + text + draw(space)).encode("utf-8", "replace")


# NATS takes every byte in a subject but spaces, line breaks and its own separators.
subjects = st.lists(
    st.binary(min_size=1, max_size=4).map(
        lambda token: bytes(byte for byte in token if byte not in b"\0\t\n\r .*>") or b"x"
    ),
    min_size=1,
    max_size=3,
).map(lambda tokens: b"repo." + b".".join(tokens))


def event_of(number: int, subject: bytes, payload: bytes) -> Event:
    event = Event(number, Topic(subject), payload, PREFIX)
    assert event.checked() is None
    return event


def feed() -> Feed:
    return Feeds().acquire([parse_filter("repo.>", ("repo",))])


def body(chunks: bytes) -> bytes:
    """The chunks of an HTTP/1.1 body, put together."""
    out = b""
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        assert int(size, 16) > 0, "an empty chunk ends the response"
        assert rest[int(size, 16) :].startswith(b"\r\n")
        out, chunks = out + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return out


def blocks(stream: bytes) -> list[tuple[str, str, str | None]]:
    """Name, data and id of each event, as two parsers by the WHATWG's letter read it: the tests' and the product's."""
    parser = EventStreamParser()
    parser.feed(stream)
    found = [(event.type, event.data, event.id) for event in parser.events]
    assert not parser.comments
    assert [tuple(event) for event in SseReader().feed(stream)] == found
    return found


def one_line(payload: bytes) -> str:
    return payload.decode().replace("\r", " ").replace("\n", " ")


def name_of(payload: bytes, subject: bytes) -> str:
    """The rule of the contract: the type, else the subject's tail; some names are never spoken."""
    name = json.loads(payload).get("type")
    if not isinstance(name, str) or not name:
        name = subject.decode("utf-8", "replace").split(".", 2)[-1]
    controls = any(char < " " or "\x7f" <= char <= "\x9f" or char in "\u2028\u2029\ud800" for char in name)
    return "message" if controls or len(name) > 256 or name in UNSPOKEN or name.startswith("natsgate.") else name


@given(st.lists(st.tuples(subjects, json_texts()), min_size=1, max_size=4))
@example([(b"repo.x", b'{"type":" leading space"}'), (b"repo.x", b'\n{"type":"x"}')])
@example([(b"repo.1.\xff\xfe", b"{}")])
def test_an_event_stream_brings_back_what_went_in(sent: list[tuple[bytes, bytes]]) -> None:
    """No event and no type breaks the framing: each event comes back with its own data, id and name."""
    events = [event_of(number, *each) for number, each in enumerate(sent, 1)]
    data = [one_line(payload) for _, payload in sent]
    ids = [f"{PREFIX.decode()}{number}" for number in range(1, len(sent) + 1)]
    spoken = [name_of(payload, subject) for subject, payload in sent]
    nothing = ["message"] * len(sent)
    none = [None] * len(sent)
    assert blocks(body(SSE.events(feed(), events))) == list(zip(nothing, data, ids, strict=True))
    assert blocks(body(SSE_NAMED.events(feed(), events))) == list(zip(spoken, data, ids, strict=True))
    assert blocks(body(SSE.snapshot(feed(), events))) == list(zip(nothing, data, none, strict=True))
    assert blocks(body(SSE_NAMED.snapshot(feed(), events))) == list(zip(spoken, data, none, strict=True))


cursors = st.integers(0, 2**64 - 1).map(lambda number: PREFIX + str(number).encode())
messages = st.one_of(
    st.builds(control.ready, cursors, st.integers(0, 10**9), st.integers(0, 10**4)),
    st.builds(
        control.gap,
        st.sampled_from(["expired", "recreated", "ahead", "too_far"]),
        st.none() | cursors,
        cursors,
        moves=st.booleans(),
    ),
    st.builds(control.cursor, cursors),
    st.builds(control.state, st.booleans()),
    st.builds(control.closing, st.sampled_from(Closing), st.integers(0, 10**6)),
)
more = st.dictionaries(st.sampled_from(["replica", "connection"]), st.text(st.characters(exclude_categories=["Cs"])))


@given(st.integers(0, 10**6), st.lists(st.tuples(messages, more), min_size=1, max_size=4))
def test_control_events_are_named_blocks_of_json(retry_ms: int, told: list[tuple[Control, dict[str, str]]]) -> None:
    """Each control message is one named event; whatever the replica is called, its data is one line of JSON."""
    stream = sse.chunk(sse.retry(retry_ms)) + b"".join(SSE.control(feed(), *each) for each in told)
    found = blocks(body(stream))
    assert [name for name, _, _ in found] == [f"natsgate.{message.name}" for message, _ in told]
    assert [json.loads(data) for _, data, _ in found] == [message.fields | fields for message, fields in told]
    assert [id_ for _, _, id_ in found] == [message.cursor and message.cursor.decode() for message, _ in told]


def texts(stream: bytes) -> list[bytes]:
    """The text frames, as the `websockets` library reads them."""
    client = Protocol(Side.CLIENT, max_size=None, logger=_SILENT)
    client.receive_data(stream)
    frames = client.events_received()
    assert client.parser_exc is None
    return [bytes(frame.data) for frame in frames if isinstance(frame, Frame)]


@given(st.lists(st.tuples(subjects, json_texts()), min_size=1, max_size=4), messages)
def test_frames_bring_back_what_went_in(sent: list[tuple[bytes, bytes]], message: Control) -> None:
    """Over WebSocket each event is one frame: raw its own text, else an op that holds that text, subject and cursor."""
    events = [event_of(number, *each) for number, each in enumerate(sent, 1)]
    data = [one_line(payload) for _, payload in sent]
    assert [frame.decode() for frame in texts(RAW.events(feed(), events))] == data
    for number, frame in enumerate(texts(ENVELOPE.events(feed(), events))):
        subject = sent[number][0].decode("utf-8", "replace")
        assert json.loads(frame) == {
            "op": "event",
            "feed": "repo.>",
            "subject": subject,
            "cursor": f"{PREFIX.decode()}{number + 1}",
            "event": json.loads(data[number]),
        }
        assert frame.decode().endswith(f'"event":{data[number]}}}')
    for frame, event in zip(texts(ENVELOPE.snapshot(feed(), events)), events, strict=True):
        assert json.loads(frame)["snapshot"] is True
        assert json.loads(frame)["event"] == json.loads(event.data)
        assert "cursor" not in json.loads(frame)
    (frame,) = texts(ENVELOPE.control(feed(), message, {}))
    assert json.loads(frame).items() >= {"op": message.name, **message.fields}.items()
    (frame,) = texts(RAW_WITH_CONTROL.control(feed(), message, {}))
    assert json.loads(frame) == {"natsgate": message.name, **message.fields}
    assert RAW.control(feed(), message, {}) == b""

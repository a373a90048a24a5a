"""The WebSocket stream class and random frames, cut at random: never an exception, and a legal end or none."""

from __future__ import annotations

import json
import logging
import struct

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.protocol import Protocol, Side

from gateway.core.closing import Closing
from gateway.core.guard import Entry
from gateway.core.start import NOW
from gateway.core.ws_reader import Breach, WsReader
from gateway.transports.arrival import Arrival
from gateway.transports.room import Room
from gateway.transports.ws_v1 import V1Connection
from tests.conformance.echo import EchoConnection
from tests.support.raw_ws import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, encode_frame
from tests.support.wire import OpenDoor, Turns, Wire, converse
from tests.support.ws_moves import (
    Move,
    breaches,
    cuttings,
    goodbyes,
    joined,
    legal_moves,
)

_SILENT = logging.getLogger("tests.websockets")
_CODES = {why.code for why in Closing}


def heard(wire: Wire) -> list[tuple[int, bytes]]:
    """What the server sent, as the `websockets` library reads it on a client's side."""
    client = Protocol(Side.CLIENT, max_size=None, logger=_SILENT)
    client.receive_data(bytes(wire.sent))
    events = client.events_received()
    assert client.parser_exc is None, client.parser_exc
    frames = [(int(event.opcode), bytes(event.data)) for event in events if isinstance(event, Frame)]
    sizes = sum(
        2 + (2 if 126 <= len(data) < 65536 else 8 if len(data) >= 65536 else 0) + len(data) for _, data in frames
    )
    assert sizes == len(wire.sent), "bytes that are no frame, or behind the close frame"
    return frames


def echoed(pieces: list[bytes]) -> Wire:
    turns = Turns()
    return converse(EchoConnection(turns.room()), turns, pieces)


@given(st.data(), legal_moves, st.none() | goodbyes() | breaches, st.binary(max_size=300))
def test_every_move_is_answered_as_the_standard_says(
    data: st.DataObject, moves: list[Move], last: Move | None, behind: bytes
) -> None:
    """Messages, fragments, pings, closes and breaches, in any order and cutting: exactly the answers of RFC 6455, in
    order; nothing behind a close frame is looked at; the socket ends after one and only then."""
    whole = joined(moves if last is None else [*moves, last])
    wire = echoed(data.draw(cuttings(whole.data + (b"" if last is None else behind))))

    answers = heard(wire)
    if last is not None and last.answers and len(last.answers[0][1]) == 2 and answers:
        answers[-1] = (answers[-1][0], answers[-1][1][:2])  # beside its code, a close has a reason
    assert answers == whole.answers
    assert wire.ended == (last is not None)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A legal stream of frames with a few bytes of it changed, lost or doubled."""
    moves = draw(legal_moves)
    stream = bytearray(joined([*moves, draw(goodbyes())]).data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(stream)))
        end = at + draw(st.sampled_from([0, 1, 1, 2, 7]))
        stream[at:end] = draw(st.binary(max_size=3) | st.just(bytes(stream[at : at + 9])))
    return bytes(stream)


@given(st.data(), st.binary(max_size=300) | damaged())
def test_any_bytes_end_legally_or_leave_it_open(data: st.DataObject, stream: bytes) -> None:
    """Bytes that are nothing, or nearly something: frames come back, at most one close frame, the last, legal."""
    wire = echoed(data.draw(cuttings(stream)))
    answers = heard(wire)
    closes = [payload for opcode, payload in answers if opcode == CLOSE]
    assert len(closes) == int(wire.ended)
    if closes:
        assert answers[-1][0] == CLOSE
        code = struct.unpack("!H", closes[0][:2])[0] if closes[0] else 1000
        assert code in {1000, 1001, 1003, *range(1007, 1015), *range(3000, 5000)} | _CODES


def by_websockets(stream: bytes) -> tuple[list[tuple[int, bytes]], bool]:
    """Messages and control frames as the `websockets` library reads them, and whether it gave up."""
    server = Protocol(Side.SERVER, max_size=None, logger=_SILENT)
    server.receive_data(stream)
    found: list[tuple[int, bytes]] = []
    opcode, parts = 0, b""
    for event in server.events_received():
        assert isinstance(event, Frame)
        if event.opcode >= CLOSE:
            found.append((int(event.opcode), bytes(event.data)))
            continue
        opcode, parts = (opcode, parts) if event.opcode == CONTINUATION else (int(event.opcode), b"")
        parts += bytes(event.data)
        if event.fin:
            found.append((opcode, parts))
    return found, server.parser_exc is not None


@given(st.binary(max_size=300) | damaged())
def test_the_reader_agrees_with_another(stream: bytes) -> None:
    """Bytes that the `websockets` library reads as frames are the same frames here. We are stricter: text that is no
    UTF-8 and lengths that are not the shortest end it; and we let a close frame come within a message."""
    reader = WsReader(0)
    found: list[tuple[int, bytes]] = []
    gave_up = False
    reader.feed(stream)
    try:
        while (frame := reader.next()) is not None:
            if frame[0] != CONTINUATION:
                found.append(frame)
            if frame[0] == CLOSE:
                break
    except Breach:
        gave_up = True
    theirs, they_gave_up = by_websockets(stream)
    closed = bool(found) and found[-1][0] == CLOSE
    if gave_up or they_gave_up:
        assert theirs[: len(found)] == found or closed
        assert gave_up or closed
    else:
        assert theirs == found


ops = st.fixed_dictionaries(
    {"op": st.sampled_from(["subscribe", "unsubscribe", "ping", "dance"])},
    optional={
        "ref": st.integers(0, 9) | st.text(max_size=3) | st.lists(st.none(), max_size=1),
        "subject": st.sampled_from(["repo.1.>", "task.7.progress", "inbox.x", "repo..x"]),
        "subjects": st.lists(st.sampled_from(["repo.1.>", "user.*.x", 7]), max_size=3),
        "feed": st.sampled_from(["repo.1.>", "repo.1.>,user.*.x", ""]),
        "cursor": st.sampled_from(["abc-1", "", 7]),
        "since": st.sampled_from(["15m", "all", "never"]),
        "snapshot": st.booleans(),
    },
)


@st.composite
def v1_streams(draw: st.DrawFn) -> bytes:
    """Ops, other texts, binary and control frames, as a client with a bad day sends them."""
    texts = ops.map(lambda op: json.dumps(op).encode()) | st.binary(max_size=40)
    kinds = st.sampled_from([TEXT, TEXT, TEXT, TEXT, BINARY, PING, PONG, CONTINUATION])
    frames = draw(st.lists(st.tuples(kinds, texts, st.sampled_from([True, True, True, False])), max_size=30))
    return b"".join(encode_frame(kind, text, fin=fin or kind > BINARY, key=b"keys") for kind, text, fin in frames)


def v1(room: Room) -> V1Connection:
    return V1Connection(room, Arrival("events", None, "127.0.0.1"), OpenDoor(), Entry([], NOW), max_subscriptions=3)


@given(st.data(), v1_streams())
def test_natsgate_v1_answers_with_ops_only(data: st.DataObject, stream: bytes) -> None:
    """Whatever frames a client sends, each answer is an op or a control frame, and the end is announced."""
    turns = Turns()
    connection = v1(turns.room(ws_max_message_bytes=2000, ws_max_errors=10))
    wire = converse(connection, turns, data.draw(cuttings(stream)))
    answers = heard(wire)
    names = [json.loads(payload)["op"] for opcode, payload in answers if opcode == TEXT]
    assert names[0] == "hello"
    assert {opcode for opcode, _ in answers} <= {TEXT, PONG, CLOSE}
    assert set(names) <= {"hello", "subscribed", "unsubscribed", "pong", "error", "closing"}
    assert len(connection.feeds) <= 3
    ended = [payload for opcode, payload in answers if opcode == CLOSE]
    assert ("closing" in names) == bool(ended)
    if ended:
        assert ended[0][2:].decode() in {"protocol_error", "bad_data", "too_large", "policy"}

"""The WebSocket stream class by itself: whose turn it is, when it does not read, and how it ends."""

from __future__ import annotations

import struct

from websockets.frames import Frame
from websockets.protocol import Protocol, Side

from gateway.transports.ws_frames import FRAMES_PER_TURN, LINGER_S
from tests.conformance.echo import EchoConnection
from tests.support.raw_ws import CLOSE, PING, PONG, TEXT, encode_frame
from tests.support.wire import Turns, Wire

FLOOD = [encode_frame(PING, struct.pack("!H", n)) for n in range(10 * FRAMES_PER_TURN)]


def connected() -> tuple[EchoConnection, Wire, Turns]:
    turns, wire = Turns(), Wire()
    connection = EchoConnection(turns.room())
    connection.attach(wire, set())
    return connection, wire, turns


def heard(wire: Wire) -> list[tuple[int, bytes]]:
    client = Protocol(Side.CLIENT)
    client.receive_data(bytes(wire.sent))
    assert client.parser_exc is None
    return [(int(event.opcode), bytes(event.data)) for event in client.events_received() if isinstance(event, Frame)]


def pongs(upto: int) -> list[tuple[int, bytes]]:
    return [(PONG, struct.pack("!H", n)) for n in range(upto)]


def test_a_flood_of_frames_takes_turns() -> None:
    """However many frames one read brings, so many are answered in a turn, in order; others come in between, and
    nothing more is read meanwhile."""
    connection, wire, turns = connected()
    connection.data_received(b"".join(FLOOD))
    for number in range(1, 10):
        assert heard(wire) == pongs(number * FRAMES_PER_TURN)
        assert not wire.reading
        turns.turn()
    while turns.due:
        turns.turn()
    assert heard(wire) == pongs(len(FLOOD))
    assert wire.reading


def test_a_client_that_does_not_read_is_not_read() -> None:
    """While our bytes are not taken, nothing more is answered, not even of what was read already; then all of it."""
    connection, wire, turns = connected()
    connection.data_received(b"".join(FLOOD))
    connection.pause_writing()
    while turns.due:
        turns.turn()
    assert heard(wire) == pongs(FRAMES_PER_TURN)
    assert not wire.reading
    connection.resume_writing()
    while turns.due:
        turns.turn()
    assert heard(wire) == pongs(len(FLOOD))
    assert wire.reading


def test_a_close_is_answered_behind_all_that_came_before() -> None:
    """A close frame behind a flood has its turn after it; nothing behind it has one."""
    connection, wire, turns = connected()
    close = encode_frame(CLOSE, b"\x03\xe9bye")
    connection.data_received(b"".join([*FLOOD, close, encode_frame(TEXT, b"late")]))
    while turns.due:
        turns.turn()
    assert heard(wire) == [*pongs(len(FLOOD)), (CLOSE, b"\x03\xe9bye")]
    assert wire.ended


def test_what_comes_behind_the_end_is_read_away() -> None:
    """After the last word the socket is read on, since a reset for unread bytes could overtake that word; a client
    that does not close its side is cut after a while."""
    for last in (encode_frame(CLOSE, b"\x03\xe8"), encode_frame(0x3, b"x")):
        connection, wire, turns = connected()
        connection.data_received(last)
        said = bytes(wire.sent)
        assert wire.ended
        assert wire.reading
        connection.data_received(b"\xff" * 100_000)
        connection.swept(turns.now)
        assert bytes(wire.sent) == said
        assert not wire.closed
        turns.now += LINGER_S
        connection.swept(turns.now)
        assert wire.closed


def test_a_breach_while_reading_is_held_ends_in_reading() -> None:
    """A breach found in a later turn leaves the socket readable, for the client's answer."""
    connection, wire, turns = connected()
    connection.data_received(b"".join([*FLOOD, encode_frame(0x3, b"x")]))
    while turns.due:
        turns.turn()
    assert heard(wire)[-1] == (CLOSE, b"\x03\xea" + b"protocol_error")
    assert wire.reading


def test_a_pong_that_waits_unread_is_no_missing_one() -> None:
    """While it is us who do not read, a client is not closed for the pong that we have not read."""
    connection, wire, turns = connected()
    turns.now += 25
    connection.swept(turns.now)
    assert heard(wire) == [(PING, b"")]
    connection.hold_reading(1, True)
    turns.now += 60
    connection.swept(turns.now)
    connection.hold_reading(1, False)
    connection.data_received(encode_frame(PONG))
    turns.now += 10
    connection.swept(turns.now)
    assert connection.ending is None

"""The reader of WebSocket frames: what it says does not depend on how bytes are cut, and it holds next to nothing."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.closing import Closing
from gateway.core.ws_reader import Breach, WsReader
from tests.support.raw_ws import BINARY, CLOSE, CONTINUATION, PING, TEXT, encode_frame
from tests.support.ws_moves import BREACHES, Move, cuttings, joined, legal_moves

KEY = b"\x37\xfa\x21\x3d"


def read(pieces: Iterable[bytes], max_bytes: int = 0) -> tuple[list[tuple[int, bytes]], Closing | None]:
    """The frames that end a message or stand for themselves, and why it ended."""
    reader = WsReader(max_bytes)
    found: list[tuple[int, bytes]] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (frame := reader.next()) is not None:
                found += [frame] if frame[0] != CONTINUATION else []
    except Breach as breach:
        return found, breach.why
    return found, None


@given(st.data(), legal_moves, st.sampled_from([b"", *(data for data, _ in BREACHES.values())]))
def test_any_cutting_brings_the_same_frames(data: st.DataObject, moves: list[Move], last: bytes) -> None:
    """Byte by byte, in one piece or in any other: the same frames, and the same end."""
    stream = joined(moves).data + last
    whole = read([stream])
    assert read(data.draw(cuttings(stream))) == whole
    if len(stream) < 2000:
        assert read(stream[at : at + 1] for at in range(len(stream))) == whole


@pytest.mark.parametrize(("frames", "code"), BREACHES.values(), ids=BREACHES.keys())
def test_each_breach_has_its_reason(frames: bytes, code: int) -> None:
    """What is forbidden is told by the reason of its close code."""
    _, why = read([frames])
    assert why is not None
    assert why.code == code


FIRST_WRONG_BYTE = {
    "reserved bit": (encode_frame(TEXT, b"x", reserved=0x40, key=KEY), 1),
    "opcode": (encode_frame(0x3, b"x", key=KEY), 1),
    "fragmented ping": (encode_frame(PING, b"x", fin=False, key=KEY), 1),
    "continuation of nothing": (encode_frame(CONTINUATION, b"x", key=KEY), 1),
    "not masked": (encode_frame(TEXT, b"x", masked=False), 2),
    "large ping": (encode_frame(PING, bytes(126), key=KEY), 2),
    "longer than needed": (encode_frame(TEXT, b"x", length_bytes=2, key=KEY), 4),
    "beyond the limit": (encode_frame(BINARY, bytes(1001), key=KEY), 4),
    "far beyond the limit": (b"\x82\xff" + struct.pack("!Q", 2**40), 10),
    "close of one byte": (encode_frame(CLOSE, b"\x03", key=KEY), 7),
    "no UTF-8": (encode_frame(TEXT, b"fine: \xf4\x90\x80\x80edited", key=KEY), 6 + 6 + 2),
}


@pytest.mark.parametrize(("frame", "upto"), FIRST_WRONG_BYTE.values(), ids=FIRST_WRONG_BYTE.keys())
def test_a_breach_is_found_with_the_byte_that_makes_it(frame: bytes, upto: int) -> None:
    """Nothing of a forbidden frame is waited for once it is clear that it is forbidden; not a byte earlier either."""
    assert read([frame[: upto - 1]], 1000) == ([], None)
    assert read([frame[:upto]], 1000)[1] is not None


def test_fragments_count_together() -> None:
    """The limit is on the message: fragments up to it pass, one byte more does not; the next message counts anew."""
    fragments = [encode_frame(TEXT, b"x" * 400, fin=False), encode_frame(CONTINUATION, b"x" * 600)]
    assert read([*fragments, *fragments], 1000) == ([(TEXT, b"x" * 1000)] * 2, None)
    over = [fragments[0], encode_frame(CONTINUATION, b"x" * 600, fin=False), encode_frame(CONTINUATION, b"x")]
    assert read(over, 1000) == ([], Closing.TOO_LARGE)


def peak_bytes(first: bytes, again: bytes, rounds: int, max_bytes: int) -> int:
    """The most that reading held at a time, beside the bytes it was handed."""
    reader = WsReader(max_bytes)
    reader.feed(first)
    assert reader.next() == (CONTINUATION, b"")
    tracemalloc.start()
    try:
        for _ in range(rounds):
            reader.feed(again)
            while reader.next() is not None:
                pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_fragments_without_end_cost_nothing() -> None:
    """Twenty thousand empty fragments of one message leave no trace in memory."""
    empty = encode_frame(CONTINUATION, b"", fin=False)
    assert peak_bytes(encode_frame(TEXT, b"", fin=False), empty * 1000, 20, 65536) < 20_000


def test_a_message_of_the_smallest_fragments_is_held_once() -> None:
    """A message of 8 KiB in frames of one byte holds about its own size, not an object a frame."""
    one = encode_frame(CONTINUATION, b"x", fin=False)
    assert peak_bytes(encode_frame(BINARY, b"", fin=False), one * 64, 128, 8192) < 4 * 8192


def test_what_was_read_is_let_go() -> None:
    """Of a read of many whole frames and the beginning of one, only that beginning stays."""
    reader = WsReader(0)
    tracemalloc.start()
    try:
        reader.feed(encode_frame(TEXT, b"x" * 100, key=KEY) * 2000 + encode_frame(PING, b"late", key=KEY)[:-1])
        assert sum(1 for _ in iter(reader.next, None)) == 2000
        assert tracemalloc.get_traced_memory()[0] < 2000
    finally:
        tracemalloc.stop()
    reader.feed(encode_frame(PING, b"late", key=KEY)[-1:])
    assert reader.next() == (PING, b"late")

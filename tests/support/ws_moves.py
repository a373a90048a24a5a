"""What a WebSocket client may send and what it may not, with the answers that RFC 6455 asks of an echo server."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import strategies as st

from tests.support.raw_ws import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, encode_frame


@dataclass(frozen=True)
class Move:
    """Something that a client does.

    Attributes:
        data: its bytes.
        answers: what comes back for it, as (opcode, payload); of a close frame behind a breach the code alone.
    """

    data: bytes
    answers: list[tuple[int, bytes]] = field(default_factory=list)


keys = st.binary(min_size=4, max_size=4)
small = st.binary(max_size=125)
sizes = st.sampled_from([0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 1000, 65535, 65536, 70000])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80).map(str.encode)
long_texts = sizes.map(lambda size: ("ü" * (size // 2) + "x" * (size % 2)).encode())
contents = st.binary(max_size=200) | sizes.map(bytes)


@st.composite
def pings(draw: st.DrawFn) -> Move:
    """A ping, which is answered with its payload."""
    payload = draw(small)
    return Move(encode_frame(PING, payload, key=draw(keys)), [(PONG, payload)])


pongs = st.builds(lambda payload, key: Move(encode_frame(PONG, payload, key=key)), small, keys)
controls = st.lists(pings() | pongs, max_size=2)


@st.composite
def messages(draw: st.DrawFn) -> Move:
    """A message in one frame or in fragments, with control frames in between; it comes back behind their answers."""
    opcode = draw(st.sampled_from([TEXT, BINARY]))
    content = draw((texts | long_texts) if opcode == TEXT else contents)
    cuts = draw(st.lists(st.integers(0, len(content)), max_size=4).map(sorted))
    places = list(pairwise([0, *cuts, len(content)]))
    data, answers = b"", []
    for number, (begin, end) in enumerate(places):
        for control in draw(controls) if number else []:
            data += control.data
            answers += control.answers
        fin = number == len(places) - 1
        data += encode_frame(CONTINUATION if number else opcode, content[begin:end], fin=fin, key=draw(keys))
    return Move(data, [*answers, (opcode, content)])


legal_moves = st.lists(messages() | pings() | pongs, max_size=6)


@st.composite
def goodbyes(draw: st.DrawFn) -> Move:
    """A legal close frame, which is answered with its code, also within a message that is not whole."""
    before = draw(st.sampled_from([b"", encode_frame(TEXT, b"begun", fin=False, key=b"abcd")]))
    codes = st.sampled_from([1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014])
    code = draw(codes | st.integers(3000, 4999))
    reason = draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=30).map(str.encode))
    payload = draw(st.sampled_from([b"", struct.pack("!H", code) + reason]))
    return Move(before + encode_frame(CLOSE, payload, key=draw(keys)), [(CLOSE, payload)])


_OPEN = encode_frame(BINARY, b"begun", fin=False, key=b"abcd")
_KEY = b"\x37\xfa\x21\x3d"

BREACHES: dict[str, tuple[bytes, int]] = {
    "not masked": (encode_frame(TEXT, b"x", masked=False), 1002),
    "reserved bit 1": (encode_frame(TEXT, b"x", reserved=0x40, key=_KEY), 1002),
    "reserved bit 2": (encode_frame(PING, b"x", reserved=0x20, key=_KEY), 1002),
    "reserved bit 3": (encode_frame(CLOSE, b"", reserved=0x10, key=_KEY), 1002),
    **{f"opcode {n:#x}": (encode_frame(n, b"x", key=_KEY), 1002) for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "ping of 126 bytes": (encode_frame(PING, bytes(126), key=_KEY), 1002),
    "close of 126 bytes": (encode_frame(CLOSE, b"\x03\xe8" + bytes(124), key=_KEY), 1002),
    "fragmented ping": (encode_frame(PING, b"x", fin=False, key=_KEY), 1002),
    "fragmented close": (encode_frame(CLOSE, b"", fin=False, key=_KEY), 1002),
    "continuation of nothing": (encode_frame(CONTINUATION, b"x", key=_KEY), 1002),
    "continuation of nothing, to be continued": (encode_frame(CONTINUATION, b"x", fin=False, key=_KEY), 1002),
    "text within a message": (_OPEN + encode_frame(TEXT, b"x", key=_KEY), 1002),
    "binary within a message": (_OPEN + encode_frame(BINARY, b"x", fin=False, key=_KEY), 1002),
    "length of 125 in two bytes": (encode_frame(TEXT, bytes(125), length_bytes=2, key=_KEY), 1002),
    "length of 0 in eight bytes": (encode_frame(BINARY, b"", length_bytes=8, key=_KEY), 1002),
    "length of 65535 in eight bytes": (encode_frame(TEXT, bytes(65535), length_bytes=8, key=_KEY), 1002),
    "length of 2**63": (b"\x82\xff" + struct.pack("!Q", 2**63) + _KEY, 1002),
    "close of one byte": (encode_frame(CLOSE, b"\x03", key=_KEY), 1002),
    **{
        f"close code {code}": (encode_frame(CLOSE, struct.pack("!H", code), key=_KEY), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "reason that is no UTF-8": (encode_frame(CLOSE, b"\x03\xe8\xff", key=_KEY), 1007),
    "reason cut within a character": (encode_frame(CLOSE, b"\x03\xe8\xe4\xbb", key=_KEY), 1007),
    "text with a lone byte": (encode_frame(TEXT, b"\xff", key=_KEY), 1007),
    "text with a surrogate": (encode_frame(TEXT, b"\xed\xa0\x80", key=_KEY), 1007),
    "text beyond Unicode": (encode_frame(TEXT, b"\xf4\x90\x80\x80", key=_KEY), 1007),
    "overlong text": (encode_frame(TEXT, b"\xc0\xaf", key=_KEY), 1007),
    "text cut within a character": (encode_frame(TEXT, "任".encode()[:2], key=_KEY), 1007),
    "text that is wrong in a later fragment": (
        encode_frame(TEXT, b"fine", fin=False, key=_KEY) + encode_frame(CONTINUATION, b"\xfe", fin=False, key=_KEY),
        1007,
    ),
    "text that ends within a character": (
        encode_frame(TEXT, "任".encode()[:2], fin=False, key=_KEY) + encode_frame(CONTINUATION, b"", key=_KEY),
        1007,
    ),
}
"""What is forbidden: the bytes, and the code with which the connection ends."""

breaches = st.sampled_from(sorted(BREACHES)).map(
    lambda name: Move(BREACHES[name][0], [(CLOSE, struct.pack("!H", BREACHES[name][1]))])
)


@st.composite
def cuttings(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The bytes in pieces, as reads bring them."""
    size = draw(st.sampled_from([0, 1, 3, 14]))
    if size and len(data) < 5000:
        return [data[at : at + size] for at in range(0, len(data), size)]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[begin:end] for begin, end in pairwise([0, *cuts, len(data)])]


def joined(moves: Iterable[Move]) -> Move:
    """One move of several."""
    together = list(moves)
    return Move(b"".join(move.data for move in together), [each for move in together for each in move.answers])

"""Reading WebSocket: the bytes of a client to messages and control frames, by the letter of RFC 6455.

What is forbidden is found with the byte that makes it so, text that is no UTF-8 included. What has come of a message
waits in one piece of memory, however many frames it is cut into.
"""

from __future__ import annotations

from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Mapping
from typing import Final

from gateway.core.closing import Closing
from gateway.core.errors import ClientError, MessageError

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

MAX_CONTROL_BYTES: Final = 125
"""The largest payload of a control frame (RFC 6455, section 5.5)."""

_OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_FIN, _RESERVED, _MASKED, _CONTROL = 0x80, 0x70, 0x80, 0x08
_Utf8 = getincrementaldecoder("utf-8")


_BREACHES: Mapping[Closing, MessageError] = {
    Closing.PROTOCOL_ERROR: "protocol_error",
    Closing.BAD_DATA: "bad_data",
    Closing.TOO_LARGE: "too_large",
}


class Breach(ClientError):
    """The client broke the protocol, and the connection cannot go on.

    Attributes:
        why: `PROTOCOL_ERROR`, `BAD_DATA` or `TOO_LARGE`.
    """

    def __init__(self, why: Closing, detail: str) -> None:
        super().__init__(detail, code=_BREACHES[why])
        self.why = why


class WsReader:
    """Reads one client. How the bytes are cut into pieces changes nothing but when frames come out.

    It holds at most `max_bytes` of a message and what it was fed and not asked for yet.

    Args:
        max_bytes: the largest message, its fragments together; 0 means no limit.
    """

    __slots__ = ("_at", "_data", "_decoder", "_fin", "_key", "_left", "_max_bytes", "_message", "_opcode")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._data = b""
        self._at = 0
        self._key = b""  # of the frame whose payload is being read; empty: a header comes next
        self._opcode = CONTINUATION
        self._fin = False
        self._left = 0
        self._message: bytearray | None = None  # what has come of a message that is not whole
        self._decoder: IncrementalDecoder | None = None  # checks it, when it is text

    @property
    def held_bytes(self) -> int:
        """What it holds: of a message that is not whole, and what was not asked for yet."""
        return len(self._data) - self._at + (0 if self._message is None else len(self._message))

    def feed(self, data: bytes) -> None:
        """Take the next bytes, for `next` to read."""
        self._data = self._data[self._at :] + data
        self._at = 0

    def next(self) -> tuple[int, bytes] | None:
        """Read one frame.

        Returns:
            opcode and payload. A frame that ends a message brings the whole message, with the opcode of its first
            frame; one whose message goes on brings CONTINUATION and nothing. Text is valid UTF-8. None: the frame is
            not complete; feed more.

        Raises:
            Breach: what came is not allowed. There is nothing to read behind it.
        """
        frame = None
        if self._key or self._header():
            frame = self._control() if self._opcode & _CONTROL else self._payload()
        if frame is None:
            self._data = self._data[self._at :]
            self._at = 0
        return frame

    def _header(self) -> bool:
        data, at = self._data, self._at
        have = len(data) - at
        if not have:
            return False
        first = data[at]
        opcode, fin = first & 0x0F, bool(first & _FIN)
        if first & _RESERVED:
            raise _breach("A reserved bit is set, and no extension was agreed on (RFC 6455, 5.2).")
        if opcode not in _OPCODES:
            raise _breach(f"There is no opcode {opcode:#x} (RFC 6455, 5.2).")
        if opcode & _CONTROL:
            if not fin:
                raise _breach("A control frame is fragmented (RFC 6455, 5.5).")
        elif opcode == CONTINUATION and self._message is None:
            raise _breach("A continuation frame continues nothing (RFC 6455, 5.4).")
        elif opcode != CONTINUATION and self._message is not None:
            raise _breach("A message begins within another (RFC 6455, 5.4).")
        if have == 1:
            return False
        second = data[at + 1]
        if not second & _MASKED:
            raise _breach("A client masks its frames (RFC 6455, 5.1).")
        length, size = second & 0x7F, 0
        if opcode & _CONTROL and length > MAX_CONTROL_BYTES:
            raise _breach(f"A control frame holds at most {MAX_CONTROL_BYTES} bytes (RFC 6455, 5.5).")
        if length > MAX_CONTROL_BYTES:
            size = 2 if length == 126 else 8
            if have < 2 + size:
                return False
            length = int.from_bytes(data[at + 2 : at + 2 + size], "big")
            if length < (126 if size == 2 else 65536) or length >= 2**63:
                raise _breach("A length is not in its shortest form (RFC 6455, 5.2).")
        if self._max_bytes and not opcode & _CONTROL:
            total = length + (0 if self._message is None else len(self._message))
            if total > self._max_bytes:
                raise Breach(Closing.TOO_LARGE, f"A message has at most {self._max_bytes} bytes; this one has more.")
        if have < 6 + size:
            return False
        self._opcode, self._fin, self._left = opcode, fin, length
        self._at = at + 6 + size
        self._key = data[at + 2 + size : self._at]
        return True

    def _control(self) -> tuple[int, bytes] | None:
        end = self._at + self._left
        if len(self._data) < end:
            return None
        payload = _unmasked(self._data[self._at : end], self._key)
        self._at, self._key = end, b""
        if self._opcode == CLOSE:
            _check_close(payload)
        return self._opcode, payload

    def _payload(self) -> tuple[int, bytes] | None:
        key = self._key
        piece = _unmasked(self._data[self._at : self._at + self._left], key)
        size = len(piece)
        self._at += size
        self._left -= size
        ends = self._fin and not self._left
        if not self._left:
            self._key = b""
        elif size % 4:
            self._key = key[size % 4 :] + key[: size % 4]
        if self._message is None:
            if ends:
                if self._opcode == TEXT:
                    _check_text(_Utf8(), piece, ends)
                return self._opcode, piece
            self._message = bytearray()
            self._decoder = _Utf8() if self._opcode == TEXT else None
        self._message += piece
        if self._decoder is not None:
            _check_text(self._decoder, piece, ends)
        if self._left:
            return None
        if not self._fin:
            return CONTINUATION, b""
        whole = (BINARY if self._decoder is None else TEXT), bytes(self._message)
        self._message = self._decoder = None
        return whole


def _breach(detail: str) -> Breach:
    return Breach(Closing.PROTOCOL_ERROR, detail)


def _check_text(decoder: IncrementalDecoder, piece: bytes, ends: bool) -> None:
    try:
        decoder.decode(piece, ends)
    except UnicodeDecodeError:
        raise Breach(Closing.BAD_DATA, "Text is not UTF-8 (RFC 6455, 8.1).") from None


def _check_close(payload: bytes) -> None:
    if not payload:
        return
    code = int.from_bytes(payload[:2], "big") if len(payload) > 1 else 0
    # RFC 6455, 7.4, and those that IANA registered since. 1004, 1005, 1006 and 1015 never stand in a frame.
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise _breach("A close frame has no payload, or begins with a close code (RFC 6455, 5.5.1 and 7.4).")
    _check_text(_Utf8(), payload[2:], True)


def _unmasked(data: bytes, key: bytes) -> bytes:
    # As two big numbers: the fastest way without C (RFC 6455, section 5.3).
    size = len(data)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(mask, "little")).to_bytes(size, "little")

"""WebSocket frames from server to client (RFC 6455, section 5.2): never masked, never fragmented by us."""

from __future__ import annotations

_TEXT, _CLOSE, _PING, _PONG = 0x81, 0x88, 0x89, 0x8A


def text_header(length: int) -> bytes:
    """The header of a text frame whose payload has `length` bytes."""
    if length < 126:
        return bytes((_TEXT, length))
    if length < 65536:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")


def text(payload: bytes) -> bytes:
    """A whole text frame."""
    return text_header(len(payload)) + payload


def pong(payload: bytes) -> bytes:
    """The answer to a ping, with its payload (section 5.5.3)."""
    return bytes((_PONG, len(payload))) + payload


def close(code: int, reason: str) -> bytes:
    """A close frame. `reason`: at most 123 bytes."""
    return close_echo(code.to_bytes(2, "big") + reason.encode())


def close_echo(payload: bytes) -> bytes:
    """The answer to a close frame, with its code and reason (section 5.5.1)."""
    return bytes((_CLOSE, len(payload))) + payload


PING = bytes((_PING, 0))
"""A ping without payload: which pong answers which ping does not matter to us, only that one comes."""

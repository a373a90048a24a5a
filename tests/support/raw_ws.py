"""WebSocket frames made and read by hand (RFC 6455), for what no decent client library sends."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.http_reply import HttpReply
from tests.support.lifetime import Opened
from tests.support.ports import address_of
from tests.support.sse import parse_head, read_body
from tests.support.tcp import Ended, TcpStream

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
PATIENCE_S = 10.0
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as the server sent it."""

    opcode: int
    payload: bytes
    fin: bool

    @property
    def close_code(self) -> int:
        assert self.opcode == CLOSE, self
        return int(struct.unpack("!H", self.payload[:2])[0])

    def json(self) -> Any:
        assert self.opcode == TEXT, self
        return json.loads(self.payload)


def encode_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    masked: bool = True,
    reserved: int = 0,
    length_bytes: int = 0,
    key: bytes | None = None,
) -> bytes:
    """A client's frame; `masked=False`, `reserved` (bits 0x40, 0x20, 0x10) and a `length_bytes` (2 or 8) that is not
    the shortest make it an illegal one. `key`: the mask, random when absent."""
    head = bytes([(0x80 if fin else 0) | reserved | opcode])
    mask_bit = 0x80 if masked else 0
    if len(payload) < 126 and not length_bytes:
        head += bytes([mask_bit | len(payload)])
    elif len(payload) < 65536 and length_bytes != 8:
        head += bytes([mask_bit | 126]) + struct.pack("!H", len(payload))
    else:
        head += bytes([mask_bit | 127]) + struct.pack("!Q", len(payload))
    if not masked:
        return head + payload
    key = key or os.urandom(4)
    repeated = (key * (len(payload) // 4 + 1))[: len(payload)]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return head + key + mixed.to_bytes(len(payload), "big")


def encode_text(text: str) -> bytes:
    return encode_frame(TEXT, text.encode())


def encode_op(**op: object) -> bytes:
    return encode_text(json.dumps(op))


class RawWebSocket(Opened):
    """One handshake and its frames. Nothing is read in the background, so who awaits nothing stalls.

    Args:
        early: bytes sent in the same segment as the handshake.
        headers: replace (or with None remove) handshake headers.
    """

    def __init__(
        self,
        url: str,
        path: str = "/ws",
        *,
        subprotocol: str | None = "natsgate.v1",
        headers: Mapping[str, str | None] | None = None,
        early: bytes = b"",
        receive_buffer_bytes: int | None = None,
        keep: bool = True,
    ) -> None:
        host, port = address_of(url)
        self.tcp = TcpStream(host, port, receive_buffer_bytes=receive_buffer_bytes, keep=keep)
        key = base64.b64encode(os.urandom(16))
        self._accept = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
        sent: dict[str, str | None] = {
            "Host": f"{host}:{port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": key.decode(),
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Protocol": subprotocol,
            **(headers or {}),
        }
        lines = [f"GET {path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in sent.items() if value is not None]
        self._request = "\r\n".join([*lines, "", ""]).encode() + early
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    async def open(self, *, timeout_s: float = PATIENCE_S) -> None:
        """Shake hands; a refusal leaves `status` other than 101 and its `body`."""
        async with asyncio.timeout(timeout_s):
            await self.tcp.open()
            await self.tcp.send(self._request)
            self.status, self.headers = parse_head(await self.tcp.read_until(b"\r\n\r\n"))
            if self.status == 101:
                assert self.headers["sec-websocket-accept"] == self._accept
            else:
                self.body = await read_body(self.tcp, self.headers)

    @property
    def reply(self) -> HttpReply:
        """A refused handshake as a whole answer."""
        return HttpReply(self.status, self.headers, self.body)

    async def send(self, *frames: bytes) -> None:
        await self.tcp.send(b"".join(frames))

    async def next_frame(self, *, timeout_s: float = PATIENCE_S) -> Frame:
        """The next frame, control frames included; a masked one or one with reserved bits fails.

        Raises:
            Ended: the connection ended without one.
        """
        async with asyncio.timeout(timeout_s):
            first, second = await self.tcp.read_exactly(2)
            assert not first & 0x70, "reserved bits from the server"
            assert not second & 0x80, "a masked frame from the server"
            length = second & 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", await self.tcp.read_exactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self.tcp.read_exactly(8))
            return Frame(first & 0x0F, await self.tcp.read_exactly(length), bool(first & 0x80))

    async def next_text(self, *, timeout_s: float = PATIENCE_S) -> Frame:
        """The next text frame; pings met on the way are answered, a close fails."""
        while True:
            frame = await self.next_frame(timeout_s=timeout_s)
            if frame.opcode == PING:
                await self.send(encode_frame(PONG, frame.payload))
                continue
            assert frame.opcode == TEXT, frame
            return frame

    async def next_op(self, name: str, *, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """The next op of this name; others are passed over."""
        while True:
            op: dict[str, Any] = (await self.next_text(timeout_s=timeout_s)).json()
            if op["op"] == name:
                return op

    async def subscribe(self, *subjects: str) -> str:
        """Subscribe, wait for `ready`, and return the feed's name."""
        await self.send(encode_op(op="subscribe", ref="raw", subjects=list(subjects)))
        return str((await self.next_op("ready"))["feed"])

    async def close_frame(self, *, timeout_s: float = PATIENCE_S) -> Frame:
        """Read on to the server's close frame."""
        while True:
            frame = await self.next_frame(timeout_s=timeout_s)
            if frame.opcode == CLOSE:
                return frame

    async def answer_close(self, *, timeout_s: float = PATIENCE_S) -> Frame:
        """Read on to the server's close frame, echo it, and see the connection end."""
        frame = await self.close_frame(timeout_s=timeout_s)
        with contextlib.suppress(ConnectionError):  # the server need not wait for the echo
            await self.send(encode_frame(CLOSE, frame.payload))
        await self.end(timeout_s=timeout_s)
        return frame

    async def end(self, *, timeout_s: float = PATIENCE_S) -> None:
        """Wait until the server has closed the TCP connection, whatever still comes."""
        async with asyncio.timeout(timeout_s):
            await self.tcp.read_to_end()

    async def ping_op(self, ref: object = "alive") -> None:
        """Show that the connection works: a `ping` op comes back as `pong`."""
        await self.send(encode_op(op="ping", ref=ref))
        pong = await self.next_op("pong")
        assert pong == {"op": "pong", "ref": ref}

    def close(self) -> None:
        self.tcp.close()


__all__ = ["BINARY", "CLOSE", "CONTINUATION", "PING", "PONG", "TEXT", "Ended", "Frame", "RawWebSocket"]

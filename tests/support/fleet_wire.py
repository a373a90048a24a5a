"""How the clients of a fleet speak: SSE and WebSocket, each as one protocol object without a task."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import struct
from enum import Enum, auto
from typing import Protocol as Interface

from tests.support.raw_ws import CLOSE, PING, PONG, TEXT, encode_frame, encode_op
from tests.support.sse import events_target

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_LENGTH = re.compile(rb"^content-length: (\d+)\r?$", re.MULTILINE | re.IGNORECASE)
_FIELDS = re.compile(rb"^(event|id|data|retry): (.*)$", re.MULTILINE)


class Heard(Enum):
    """What a client is told of."""

    EVENT = auto()
    READY = auto()
    GAP = auto()
    CURSOR = auto()


class Listener(Interface):
    """Who is told."""

    def answered(self, status: int) -> None: ...

    def heard(self, what: Heard, cursor: str) -> None: ...

    def ended(self, reason: str, retry_ms: int, code: int) -> None: ...


_CONTROL = {"ready": Heard.READY, "gap": Heard.GAP, "cursor": Heard.CURSOR}


class Wire(asyncio.Protocol):
    """What both have in common."""

    def __init__(self, listener: Listener, subject: str, cursor: str) -> None:
        self._listener = listener
        self._subject = subject
        self._cursor = cursor
        self._rest = b""
        self._in_body = False
        self.left: int | None = None
        self._reason, self._retry_ms, self._code = "", 0, 0
        self._aborted = False
        self.transport: asyncio.Transport | None = None

    def request(self) -> bytes:
        raise NotImplementedError

    def body(self, data: bytes) -> bytes:
        """Take what came; returns what cannot be read yet."""
        raise NotImplementedError

    def opened(self, status: int) -> None:
        """The head was read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.request())

    def data_received(self, data: bytes) -> None:
        self._rest += data
        if not self._in_body:
            head, blank, rest = self._rest.partition(b"\r\n\r\n")
            if not blank:
                return
            status = _STATUS.match(head)
            assert status is not None, head
            self._in_body, self._rest = True, rest
            length = _LENGTH.search(head)
            self.left = None if length is None else int(length[1])
            self._listener.answered(int(status[1]))
            self.opened(int(status[1]))
        self._rest = self.body(self._rest)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if not self._aborted:
            self._listener.ended(self._reason, self._retry_ms, self._code)

    def abort(self) -> None:
        """Go, without a word to anybody."""
        self._aborted = True
        if self.transport is not None:
            self.transport.abort()

    def pause(self) -> None:
        """Read no more."""
        if self.transport is not None:
            self.transport.pause_reading()

    def go_on(self) -> None:
        if self.transport is not None:
            self.transport.resume_reading()


class SseWire(Wire):
    """Server-Sent Events, as EventSource asks for them."""

    def __init__(self, listener: Listener, subject: str, cursor: str) -> None:
        super().__init__(listener, subject, cursor)
        self._text = b""

    def request(self) -> bytes:
        lines = [f"GET {events_target([self._subject], {})} HTTP/1.1", "Host: fleet", "Accept: text/event-stream"]
        lines += [f"Last-Event-ID: {self._cursor}"] if self._cursor else []
        return "\r\n".join([*lines, "", ""]).encode()

    def body(self, data: bytes) -> bytes:
        rest = b""
        if self.left is None:
            data, rest = self._chunks(data)
        else:
            self.left -= len(data)
            if self.left <= 0:
                self._close()
        *blocks, self._text = (self._text + data).split(b"\n\n")
        for block in blocks:
            self._block(dict(_FIELDS.findall(block)))
        return rest

    def _chunks(self, data: bytes) -> tuple[bytes, bytes]:
        """What whole chunks hold, and the rest. A proxy cuts chunks where it likes."""
        whole = b""
        while True:
            size, newline, behind = data.partition(b"\r\n")
            length = int(size, 16) if newline else 0
            if not newline or len(behind) < length + 2:
                return whole, data
            whole, data = whole + behind[:length], behind[length + 2 :]
            if not length:
                self._close()

    def _close(self) -> None:
        """The end of the response; a proxy may keep the connection for another request."""
        if self.transport is not None:
            self.transport.close()

    def _block(self, fields: dict[bytes, bytes]) -> None:
        if b"data" not in fields:
            return
        name, cursor = fields.get(b"event", b"").decode(), fields.get(b"id", b"").decode()
        if not name.startswith("natsgate."):
            self._listener.heard(Heard.EVENT, cursor)
        elif (known := _CONTROL.get(name.removeprefix("natsgate."))) is not None:
            self._listener.heard(known, cursor)
        elif name == "natsgate.closing":
            said = json.loads(fields[b"data"])
            assert int(fields[b"retry"]) == said["retry_ms"], fields
            self._reason, self._retry_ms = said["reason"], said["retry_ms"]


class WsWire(Wire):
    """`natsgate.v1`."""

    def request(self) -> bytes:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = ["GET /ws HTTP/1.1", "Host: fleet", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: natsgate.v1"]
        return "\r\n".join([*lines, "", ""]).encode()

    def opened(self, status: int) -> None:
        if status == 101 and self.transport is not None:
            cursor = {"cursor": self._cursor} if self._cursor else {}
            self.transport.write(encode_op(op="subscribe", ref=1, subject=self._subject, **cursor))

    def body(self, data: bytes) -> bytes:
        while len(data) >= 2:
            length, head = data[1] & 0x7F, 2
            if length == 126 and len(data) >= 4:
                length, head = struct.unpack("!H", data[2:4])[0], 4
            if len(data) < head + length or length > 65535:
                break
            self._frame(data[0] & 0x0F, data[head : head + length])
            data = data[head + length :]
        return data

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == TEXT:
            self._op(json.loads(payload))
        elif opcode == PING and self.transport is not None:
            self.transport.write(encode_frame(PONG, payload))
        elif opcode == CLOSE and self.transport is not None:
            self._code = struct.unpack("!H", payload[:2])[0]
            self.transport.write(encode_frame(CLOSE, payload[:2]))
            self.transport.close()

    def _op(self, op: dict[str, object]) -> None:
        name = str(op["op"])
        if name == "event":
            self._listener.heard(Heard.EVENT, str(op["cursor"]))
        elif name in _CONTROL:
            self._listener.heard(_CONTROL[name], str(op["to" if name == "gap" else "cursor"]))
        elif name == "closing":
            self._reason, self._retry_ms = str(op["reason"]), int(str(op["retry_ms"]))
        else:
            assert name in ("hello", "subscribed", "state"), op

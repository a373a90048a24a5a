"""What attackers send: requests of a stream and of a WebSocket, without their last line."""

from __future__ import annotations

import base64

STREAM = b"GET /events?subject=repo.attack.%3E HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\nSec-WebSocket-Protocol: natsgate.v1\r\n"
)
END = b"\r\n"

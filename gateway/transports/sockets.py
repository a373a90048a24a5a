"""Sockets: what every connection inherits from the one that listens, and what the kernel still holds for one."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import sys
import termios

SEND_BUFFER_BYTES = 128 * 1024
"""SO_SNDBUF of each connection (the kernel doubles it). Left alone, Linux grows it to 4 MiB per stalled socket."""

RECEIVE_BUFFER_BYTES = 64 * 1024
"""SO_RCVBUF of each connection (the kernel doubles it). Left alone, Linux grows it to 6 MiB per client that we do not
read on; and what comes in is small."""

KEEPALIVE_S = 30
"""Silence after which the kernel asks whether the peer is still there; three questions without an answer end it."""

KERNEL_PATIENCE_S = 10.0
"""What the kernel waits longer than we do, so that it is us who say why a connection ended."""

BACKLOG = 4096
"""Connections that wait to be accepted: the herd of a restart comes at once."""


def bind(host: str, port: int, *, write_timeout_s: float = 0) -> socket.socket:
    """A listening socket whose options every accepted connection inherits.

    Args:
        host, port: the address; port 0 is any free one.
        write_timeout_s: after how long without one byte accepted a client is given up; 0: never. The kernel's own
            limit lies behind it, for peers that are gone without a word.

    Raises:
        OSError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S // 3)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
            if write_timeout_s:
                patience_ms = int((write_timeout_s + KERNEL_PATIENCE_S) * 1000)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, min(patience_ms, 2**31 - 1))
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes that the kernel holds for the peer (SIOCOUTQ). It tells a reader of a few bytes a second from one of none:
    our own buffer moves only once the kernel's has a third of its room free."""
    sock = transport.get_extra_info("socket")
    if sock is None or sys.platform != "linux":
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0  # the socket went this moment; connection_lost is on its way

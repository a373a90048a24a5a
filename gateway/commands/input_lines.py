"""Standard input, read without a thread: a thread that waits in a read could not be ended by Ctrl-C."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

PIECE_BYTES = 64 * 1024
LONGEST_LINE_BYTES = 64 * 2**20


class LineTooLong(ValueError):
    """A line longer than anything that could be an event. `number` counts from 1."""

    def __init__(self, number: int) -> None:
        super().__init__(f"line {number} is longer than {LONGEST_LINE_BYTES} bytes")
        self.number = number


async def read_pieces(descriptor: int) -> AsyncIterator[bytes]:
    """What comes on a file descriptor, as it comes, until its end."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()

    def told() -> None:
        # Once per wait: told again behind a read that took everything, the next read would block the loop.
        loop.remove_reader(descriptor)
        readable.set()

    try:
        while True:
            try:
                loop.add_reader(descriptor, told)
                await readable.wait()
                readable.clear()
            except PermissionError:
                await asyncio.sleep(0)  # an ordinary file: always readable, and epoll will not have it
            piece = os.read(descriptor, PIECE_BYTES)
            if not piece:
                return
            yield piece
    finally:
        loop.remove_reader(descriptor)


async def read_lines(descriptor: int) -> AsyncIterator[tuple[int, bytes]]:
    """Lines with their numbers from 1, without their ends; a line is handed on as soon as it is complete.

    Raises:
        LineTooLong: see its class.
    """
    number, rest = 0, bytearray()
    async for piece in read_pieces(descriptor):
        *complete, last = piece.split(b"\n")
        for each in complete:
            number += 1
            line = bytes(rest) + each
            rest.clear()
            yield number, line.removesuffix(b"\r")
        rest += last
        if len(rest) > LONGEST_LINE_BYTES:
            raise LineTooLong(number + 1)
    if rest:
        yield number + 1, bytes(rest).removesuffix(b"\r")

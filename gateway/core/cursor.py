"""Cursors: a position in one life of the stream, opaque to clients.

`<incarnation>-<sequence>`, ASCII, at most 64 characters. The incarnation is a hash of the stream's creation time
and its metadata `natsgate_epoch`, so a cursor from an earlier life (re-created, restored) is recognised as such.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from gateway.core.errors import BadRequest

MAX_CURSOR_CHARS = 64
_SHAPE = re.compile(r"([0-9a-z]{1,32})-(0|[1-9][0-9]{0,19})", re.ASCII)
LARGEST_SEQUENCE = 2**64 - 1


class Cursor(NamedTuple):
    """A position: everything up to and including `sequence` has been seen."""

    incarnation: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.incarnation}-{self.sequence}"


def parse_cursor(text: str) -> Cursor:
    """Read a cursor as a client sent it.

    Raises:
        BadRequest: it is not one that any gateway hands out.
    """
    shape = _SHAPE.fullmatch(text) if len(text) <= MAX_CURSOR_CHARS else None
    if shape is None or int(shape[2]) > LARGEST_SEQUENCE:
        raise BadRequest(
            "The cursor is not one that this gateway hands out. Send back, unchanged, the id of an event you got; "
            "or none, to begin now.",
            code="bad_cursor",
        )
    return Cursor(shape[1], int(shape[2]))


def incarnation_of(created: str, epoch: str) -> str:
    """The name of one life of the stream: 12 hex digits of a hash.

    Args:
        created: the stream's creation time, as the server states it.
        epoch: its metadata `natsgate_epoch`, empty when there is none.
    """
    return hashlib.sha256(f"{created}\n{epoch}".encode()).hexdigest()[:12]

"""What natsgate asks others over HTTP, by httpx: headers of every request, and the words for one that failed."""

from __future__ import annotations

import os
import socket
import ssl

HEADERS = {"Accept-Encoding": "identity", "User-Agent": "natsgate"}
"""Nothing compressed is asked for, and nothing is unpacked: what is received is bounded, and is all there is."""


MOST_SHOWN = 200
"""Characters of what a server says that go into an error."""


def reason(error: BaseException) -> str:
    """Why a request failed: the system's words where it has some, else those of who raised it."""
    words = str(error) or type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]  # a name with several addresses: each was tried
        if isinstance(cause, ssl.SSLError | socket.gaierror):
            words = cause.strerror or words
        elif isinstance(cause, OSError) and cause.errno:
            words = os.strerror(cause.errno)  # asyncio's own hold the address
        cause = cause.__cause__ or cause.__context__
    return words[:MOST_SHOWN]  # h11 quotes what it could not read

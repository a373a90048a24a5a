"""A download: one small document over HTTP, within a time and a size, however its server behaves.

By urllib, in a thread of the caller's: it knows the proxies and the certificates of the environment.
"""

from __future__ import annotations

import http.client
import io
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from time import monotonic
from typing import Any

MOST_SHOWN = 200
"""Characters of what a server says that go into an error."""


class NotDownloaded(Exception):
    """There is no document; the text says why, in one line of ASCII. It does not hold the URL."""


def download(url: str, *, timeout_s: float, most_bytes: int) -> bytes:
    """The document at an http or https URL.

    Redirects are not followed: what is trusted for the keys that it gives is the URL in the settings.

    Raises:
        NotDownloaded: the server is away, slow, says something else than 200, or too much.
    """
    deadline = monotonic() + timeout_s
    opener = urllib.request.build_opener(_Http(deadline), _Https(deadline), _NoRedirect())
    request = urllib.request.Request(url, headers={"accept": "application/json", "user-agent": "natsgate"})  # noqa: S310
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            document: bytes = answer.read(most_bytes + 1)
    except urllib.error.HTTPError as error:
        error.close()
        where = error.headers.get("location") if 300 <= error.code < 400 else None
        whither = "" if where is None else f", to {_shown(where)}; give the URL of the keys themselves"
        raise NotDownloaded(f"the server answers with status {error.code}{whither}") from None
    except Exception as error:  # whatever a server can make urllib raise; it is told, and tried again
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, TimeoutError):
            raise NotDownloaded(f"no whole answer within {timeout_s:g} s") from None
        raise NotDownloaded(_shown(str(reason)) or type(reason).__name__) from None
    if len(document) > most_bytes:
        raise NotDownloaded(f"it is larger than {most_bytes} bytes")
    return document


def _shown(text: str) -> str:
    return ascii(text[:MOST_SHOWN])[1:-1]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any) -> None:
        return None  # then it is an HTTPError


class _Http(urllib.request.HTTPHandler):
    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._connection = _connection(http.client.HTTPConnection, deadline)

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._connection = _connection(http.client.HTTPSConnection, deadline)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, request)


def _connection(kind: Callable[..., Any], deadline: float) -> Any:
    """Makes connections whose answers are read by `_Timed`."""

    class Answer(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *arguments: Any, **more: Any) -> None:
            super().__init__(sock, *arguments, **more)
            self.fp = io.BufferedReader(_Timed(self.fp.detach(), sock, deadline))

    def make(host: str, **more: Any) -> Any:
        connection = kind(host, **more)
        connection.response_class = Answer
        return connection

    return make


class _Timed(io.RawIOBase):
    """A socket's bytes until a deadline. A timeout of the socket's own begins anew with every byte."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: float) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._deadline - monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._sock.settimeout(left_s)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()

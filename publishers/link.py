"""One NATS connection from its opening to its loss. The only module here that knows nats-py.

A link never reconnects: after a loss the publisher opens the next one and decides itself what is sent again,
so no buffer of the client can send stale or doubled lines behind its back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
from collections.abc import Callable
from pathlib import Path

import nats.errors
import nkeys  # type: ignore[import-untyped]
from nats.aio.client import Client

from publishers.errors import NatsUnreachable, SettingsError
from publishers.outbox import Entry
from publishers.settings import Settings, without_login

log = logging.getLogger(__name__)

_WATCH_S = 0.1
_CLOSE_S = 0.25

_CREDS_JWT = re.compile(r"-BEGIN NATS USER JWT-+\s+([\w.=-]+)\s+-+END NATS USER JWT-")
_CREDS_SEED = re.compile(r"-BEGIN USER NKEY SEED-+\s+(\w+)\s+-+END USER NKEY SEED-")

_FORBIDDEN = re.compile(r'permissions violation for publish to "([^"]*)"', re.IGNORECASE)
_STATUS = re.compile(rb"NATS/1\.0 (\d{3})")

Answer = Callable[[int, bytes, str | None], None]
"""Called with the number of the message that is answered, the answer's payload, and its status (`503`: nobody
listens) or None. Must not raise or block: it runs in the connection's reader."""


class _Client(Client):
    """nats-py without the queue and task between the socket and the answers: half the time per answer."""

    answered: Callable[[bytes, bytes, bytes | None], None]

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        try:
            self.answered(subject, data, headers)
        except Exception:
            # Raising would end nats-py's reader without a word, and the connection with it.
            log.exception("an answer on %r was not understood", subject)


class Link:
    """An open connection with one inbox for all acknowledgements. Make it with `Link.open`."""

    def __init__(
        self, client: _Client, url: str, settings: Settings, on_answer: Answer, on_forbidden: Callable[[str], None]
    ) -> None:
        self.url = url
        self.reason = ""
        self._client = client
        self._settings = settings
        self._on_answer = on_answer
        self._on_forbidden = on_forbidden
        self._inbox = ""

    @classmethod
    async def open(cls, url: str, settings: Settings, on_answer: Answer, on_forbidden: Callable[[str], None]) -> Link:
        """Connects to one server and subscribes for acknowledgements.

        Args:
            on_answer: see `Answer`.
            on_forbidden: called with a subject, in lower case, that the login may not publish to.

        Raises:
            NatsUnreachable: the server is not there, refuses the login, or is silent for `connect_timeout_s`.
        """
        client = _Client()
        link = cls(client, url, settings, on_answer, on_forbidden)
        client.answered = link._answered
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                await client.connect(
                    servers=[url],
                    name=settings.name,
                    allow_reconnect=False,
                    # 0 would mean for ever; 1 is one try more after `reconnect_time_wait`.
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0.1,  # type: ignore[arg-type]  # seconds; a float works
                    connect_timeout=settings.connect_timeout_s,  # type: ignore[arg-type]
                    ping_interval=settings.ping_interval_s,  # type: ignore[arg-type]
                    max_outstanding_pings=2,
                    error_cb=link._note,
                    tls=_tls(settings),
                    user=settings.user,
                    password=settings.password,
                    token=settings.token,
                    user_credentials=settings.creds,
                    nkeys_seed_str=settings.nkey_seed,
                    inbox_prefix=settings.inbox_prefix,
                )
                link._inbox = client.new_inbox() + "."
                await client.subscribe(link._inbox + "*")
                # A round trip: the server knows the inbox, or has said that it may not be used.
                await asyncio.sleep(0)
                await client.flush()
        except Exception as err:  # also what TLS, DNS and keys raise: whatever it is, the next try may work
            await link.close()
            general = isinstance(err, nats.errors.NoServersError | TimeoutError)
            reason = (link.reason or "no answer") if general else _told(err)
            raise NatsUnreachable(f"{without_login(url)}: {reason}") from err
        except BaseException:
            await link.close()
            raise
        return link

    @property
    def is_up(self) -> bool:
        """Whether the connection works as far as is known; three unanswered pings end it."""
        return self._client.is_connected

    @property
    def max_payload_bytes(self) -> int:
        """Most bytes of headers and payload that the server takes; beyond that it closes the connection."""
        return self._client.max_payload

    async def send(self, batch: list[Entry]) -> None:
        """Hands messages to the connection in their order; waits while the socket is congested.

        Raises:
            NatsUnreachable: the connection is gone.
        """
        parts: list[bytes] = []
        for entry in batch:
            header, data = entry.header, entry.data
            sizes = f"{len(header)} {len(header) + len(data)}"
            line = f"HPUB {entry.subject} {self._inbox}{entry.number} {sizes}\r\n"
            parts += (line.encode(), header, data, b"\r\n")
        try:
            # Not `publish`: it checks, formats and wakes per message, more work than all the rest here.
            await self._client._send_command(b"".join(parts))
            await self._client._flush_pending()
        except (nats.errors.Error, OSError) as err:
            raise NatsUnreachable(f"{without_login(self.url)}: {_told(err)}") from err

    async def lost(self) -> None:
        """Waits until the connection is gone; `reason` then says why."""
        # Polled: nats-py calls back after closing the socket, and that waits for a peer that may be frozen.
        while self._client.is_connected:  # noqa: ASYNC110
            await asyncio.sleep(_WATCH_S)

    async def close(self) -> None:
        """Closes the connection at once, whatever state it or its peer is in."""
        try:
            with contextlib.suppress(TimeoutError, OSError, nats.errors.Error):  # it is given up either way
                async with asyncio.timeout(_CLOSE_S):
                    await self._client.close()
        finally:
            # nats-py has no public way to drop a socket whose peer does not read.
            writer = getattr(getattr(self._client, "_transport", None), "_io_writer", None)
            if isinstance(writer, asyncio.StreamWriter):
                writer.transport.abort()
                await asyncio.sleep(0)  # asyncio closes the socket in its next turn

    def _answered(self, subject: bytes, data: bytes, headers: bytes | None) -> None:
        status = _STATUS.match(headers) if headers else None
        self._on_answer(int(subject[len(self._inbox) :]), bytes(data), status[1].decode() if status else None)

    async def _note(self, error: Exception) -> None:
        # nats-py awaits this in its reader: raising here would end all reading without a word.
        self.reason = _told(error)
        log.debug("nats: %s", self.reason)
        forbidden = _FORBIDDEN.search(self.reason)
        if forbidden is not None:
            self._on_forbidden(forbidden[1].lower())


def _tls(settings: Settings) -> ssl.SSLContext | None:
    wanted = settings.tls_ca or settings.tls_cert or settings.tls_key
    if not wanted and not any(url.startswith("tls://") for url in settings.server_urls):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca)
        if settings.tls_cert is not None:
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (ssl.SSLError, OSError) as err:
        raise SettingsError(f"tls_ca, tls_cert or tls_key is no usable PEM file: {err}") from err
    return context


def check_files(settings: Settings) -> None:
    """Reads what the settings name once, so that a wrong file is told at once instead of being tried for ever.

    Raises:
        SettingsError: a PEM or `.creds` file, or the nkey seed, is unusable.
    """
    _tls(settings)
    if settings.creds is not None:
        try:
            text = Path(settings.creds).read_text()
        except (OSError, UnicodeDecodeError) as err:
            raise SettingsError(f"setting 'creds': cannot read {settings.creds!r}: {err}") from err
        seed = _CREDS_SEED.search(text)
        if _CREDS_JWT.search(text) is None or seed is None or not _is_seed(seed[1]):
            raise SettingsError(
                f"setting 'creds': {settings.creds!r} is no credentials file: give one with a user's JWT and seed, "
                "as `nsc generate creds` writes it"
            )
    if settings.nkey_seed is not None and not _is_seed(settings.nkey_seed):
        raise SettingsError("setting 'nkey_seed' is no seed of an nkey: give the seed itself, which begins with SU")


def _is_seed(text: str) -> bool:
    try:
        nkeys.from_seed(bytearray(text.encode()))
    except Exception:  # nkeys' own errors, and those of base32
        return False
    return True


def _told(error: BaseException) -> str:
    return str(error) or type(error).__name__

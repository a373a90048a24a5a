"""`natsgate publish`: one event, or a line of JSON each, stored and acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import click

import publishers
from gateway.commands.entry import tell
from gateway.commands.input_lines import LineTooLong, read_lines, read_pieces
from gateway.commands.nats_session import DEFAULT_WAIT_S
from gateway.commands.outcome import EXIT_WRONG, CommandFailed, NatsNotReached
from gateway.nats_settings import place_of
from gateway.settings import Settings
from gateway.values import revealed
from publishers.errors import BufferFull, FlushTimeout, NatsUnreachable, PublishError
from publishers.outbox import Ack
from publishers.wire import InvalidSubject, WireError, parse_subject

PROGRESS_TTY_S, PROGRESS_S = 0.2, 5.0
REPORTED_LINES = 20
"""The most failed lines that are told one by one; the rest is counted."""


def publisher_settings(settings: Settings) -> publishers.Settings:
    """The same NATS and login for the producers' library.

    Raises:
        CommandFailed: the library does not take them.
    """
    try:
        return publishers.Settings(
            servers=",".join(settings.nats_url),
            creds=settings.nats_creds,
            nkey_seed=revealed(settings.nats_nkey),
            user=settings.nats_user,
            password=revealed(settings.nats_password),
            token=revealed(settings.nats_token),
            tls_ca=settings.nats_ca,
            tls_cert=settings.nats_cert,
            tls_key=settings.nats_key,
            name="natsgate publish",
            max_event_bytes=settings.max_event_bytes,
            timeout_s=10.0,
            retry_for_s=3.0,
        )
    except PublishError as error:
        raise CommandFailed(str(error)) from None


def check_subject(subject: str, settings: Settings) -> None:
    """Check that the stream would store the subject.

    Raises:
        CommandFailed: it is malformed, or below none of the roots.
    """
    try:
        root = parse_subject(subject).root
    except InvalidSubject as error:
        raise CommandFailed(str(error)) from None
    if root not in settings.roots:
        raise CommandFailed(
            f"subject {subject!a}: the stream stores {' '.join(settings.roots)} only, not {root}; "
            "NATSGATE_ROOTS says which"
        )


async def _open(publisher: publishers.Publisher, settings: Settings) -> None:
    wait_s = settings.start_timeout_s or DEFAULT_WAIT_S
    try:
        await publisher.wait_connected(wait_s)
    except NatsUnreachable as error:
        raise NatsNotReached(str(error)) from None


async def publish_one(settings: Settings, subject: str, event: bytes | None, msg_id: str | None) -> Ack:
    """Store one event.

    Args:
        event: JSON; None: it is read from standard input.

    Raises:
        CommandFailed, NatsNotReached: it is not stored, or may be; the text says which.
    """
    logging.getLogger("publishers").setLevel(logging.CRITICAL)  # what it would warn of is in the error we show
    if event is None:
        event = b"".join([piece async for piece in read_pieces(sys.stdin.fileno())])
    publisher = publishers.Publisher(publisher_settings(settings))
    await publisher.open()
    try:
        await _open(publisher, settings)
        return await publisher.publish(subject, event.strip(), msg_id=msg_id)
    except (PublishError, WireError) as error:
        raise CommandFailed(str(error)) from None
    finally:
        await _close(publisher)


async def _close(publisher: publishers.Publisher) -> None:
    with contextlib.suppress(FlushTimeout):  # the outcome of each event is told by its own future
        await publisher.close(0.2)


@dataclass(slots=True)
class Totals:
    """What became of the lines.

    Attributes:
        stored, duplicates, failed: events.
        last: the highest sequence of a stored one.
        next_line: the first line that was not read, when it ended early.
    """

    stored: int = 0
    duplicates: int = 0
    failed: int = 0
    last: int = 0
    next_line: int = 0
    told: int = field(default=0, repr=False)

    def line(self) -> str:
        """All of it as text."""
        upto = f", up to sequence {self.last}" if self.last else ""
        return f"{self.stored} stored, {self.duplicates} duplicates, {self.failed} failed{upto}"


class LinePublisher:
    """Publishes JSON lines from standard input, in order, many at a time.

    A bad line is told with its number and left out; the others go on.

    Args:
        msg_id: what each line's `Nats-Msg-Id` begins with, its number follows; None: random ones.
        complain: prints what went wrong with a line.
        progress: prints how far it is; called now and then.
    """

    def __init__(
        self,
        settings: Settings,
        subject: str,
        msg_id: str | None,
        complain: Callable[[str], object],
        progress: Callable[[str], object],
        *,
        every_s: float,
    ) -> None:
        self._settings = settings
        self._subject = subject
        self._msg_id = msg_id
        self._complain = complain
        self._progress = progress
        self._every_s = every_s
        self.totals = Totals()

    async def run(self) -> Totals:
        """Publish until the input ends.

        Raises:
            NatsNotReached: NATS is not there at the start, or is away for longer than the buffer holds out; what was
                acknowledged until then is in `totals`, and `totals.next_line` is the first line that was not taken.
        """
        logging.getLogger("publishers").setLevel(logging.CRITICAL)
        publisher = publishers.Publisher(publisher_settings(self._settings))
        await publisher.open()
        ticker = asyncio.create_task(self._tick())
        try:
            await _open(publisher, self._settings)
            await self._take_all(publisher)
            await self._finish(publisher)
        finally:
            ticker.cancel()
            await _close(publisher)
            await asyncio.sleep(0)  # outcomes that closing decided are counted in the loop's next turn
        return self.totals

    async def _take_all(self, publisher: publishers.Publisher) -> None:
        number = 0
        try:
            async for number, line in read_lines(sys.stdin.fileno()):
                if line.strip():
                    await self._take(publisher, number, line.strip())
        except LineTooLong as error:
            self._failed(error.number, "it is too long to be an event; the lines behind it were not read")

    async def _take(self, publisher: publishers.Publisher, number: int, line: bytes) -> None:
        msg_id = None if self._msg_id is None else f"{self._msg_id}-{number}"
        while True:
            try:
                outcome = await publisher.enqueue(self._subject, line, msg_id=msg_id)
            except WireError as error:
                self._failed(number, str(error))
                return
            except BufferFull:
                try:
                    await _open(publisher, self._settings)
                except NatsNotReached:
                    self.totals.next_line = number
                    raise
                continue
            outcome.add_done_callback(functools.partial(self._came_out, number))
            return

    async def _finish(self, publisher: publishers.Publisher) -> None:
        while True:
            try:
                await publisher.flush(1.0)
                return
            except FlushTimeout:
                if not publisher.stats.connected:
                    await _open(publisher, self._settings)

    def _came_out(self, number: int, outcome: asyncio.Future[Ack]) -> None:
        if outcome.cancelled():
            self._failed(number, "it was not sent")
            return
        error = outcome.exception()
        if error is not None:
            self._failed(number, str(error))
            return
        ack = outcome.result()
        if ack.duplicate:
            self.totals.duplicates += 1
        else:
            self.totals.stored += 1
        self.totals.last = max(self.totals.last, ack.sequence)

    def _failed(self, number: int, why: str) -> None:
        self.totals.failed += 1
        self.totals.told += 1
        if self.totals.told <= REPORTED_LINES:
            self._complain(f"line {number}: {why}")
        elif self.totals.told == REPORTED_LINES + 1:
            self._complain("more lines failed; they are counted")

    async def _tick(self) -> None:
        begun = time.monotonic()
        while True:
            await asyncio.sleep(self._every_s)
            rate = self.totals.stored / (time.monotonic() - begun)
            self._progress(f"{self.totals.line()} ({rate:.0f}/s)")


def publish_lines(settings: Settings, subject: str, msg_id: str | None) -> None:
    """Store what standard input holds, one event a line, with a line of progress now and then, and the totals at last.

    Ends the command with exit code 2 when something was not stored.
    """
    tty = sys.stderr.isatty()

    def progress(text: str) -> None:
        click.echo(f"\r\x1b[K{text}" if tty else f"natsgate: {text}", err=True, nl=not tty)

    def complain(text: str) -> None:
        click.echo(f"\r\x1b[Knatsgate: {text}" if tty else f"natsgate: {text}", err=True)

    run = LinePublisher(settings, subject, msg_id, complain, progress, every_s=PROGRESS_TTY_S if tty else PROGRESS_S)
    try:
        asyncio.run(run.run())
    finally:
        if tty:
            click.echo("\r\x1b[K", err=True, nl=False)
        click.echo(run.totals.line() + (f" at {place_of(settings)}" if run.totals.last else ""))
        if run.totals.next_line:
            tell(f"line {run.totals.next_line} and what follows were not sent")
    if run.totals.failed:
        sys.exit(EXIT_WRONG)

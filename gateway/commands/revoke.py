"""`natsgate revoke`: tokens of a user that were issued before a time are refused by every replica; or taken again."""

from __future__ import annotations

import base64
import math
import secrets
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from gateway.commands.nats_session import NotPermitted, Session, open_session
from gateway.commands.outcome import CommandFailed
from gateway.commands.stream_admin import create, explained, explaining, look_up
from gateway.commands.tail_line import printable
from gateway.core.bucket import BUCKET_SHAPE
from gateway.core.errors import UpstreamError, UpstreamRefused
from gateway.core.revoked import (
    MAX_KEY_CHARS,
    PREFIX,
    Entry,
    format_not_before,
    key_of,
    parse_not_before,
    read_entry,
)
from gateway.core.rights import BadClaims, parse_sub
from gateway.core.stream import Shape, read_answer
from gateway.nats_settings import bucket_of, shape_of
from gateway.settings import Settings
from gateway.upstream.api import StreamApi
from gateway.upstream.reads import NO_MESSAGE, StreamReads
from gateway.upstream.revocations import read_on
from publishers.wire import InvalidId, encode_id

FULL, MOVED = 10077, (10071, 10164)
"""JetStream's codes: the bucket has no room for the entry; the entry was written by somebody else meanwhile."""

ATTEMPTS = 5
Say = Callable[[str], object]
EXPECTED = "Nats-Expected-Last-Subject-Sequence"


class _Stored(NamedTuple):
    """A user's entry as the leader has it: its sequence (0: none), and from when on tokens count (None: from ever)."""

    sequence: int
    not_before: float | None


def parse_at(text: str | None) -> float:
    """The time of `--at`; the next whole second where it is not given, since `iat` has whole seconds.

    Raises:
        CommandFailed: it is no time.
    """
    if text is None:
        return float(math.floor(time.time()) + 1)
    found = parse_not_before(text.encode("utf-8", "replace"))
    if found is None:
        raise CommandFailed(
            f"--at {text!a} is no time: give an RFC 3339 time such as 2030-01-31T12:00:00Z, or seconds since the epoch"
        )
    return found


async def revoke(settings: Settings, sub: str, not_before: float, say: Say) -> None:
    """Refuse tokens of `sub` that were issued before a time. Never weakens what is revoked already.

    Args:
        say: prints a line of what was done.

    Raises:
        NatsNotReached, ConfigError: see `open_session`.
        CommandFailed: it is not stored; the text says why.
    """
    try:
        parse_sub(sub)
    except BadClaims as error:
        rest = str(error).removeprefix("sub")
        raise CommandFailed(
            f"SUB{rest}; no gateway takes a token of it. Is it a whole token? Give its claim sub"
        ) from None
    subject, name = _subject(sub), printable(sub)
    async with open_session(settings) as session:
        await _usable_bucket(session, settings, say)
        for _ in range(ATTEMPTS):
            stored = await _stored(session, subject)
            if stored.not_before is not None and stored.not_before >= not_before:
                earlier = "; to take some of them again: --lift first" if stored.not_before > not_before else ""
                before = format_not_before(stored.not_before)
                say(f"{name}'s tokens issued before {before} are refused already (at {session.server}){earlier}")
                return
            # Written only onto what was seen: of two who revoke at once, the later time stays.
            before = format_not_before(not_before)
            if await _put(session, subject, before.encode(), {EXPECTED: str(stored.sequence)}):
                say(f"{name}'s tokens issued before {before} are refused from now on (at {session.server})")
                return
    raise CommandFailed(f"{name} was not revoked: others write the same entry all the time; run it again")


async def lift(settings: Settings, sub: str, say: Say) -> None:
    """Take tokens of `sub` again, whenever they were issued. Args and Raises: as for `revoke`."""
    subject, name = _subject(sub), printable(sub)
    async with open_session(settings) as session:
        state = await look_up(StreamApi(session, BUCKET_SHAPE))
        if state is None:
            say(f"there is no bucket of revoked users at {session.server}: {name} is not revoked; nothing to do")
            return
        if (await _stored(session, subject)).not_before is None:
            say(f"{name} is not revoked at {session.server}; nothing to do")
            return
        try:
            await _put(session, subject, b"", {"KV-Operation": "DEL"})
        except _Full:
            await _purge(session, subject)  # a marker needs more room than the entry gives back
        say(f"{name}'s tokens are taken again, whenever they were issued (at {session.server})")


async def listed(settings: Settings) -> tuple[list[str], list[str]]:
    """Everybody who is revoked.

    Returns:
        lines `<time> <sub>`, sorted by `sub`; and lines about entries that cannot be read, or that there are none.
        Raises as `revoke`.
    """
    complaints: list[str] = []

    def strange(subject: bytes, entry: Entry) -> None:
        key = subject[len(PREFIX) :].decode("utf-8", "replace")
        if entry.sub is None:
            complaints.append(f"the key {key!a} is nobody's and revokes nobody; natsgate revoke writes keys that are")
        else:
            complaints.append(f"the entry {key!a} holds no time, and counts from when it was written")

    async with open_session(settings) as session:
        api = StreamApi(session, BUCKET_SHAPE)
        state = await look_up(api)
        if state is None:
            return [], [f"nobody is revoked: there is no bucket of revoked users at {session.server}"]
        reads = StreamReads(session.nats, api, f"_INBOX.natsgate.{secrets.token_hex(8)}")
        try:
            server = session.server
            content, position, state = await read_on(api, reads, state.first - 1, state, strange)
        except UpstreamError as error:
            direct = f"$JS.API.DIRECT.GET.{BUCKET_SHAPE.name}"
            refused = NotPermitted("publish", direct) if session.refused("publish", direct) else error
            raise CommandFailed(explained("read", BUCKET_SHAPE.name, refused)) from None
    if position < state.last:
        complaints.append("entries are written all the time: some that were written just now may be lacking here")
    lines = [
        f"{format_not_before(not_before)} {printable(sub)}"
        for sub, not_before in sorted(content.times.items())
        if not_before is not None
    ]
    if not (lines or complaints):
        complaints.append(f"nobody is revoked at {server}")
    return lines, complaints


class _Full(CommandFailed):
    """The bucket has no room."""


def _subject(sub: str) -> str:
    try:
        encode_id(sub)
    except InvalidId as error:
        raise CommandFailed(f"SUB: {error}") from None
    key = key_of(sub)
    if len(key) > MAX_KEY_CHARS:
        raise CommandFailed(
            f"SUB has {len(key)} characters as a key of the bucket; NATS takes {MAX_KEY_CHARS}. Is it a whole token? "
            "Give its claim sub"
        )
    return PREFIX + key


async def _usable_bucket(session: Session, settings: Settings, say: Say) -> None:
    """Make the bucket where there is none."""
    api = StreamApi(session, BUCKET_SHAPE)
    state = await look_up(api)
    if state is not None:
        problems = bucket_of(settings).problems(state.config)
        if problems:
            raise CommandFailed("; ".join(problems))
        return
    events: StreamApi[Shape] = StreamApi(session, shape_of(settings))
    stream = await look_up(events)
    replicas = 1 if stream is None else int(stream.config.get("num_replicas") or 1)
    await create(api, BUCKET_SHAPE.config(replicas=replicas))
    say(f"there was no bucket of revoked users at {session.server}; made it (stream {BUCKET_SHAPE.name})")


async def _stored(session: Session, subject: str) -> _Stored:
    question = orjson.dumps({"last_by_subj": subject})
    with explaining("read", BUCKET_SHAPE.name):
        try:
            answer = read_answer(await session.request(f"$JS.API.STREAM.MSG.GET.{BUCKET_SHAPE.name}", question))
            return _read_stored(subject, answer["message"])
        except UpstreamRefused as error:
            if error.code != NO_MESSAGE:
                raise
            return _Stored(0, None)
        except (KeyError, TypeError, ValueError):
            raise CommandFailed(f"stream {BUCKET_SHAPE.name} could not be read: its leader answers nonsense") from None


def _read_stored(subject: str, message: dict[str, Any]) -> _Stored:
    headers, payload = (base64.b64decode(message.get(name) or "") for name in ("hdrs", "data"))
    written_at = datetime.fromisoformat(message["time"]).timestamp()
    entry = read_entry(subject.encode(), headers, payload, written_at=written_at)
    return _Stored(int(message["seq"]), entry.not_before)


async def _put(session: Session, subject: str, value: bytes, headers: dict[str, str]) -> bool:
    """Write an entry; False when somebody else wrote it meanwhile."""
    with explaining("written", BUCKET_SHAPE.name):
        try:
            ack = read_answer(await session.request(subject, value, timeout_s=5, headers=headers))
        except UpstreamRefused as error:
            if error.code in MOVED:
                return False
            if error.code == FULL:
                raise _Full(
                    f"stream {BUCKET_SHAPE.name} is full; give it more room: nats stream edit {BUCKET_SHAPE.name} "
                    "--max-bytes 32MiB; or let go what is older than any token: the same with --max-age 30d"
                ) from None
            raise
    if ack.get("stream") != BUCKET_SHAPE.name:
        raise CommandFailed(f"stream {ack.get('stream')} stored it, not {BUCKET_SHAPE.name}: see natsgate check")
    return True


async def _purge(session: Session, subject: str) -> None:
    question = orjson.dumps({"filter": subject})
    with explaining("purged", BUCKET_SHAPE.name):
        read_answer(await session.request(f"$JS.API.STREAM.PURGE.{BUCKET_SHAPE.name}", question, timeout_s=5))

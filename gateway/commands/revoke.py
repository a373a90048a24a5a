"""`natsgate revoke`: tokens of a user that were issued before a time are refused by every replica; or taken again."""

from __future__ import annotations

import base64
import math
import secrets
import time
from typing import Any, NamedTuple

import orjson

from gateway.commands.nats_session import NotPermitted, Session, open_session
from gateway.commands.outcome import CommandFailed
from gateway.commands.stream_admin import create, explained, look_up
from gateway.commands.tail_line import printable
from gateway.core.bucket import BUCKET_SHAPE
from gateway.core.errors import UpstreamError, UpstreamRefused
from gateway.core.ledger import Content
from gateway.core.revoked import (
    MAX_KEY_CHARS,
    PREFIX,
    format_not_before,
    key_of,
    parse_not_before,
    read_entry,
    split_headers,
)
from gateway.core.stream import Shape, read_answer
from gateway.server import shape_of
from gateway.settings import Settings
from gateway.upstream.api import StreamApi
from gateway.upstream.reads import NO_MESSAGE, StreamReads
from publishers.wire import InvalidId, encode_id

FULL, MOVED = 10077, (10071, 10164)
"""JetStream's codes: the bucket has no room for the entry; the entry was written by somebody else meanwhile."""

ATTEMPTS = 5
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


async def revoke(settings: Settings, sub: str, not_before: float) -> list[str]:
    """Refuse tokens of `sub` that were issued before a time. Never weakens what is revoked already.

    Returns:
        what was done, as lines.

    Raises:
        NatsNotReached, ConfigError: see `open_session`.
        CommandFailed: it is not stored; the text says why.
    """
    subject = _subject(sub)
    said = []
    async with open_session(settings) as session:
        said += await _usable_bucket(session, settings)
        for _ in range(ATTEMPTS):
            stored = await _stored(session, subject)
            if stored.not_before is not None and stored.not_before >= not_before:
                already = format_not_before(stored.not_before)
                return [*said, f"{printable(sub)}'s tokens issued before {already} are refused already"]
            value = format_not_before(not_before).encode()
            if await _put(session, subject, value, {EXPECTED: str(stored.sequence)}):
                told = format_not_before(not_before)
                return [*said, f"{printable(sub)}'s tokens issued before {told} are refused from now on"]
    raise CommandFailed(f"{printable(sub)} was not revoked: others write the same entry all the time; run it again")


async def lift(settings: Settings, sub: str) -> list[str]:
    """Take tokens of `sub` again, whenever they were issued. Raises as `revoke`."""
    subject = _subject(sub)
    async with open_session(settings) as session:
        state = await look_up(StreamApi(session, BUCKET_SHAPE))
        stored = _Stored(0, None) if state is None else await _stored(session, subject)
        if stored.not_before is None:
            return [f"{printable(sub)} is not revoked; nothing to do"]
        try:
            await _put(session, subject, b"", {"KV-Operation": "DEL"})
        except _Full:
            await _purge(session, subject)  # a marker needs more room than the entry gives back
        return [f"{printable(sub)}'s tokens are taken again, whenever they were issued"]


async def listed(settings: Settings) -> tuple[list[str], list[str]]:
    """Everybody who is revoked.

    Returns:
        lines `<time> <sub>`, sorted by `sub`; and lines about entries that are nobody's. Raises as `revoke`.
    """
    async with open_session(settings) as session:
        api = StreamApi(session, BUCKET_SHAPE)
        state = await look_up(api)
        if state is None:
            return [], []
        reads = StreamReads(session.nats, api, f"_INBOX.natsgate.{secrets.token_hex(8)}")
        content = Content()
        try:
            async for part in reads.forward((">",), state.first - 1, state.last):
                for each in part.messages:
                    headers, stored_at = split_headers(each.headers)
                    entry = read_entry(each.subject, headers, each.payload, written_at=stored_at or time.time())
                    content.take(each.subject, entry)
        except UpstreamError as error:
            direct = f"$JS.API.DIRECT.GET.{BUCKET_SHAPE.name}"
            refused = NotPermitted("publish", direct) if session.refused("publish", direct) else error
            raise CommandFailed(explained("read", BUCKET_SHAPE.name, refused)) from None
    lines = [
        f"{format_not_before(not_before)} {printable(sub)}"
        for sub, not_before in sorted(content.times.items())
        if not_before is not None
    ]
    strange = [printable(subject[len(PREFIX) :].decode("utf-8", "replace")) for subject in sorted(content.strange)]
    mend = "natsgate revoke writes keys that it reads"
    return lines, [f"the key {key!a} is nobody's and revokes nobody; {mend}" for key in strange]


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


async def _usable_bucket(session: Session, settings: Settings) -> list[str]:
    """Make the bucket where there is none. Returns what was done."""
    api = StreamApi(session, BUCKET_SHAPE)
    state = await look_up(api)
    if state is not None:
        problems = BUCKET_SHAPE.problems(state.config)
        if problems:
            raise CommandFailed("; ".join(problems))
        return []
    events: StreamApi[Shape] = StreamApi(session, shape_of(settings))
    stream = await look_up(events)
    replicas = 1 if stream is None else int(stream.config.get("num_replicas") or 1)
    await create(api, BUCKET_SHAPE.config(replicas=replicas))
    return [f"stream {BUCKET_SHAPE.name} created: nobody was revoked before"]


async def _stored(session: Session, subject: str) -> _Stored:
    question = orjson.dumps({"last_by_subj": subject})
    try:
        answer = read_answer(await session.request(f"$JS.API.STREAM.MSG.GET.{BUCKET_SHAPE.name}", question))
        return _read_stored(subject, answer["message"])
    except UpstreamRefused as error:
        if error.code == NO_MESSAGE:
            return _Stored(0, None)
        raise CommandFailed(explained("read", BUCKET_SHAPE.name, error)) from None
    except UpstreamError as error:
        raise CommandFailed(explained("read", BUCKET_SHAPE.name, error)) from None
    except (KeyError, TypeError, ValueError):
        raise CommandFailed(f"stream {BUCKET_SHAPE.name} could not be read: its leader answers nonsense") from None


def _read_stored(subject: str, message: dict[str, Any]) -> _Stored:
    headers, payload = (base64.b64decode(message.get(name) or "") for name in ("hdrs", "data"))
    entry = read_entry(subject.encode(), headers, payload, written_at=time.time())
    return _Stored(int(message["seq"]), entry.not_before)


async def _put(session: Session, subject: str, value: bytes, headers: dict[str, str]) -> bool:
    """Write an entry; False when somebody else wrote it meanwhile."""
    try:
        ack = read_answer(await session.request(subject, value, timeout_s=5, headers=headers))
    except UpstreamRefused as error:
        if error.code in MOVED:
            return False
        if error.code == FULL:
            raise _Full(
                f"stream {BUCKET_SHAPE.name} is full; take back what no token needs any more (natsgate revoke --list, "
                f"--lift), or give it more room: nats stream edit {BUCKET_SHAPE.name} --max-bytes 32MiB"
            ) from None
        raise CommandFailed(explained("written", BUCKET_SHAPE.name, error)) from None
    except UpstreamError as error:
        raise CommandFailed(explained("written", BUCKET_SHAPE.name, error)) from None
    if ack.get("stream") != BUCKET_SHAPE.name:
        raise CommandFailed(f"stream {ack.get('stream')} stored it, not {BUCKET_SHAPE.name}: see natsgate check")
    return True


async def _purge(session: Session, subject: str) -> None:
    question = orjson.dumps({"filter": subject})
    try:
        read_answer(await session.request(f"$JS.API.STREAM.PURGE.{BUCKET_SHAPE.name}", question, timeout_s=5))
    except UpstreamError as error:
        raise CommandFailed(explained("purged", BUCKET_SHAPE.name, error)) from None

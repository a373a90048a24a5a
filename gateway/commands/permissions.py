"""The permissions of the gateway's NATS login, tried one by one.

Requests and subscriptions are really made, since they harm nobody. A trial publish would reach every service that
listens, so what may be published is asked of the server, which knows the login's own lists.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.commands.finding import Finding, fine, note, problem
from gateway.commands.nats_session import NotPermitted, Session
from gateway.core.bucket import BUCKET_SHAPE, SUBJECTS
from gateway.core.errors import UpstreamAway, UpstreamError, UpstreamRefused
from gateway.core.stream import JETSTREAM_OFF, StreamShape, StreamState, read_info
from gateway.core.subjects import INBOX_ROOT, covers, meet

USER_INFO = "$SYS.REQ.USER.INFO"
OLDEST_SERVER = (2, 11)
_MEND = "allow it for this login as in deploy/nats/permissions.conf"
_PROBE = b'{"seq":1}'


@dataclass(slots=True)
class Trial:
    """What the trial brought.

    Attributes:
        findings: one per permission that lacks, else a single `ok`.
        told: what the leader says of each stream, or why it says nothing. Without an inbox: empty.
    """

    findings: list[Finding] = field(default_factory=list)
    told: dict[str, StreamState | UpstreamError] = field(default_factory=dict)


async def try_permissions(session: Session, shape: StreamShape, *, revocation: bool) -> Trial:
    """Do once what a gateway does all the time, and note what is refused.

    Args:
        revocation: whether reading the bucket of revoked users is needed, and not only will be.
    """
    trial = Trial()
    live = f"{shape.live_prefix}.>"
    await session.may_subscribe(live)
    await session.may_subscribe(SUBJECTS)
    # No subscription to our inbox: without it no answer comes, and nothing else can be learned.
    if not await _read(session, shape.name, problem, trial):
        return trial
    level = problem if revocation else _not_needed_yet
    await _read(session, BUCKET_SHAPE.name, level, trial)
    if session.refused("subscribe", live):
        trial.findings.append(problem("permissions", f"the NATS login may not subscribe {live}", _MEND))
    if session.refused("subscribe", SUBJECTS):
        trial.findings.append(level("permissions", f"the NATS login may not subscribe {SUBJECTS}", _MEND))
    trial.findings += await _publishing(session, shape)
    if all(each.level == "note" for each in trial.findings):
        text = f"the login may read the stream, {live} and its inbox"
        trial.findings.insert(0, fine("permissions", text))
    return trial


def _not_needed_yet(about: str, text: str, mend: str) -> Finding:
    return note(about, text, f"needed with NATSGATE_AUTH=jwt, to know who is revoked: {mend}")


async def _read(session: Session, name: str, level: Callable[[str, str, str], Finding], trial: Trial) -> bool:
    """Try what reading a stream needs; False when our own inbox is barred."""
    for verb in ("STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET"):
        reading = verb == "STREAM.INFO"
        try:
            answer = await session.request(f"$JS.API.{verb}.{name}", b"" if reading else _PROBE)
            if reading:
                trial.told[name] = read_info(answer)
        except NotPermitted as error:
            inbox = error.verb == "subscribe"
            text = f"the NATS login may not {error.verb} {error.subject}"
            trial.findings.append((problem if inbox else level)("permissions", text, _MEND))
            if inbox:
                return False
            if reading:
                trial.told[name] = error
        except UpstreamError as error:
            if reading:
                trial.told[name] = error  # the stream's trouble; the permission is there
    return True


async def _publishing(session: Session, shape: StreamShape) -> list[Finding]:
    try:
        told = orjson.loads(await session.request(USER_INFO))
        data = told["data"]
        version = str(told.get("server", {}).get("ver", ""))
    except (UpstreamError, orjson.JSONDecodeError, KeyError, TypeError):
        text = "what the login may publish is not known, since the server does not tell it"
        return [note("permissions", text, f"allow publishing {USER_INFO} to have it checked")]
    found = _version(version)
    publish = (data.get("permissions") or {}).get("publish") or {}
    barred = [root for root in shape.roots if not may_publish(publish, f"{root}.>")]
    if INBOX_ROOT in barred:
        text = f"the NATS login may not publish {INBOX_ROOT}.>, where messages of clients go"
        found.append(problem("permissions", text, _MEND))
    others = [f"{root}.>" for root in barred if root != INBOX_ROOT]
    if others:
        text = f"the NATS login may not publish {' '.join(others)}"
        found.append(note("permissions", text, "fine unless the `publish` of a route leads there"))
    if may_publish(publish, f"{shape.live_prefix}.>"):
        text = f"the NATS login may publish {shape.live_prefix}.>, which only the server has to"
        found.append(note("permissions", text, "take it away as in deploy/nats/permissions.conf"))
    return found


def _version(text: str) -> list[Finding]:
    numbers = re.match(r"(\d+)\.(\d+)", text)
    if numbers is None or (int(numbers[1]), int(numbers[2])) >= OLDEST_SERVER:
        return []
    oldest = ".".join(map(str, OLDEST_SERVER))
    return [problem("nats", f"nats-server is {text}", f"natsgate needs {oldest} or newer: update nats-server")]


def may_publish(rights: dict[str, Any], pattern: str) -> bool:
    """Whether a login may publish at least part of a pattern.

    Args:
        rights: `{"allow": [...], "deny": [...]}` as the server lists them; no `allow` means everything.
    """
    tokens = tuple(pattern.split("."))
    allow = [tuple(str(each).split(".")) for each in rights.get("allow") or [">"]]
    deny = [tuple(str(each).split(".")) for each in rights.get("deny") or []]
    return any(meet(each, tokens) is not None for each in allow) and not any(covers(each, tokens) for each in deny)


def silence_of(error: UpstreamError | None) -> Finding:
    """Why the stream's leader says nothing, as a problem with its mend."""
    if isinstance(error, UpstreamRefused) and error.code == JETSTREAM_OFF:
        mend = "enable it: jetstream {} in the server's configuration, or in the account's"
        return problem("stream", "JetStream is not enabled for this NATS account", mend)
    if isinstance(error, UpstreamAway) and "nobody answers" in str(error):
        mend = "start nats-server with -js, or put jetstream {} into its configuration"
        return problem("stream", "JetStream is not enabled on this NATS server", mend)
    mend = "look at the cluster: nats stream report, nats server report jetstream"
    return problem("stream", f"the stream's leader does not answer: {error!s}", mend)

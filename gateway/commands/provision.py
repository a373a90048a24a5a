"""`natsgate provision`: makes the stream, or changes an existing one after showing what would change."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from gateway.commands.nats_session import open_session
from gateway.commands.outcome import CommandFailed
from gateway.commands.stream_change import Plan, Wishes, plan_change
from gateway.commands.stream_findings import look_at
from gateway.core.errors import UpstreamError, UpstreamRefused
from gateway.core.stream import (
    DEFAULT_MAX_AGE_S,
    DEFAULT_MAX_BYTES,
    EPOCH_KEY,
    NO_SUCH_STREAM,
    StreamShape,
    StreamState,
)
from gateway.server import shape_of
from gateway.settings import Settings
from gateway.upstream.api import StreamApi


@dataclass(frozen=True, slots=True)
class Speech:
    """How the command talks to its user.

    Attributes:
        say: prints a line of the result.
        warn: prints a line that should not be missed.
        confirm: asks a question; None where nobody is there to answer.
    """

    say: Callable[[str], object]
    warn: Callable[[str], object]
    confirm: Callable[[str], bool] | None


def provision(settings: Settings, wishes: Wishes, speech: Speech, *, yes: bool) -> None:
    """Make the stream usable, and as wished.

    The stream is not held while the user thinks: what is applied is compared with what was shown.

    Args:
        yes: change an existing stream without asking.

    Raises:
        NatsNotReached, ConfigError: see `open_session`.
        CommandFailed: the server refuses, nobody agreed to a change, or the stream stays unusable.
    """
    shape = shape_of(settings)
    shown = asyncio.run(_created_or_planned(settings, wishes, speech))
    if shown is None:
        return
    if shown.impossible:
        raise CommandFailed("; ".join(shown.impossible))
    for each in shown.regrets:
        speech.warn(each)
    if shown.changes:
        speech.say(f"stream {shape.name}, to be changed:")
        for change in shown.changes:
            speech.say(f"  {change.line()}")
        if not yes:
            _agree(shape.name, speech)
        asyncio.run(_apply(settings, wishes, shown))
        speech.say(f"stream {shape.name} changed")
    unusable = shape.problems(shown.config)
    if unusable:
        raise CommandFailed("; ".join(unusable))
    if not shown.changes:
        speech.say(f"stream {shape.name} is there and usable; nothing to do")
    _warn_of(shape, shown, speech)


def _agree(name: str, speech: Speech) -> None:
    if speech.confirm is None:
        raise CommandFailed(
            f"stream {name} was not changed: nobody is here to be asked; run it with --yes to change it"
        )
    if not speech.confirm(f"Change stream {name}?"):
        raise CommandFailed(f"stream {name} was not changed")


def _warn_of(shape: StreamShape, plan: Plan, speech: Speech) -> None:
    for each in look_at(shape, plan.config):
        if each.level == "problem":
            speech.warn(f"{each.text}; {each.mend}")


async def _created_or_planned(settings: Settings, wishes: Wishes, speech: Speech) -> Plan | None:
    async with open_session(settings) as session:
        api = StreamApi(session, shape_of(settings))
        state = await _info(api)
        if state is not None:
            return plan_change(api.shape, state.config, wishes)
        config = api.shape.config(
            replicas=wishes.replicas or 1,
            max_age_s=DEFAULT_MAX_AGE_S if wishes.max_age_s is None else wishes.max_age_s,
            max_bytes=(DEFAULT_MAX_BYTES if wishes.max_bytes is None else wishes.max_bytes) or -1,
        )
        if wishes.epoch is not None:
            config["metadata"] = {EPOCH_KEY: wishes.epoch}
        try:
            await api.create(config)
        except UpstreamError as error:
            raise CommandFailed(_explained("created", api.shape.name, error)) from None
        speech.say(f"stream {api.shape.name} created: {orjson.dumps(config).decode()}")
        _warn_of(api.shape, Plan(config), speech)
        return None


async def _apply(settings: Settings, wishes: Wishes, shown: Plan) -> None:
    async with open_session(settings) as session:
        api = StreamApi(session, shape_of(settings))
        state = await _info(api)
        if state is None or plan_change(api.shape, state.config, wishes).config != shown.config:
            raise CommandFailed(
                f"stream {api.shape.name} was not changed: somebody else changed it meanwhile; run it again"
            )
        try:
            await api.update(shown.config)
        except UpstreamError as error:
            raise CommandFailed(_explained("changed", api.shape.name, error)) from None


async def _info(api: StreamApi) -> StreamState | None:
    try:
        return await api.info()
    except UpstreamRefused as error:
        if error.code == NO_SUCH_STREAM:
            return None
        raise CommandFailed(_explained("looked at", api.shape.name, error)) from None
    except UpstreamError as error:
        raise CommandFailed(_explained("looked at", api.shape.name, error)) from None


_MENDS = {
    10065: "another stream stores one of these subjects: see natsgate check",
    10074: "give --replicas 1, or run nats-server as a cluster",
    10005: "give fewer --replicas, or add servers to the cluster",
    10047: "give a smaller --max-bytes, or give JetStream more room (max_file_store, the account's limits)",
    10039: "JetStream is not enabled for this account: put jetstream {} into the server's configuration",
    10028: "the account may not store so much: give a smaller --max-bytes, or raise its limits",
}
"""JetStream's error codes that an operator can do something about here."""


def _explained(done: str, name: str, error: UpstreamError) -> str:
    mend = _MENDS.get(error.code, "") if isinstance(error, UpstreamRefused) else ""
    if not mend and "nobody answers" in str(error):
        mend = "JetStream is not enabled: start nats-server with -js"
    return f"stream {name} could not be {done}: {error}" + (f"; {mend}" if mend else "")


def attended() -> bool:
    """Whether a person can answer a question."""
    return sys.stdin.isatty()

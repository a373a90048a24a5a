"""`natsgate provision`: makes the stream of events and the bucket of revoked users, or changes those that are there,
after showing what would change."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.commands.bucket import look_at_bucket, plan_bucket_change
from gateway.commands.finding import Finding
from gateway.commands.nats_session import open_session
from gateway.commands.outcome import CommandFailed
from gateway.commands.stream_admin import create, look_up, update
from gateway.commands.stream_change import Plan, Wishes, new_config, plan_change
from gateway.commands.stream_findings import look_at
from gateway.core.stream import Shape
from gateway.nats_settings import bucket_of, shape_of
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


@dataclass(frozen=True, slots=True)
class _Target:
    """One stream to be provisioned.

    Attributes:
        shape: what it is to be.
        plan: what would change, from a configuration.
        config: of a new one.
        findings: what `natsgate check` says of a configuration.
    """

    shape: Shape
    plan: Callable[[dict[str, Any]], Plan]
    config: Callable[[], dict[str, Any]]
    findings: Callable[[dict[str, Any]], list[Finding]]


def provision(settings: Settings, wishes: Wishes, speech: Speech, *, yes: bool) -> None:
    """Make the stream of events, and the bucket of revoked users, usable and as wished.

    Neither is held while the user thinks: what is applied is compared with what was shown.

    Args:
        wishes: about the stream of events. The bucket has as many copies.
        yes: change what is there without asking.

    Raises:
        NatsNotReached, ConfigError: see `open_session`.
        CommandFailed: the server refuses, nobody agreed to a change, or one of them stays unusable.
    """
    shape, bucket = shape_of(settings), bucket_of(settings)
    made = _provision(
        settings,
        _Target(
            shape,
            lambda config: plan_change(shape, config, wishes),
            lambda: new_config(shape, wishes),
            lambda config: look_at(shape, config),
        ),
        speech,
        yes=yes,
    )
    replicas = int(made.get("num_replicas") or 1)
    _provision(
        settings,
        _Target(
            bucket,
            lambda config: plan_bucket_change(bucket, config, replicas=replicas),
            lambda: bucket.config(replicas=replicas),
            lambda config: look_at_bucket(bucket, config),
        ),
        speech,
        yes=yes,
    )


def _provision(settings: Settings, target: _Target, speech: Speech, *, yes: bool) -> dict[str, Any]:
    """Make or change one stream; returns its configuration."""
    name = target.shape.name
    shown, server = asyncio.run(_created_or_planned(settings, target, speech))
    if shown.created:
        _warn_of(target, shown, speech)
        return shown.config
    if shown.impossible:
        raise CommandFailed("; ".join(shown.impossible))
    for each in shown.regrets:
        speech.warn(each)
    if shown.changes:
        speech.say(f"stream {name} at {server}, to be changed:")
        for change in shown.changes:
            speech.say(f"  {change.line()}")
        if not yes:
            _agree(name, speech)
        server = asyncio.run(_apply(settings, target, shown))
        speech.say(f"stream {name} changed at {server}")
    unusable = target.shape.problems(shown.config)
    if unusable:
        raise CommandFailed("; ".join(unusable))
    if not shown.changes:
        speech.say(f"stream {name} is there and usable at {server}; nothing to do")
    _warn_of(target, shown, speech)
    return shown.config


def _agree(name: str, speech: Speech) -> None:
    if speech.confirm is None:
        raise CommandFailed(
            f"stream {name} was not changed: nobody is here to be asked; run it with --yes to change it"
        )
    if not speech.confirm(f"Change stream {name}?"):
        raise CommandFailed(f"stream {name} was not changed")


def _warn_of(target: _Target, plan: Plan, speech: Speech) -> None:
    for each in target.findings(plan.config):
        if each.level == "problem":
            speech.warn(f"{each.text}; {each.mend}")


async def _created_or_planned(settings: Settings, target: _Target, speech: Speech) -> tuple[Plan, str]:
    """What would change, or what was made; and the server that says so."""
    async with open_session(settings) as session:
        api = StreamApi(session, target.shape)
        state = await look_up(api)
        if state is not None:
            return target.plan(state.config), session.server
        config = target.config()
        await create(api, config)
        speech.say(f"stream {api.shape.name} created at {session.server}: {orjson.dumps(config).decode()}")
        return Plan(config, created=True), session.server


async def _apply(settings: Settings, target: _Target, shown: Plan) -> str:
    """Change it; the server that has."""
    async with open_session(settings) as session:
        api = StreamApi(session, target.shape)
        state = await look_up(api)
        if state is None or target.plan(state.config).config != shown.config:
            raise CommandFailed(
                f"stream {api.shape.name} was not changed: somebody else changed it meanwhile; run it again"
            )
        await update(api, shown.config)
        return session.server


def attended() -> bool:
    """Whether a person can answer a question."""
    return sys.stdin.isatty()

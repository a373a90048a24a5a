"""A stream looked up, created and changed for an operator: what the server refuses is said with what mends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from gateway.commands import overlaps
from gateway.commands.nats_session import NotPermitted
from gateway.commands.outcome import CommandFailed
from gateway.core.errors import UpstreamError, UpstreamRefused
from gateway.core.stream import NO_SUCH_STREAM, Shape, StreamState
from gateway.upstream.api import StreamApi

OVERLAP = 10065
"""JetStream's error code: another stream stores one of the subjects."""

_MENDS = {
    OVERLAP: "another stream stores one of these subjects; allow publishing $JS.API.STREAM.NAMES to have it named",
    10074: "give --replicas 1, or run nats-server as a cluster",
    10005: "give fewer --replicas, or add servers to the cluster",
    10047: "give a smaller --max-bytes, or give JetStream more room (max_file_store, the account's limits)",
    10039: "JetStream is not enabled for this account: put jetstream {} into the server's configuration",
    10028: "the account may not store so much: give a smaller --max-bytes, or raise its limits",
}
"""JetStream's error codes that an operator can do something about here."""

_NOT_PERMITTED = "run this with the operator's login (deploy/nats/README.md)"
"""To allow it would mend it, too, but the gateway's login, which may be the one in use, is not to have these rights."""


async def create(api: StreamApi[Shape], config: dict[str, Any]) -> None:
    """Create a stream.

    Raises:
        CommandFailed: the server refuses; the text has the mend.
    """
    await _apply("created", api, config, api.create)


async def update(api: StreamApi[Shape], config: dict[str, Any]) -> None:
    """Change a stream.

    Raises:
        CommandFailed: the server refuses; the text has the mend.
    """
    await _apply("changed", api, config, api.update)


async def look_up(api: StreamApi[Shape]) -> StreamState | None:
    """What the leader says of a stream; None when there is none.

    Raises:
        CommandFailed: it does not say.
    """
    with explaining("looked at", api.shape.name):
        try:
            return await api.info()
        except UpstreamRefused as error:
            if error.code != NO_SUCH_STREAM:
                raise
            return None


@contextmanager
def explaining(done: str, name: str) -> Iterator[None]:
    """What NATS refuses within is the command's failure.

    Raises:
        CommandFailed: instead of `UpstreamError`; the text says what could not be `done` with the stream, and its mend.
    """
    try:
        yield
    except UpstreamError as error:
        raise CommandFailed(explained(done, name, error)) from None


async def _apply(
    done: str, api: StreamApi[Shape], config: dict[str, Any], request: Callable[[dict[str, Any]], Awaitable[object]]
) -> None:
    try:
        await request(config)
    except UpstreamError as error:
        raise CommandFailed(await _refusal(done, api, config, error)) from None


async def _refusal(done: str, api: StreamApi[Shape], config: dict[str, Any], error: UpstreamError) -> str:
    if isinstance(error, UpstreamRefused) and error.code == OVERLAP:
        # Who is in the way is not in the server's words.
        with suppress(UpstreamError):
            found = await overlaps.overlaps(api.asks, api.shape.name, config["subjects"])
            told = [f"{text}: {mend}" for text, mend in overlaps.explained(found, api.shape, new=done == "created")]
            if told:
                return f"stream {api.shape.name} could not be {done}, since subjects overlap; {'; '.join(told)}"
    return explained(done, api.shape.name, error)


def explained(done: str, name: str, error: UpstreamError) -> str:
    """What could not be done with a stream, why, and what mends it."""
    mend = _MENDS.get(error.code, "") if isinstance(error, UpstreamRefused) else ""
    if isinstance(error, NotPermitted):
        mend = _NOT_PERMITTED
    elif not mend and "nobody answers" in str(error):
        mend = "JetStream is not enabled: start nats-server with -js"
    return f"stream {name} could not be {done}: {error}" + (f"; {mend}" if mend else "")

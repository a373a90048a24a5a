"""Overlaps: other streams that store what belongs to one of ours. In JetStream a subject is one stream's only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson

from gateway.core.stream import Shape, StreamShape, read_answer
from gateway.upstream.api import Asks


async def overlaps(asks: Asks, name: str, patterns: Iterable[str]) -> dict[str, list[str]]:
    """Which other streams store subjects of these patterns.

    Args:
        name: our stream, which is none of them.

    Returns:
        of each its name, and the patterns in question.

    Raises:
        UpstreamError: the server does not tell.
    """
    found: dict[str, list[str]] = {}
    for pattern in patterns:
        answer = await asks.request("$JS.API.STREAM.NAMES", orjson.dumps({"subject": pattern}))
        for other in read_answer(answer).get("streams") or []:
            if other != name:
                found.setdefault(other, []).append(pattern)
    return found


def explained(found: Mapping[str, list[str]], shape: Shape, *, new: bool) -> list[tuple[str, str]]:
    """Of each stream what is wrong, and the mend.

    Args:
        found: what `overlaps` says.
        new: whether our stream is yet to be made.
    """
    return [
        (
            f"stream {other} stores subjects below {' '.join(patterns)}, which belong to {shape.name}",
            _mend(other, shape, adoptable=new and len(found) == 1),
        )
        for other, patterns in found.items()
    ]


def _mend(other: str, shape: Shape, *, adoptable: bool) -> str:
    ways = [f"take them from it (nats stream edit {other} --subjects …)", f"delete it (nats stream rm {other})"]
    if isinstance(shape, StreamShape):
        ways.append("leave those roots out of NATSGATE_ROOTS")
    mend = f"{', '.join(ways[:-1])} or {ways[-1]}"
    if adoptable and isinstance(shape, StreamShape):
        mend = f"set NATSGATE_STREAM={other} where it is to be the stream of events; else {mend}"
    return f"{mend}; then run: {shape.provision}"

"""Coming back: the cursor of a moment, and what a client that returns is told until it is ready."""

from __future__ import annotations

from tests.support.gateway import Gateway
from tests.support.sse import SseClient, SseEvent
from tests.support.stored import sequence_of

NO_LOG = {"LOG_BYTES": 1, "WARM_S": 0}
"""A gateway whose log cannot serve anybody: everything behind the head is read from the stream."""


async def cursor_now(gateway: Gateway, *subjects: str) -> str:
    """The cursor of the present."""
    async with SseClient(gateway.url, *subjects) as sse:
        ready = await sse.ready()
    assert ready.id is not None
    return ready.id


async def up_to_ready(sse: SseClient, *, upto: int = 0) -> tuple[list[SseEvent], SseEvent]:
    """The events before `ready`, which has to count them, and `ready`.

    Args:
        upto: read on behind `ready` to this sequence: what was stored a moment ago may still be on its way.
    """
    events: list[SseEvent] = []
    while (ready := await sse.next_event()).type != "natsgate.ready":
        assert ready.type == "message", ready
        events.append(ready)
    content = ready.json()
    assert content["cursor"] == ready.id
    assert content["snapshot"] == sum(event.id is None for event in events)
    assert content["replayed"] == sum(event.id is not None for event in events)
    while upto and max(sequence_of(event.id) for event in [ready, *events[-1:]] if event.id) < upto:
        events.append(await sse.next_message())
    return events, ready

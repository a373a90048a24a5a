"""Publishing as producers do: plain NATS, one by one, in a burst, or as a flood that loses nothing."""

from __future__ import annotations

from collections.abc import Sequence

from nats.aio.client import Client

_BATCH = 100


async def publish(nc: Client, subject: str, text: str | bytes) -> None:
    """One plain publish that has left this process when it returns."""
    await nc.publish(subject, text if isinstance(text, bytes) else text.encode())
    await nc.flush()


async def burst(nc: Client, subject: str, texts: Sequence[str]) -> None:
    """All of them back to back, so that the server gets them in very few reads."""
    for text in texts:
        await nc.publish(subject, text.encode())
    await nc.flush()


async def flood(nc: Client, subject: str, texts: Sequence[str]) -> None:
    """Many or large ones: plain publishes, with an acknowledgement of the stream after every hundred."""
    stream = nc.jetstream()
    for start in range(0, len(texts), _BATCH):
        *plain, last = texts[start : start + _BATCH]
        for text in plain:
            await nc.publish(subject, text.encode())
        await stream.publish(subject, last.encode(), timeout=20)

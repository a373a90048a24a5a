"""What `natsgate check` says of the stream's configuration, beyond what keeps the gateway from working at all."""

from __future__ import annotations

from typing import Any

from gateway.commands.finding import Finding, note, problem
from gateway.commands.quantities import show_duration, show_size
from gateway.core.stream import DUPLICATE_WINDOW_NS, StreamShape

SHORTEST_AGE_S = 60
FEWEST_BYTES = 2**20


def look_at(shape: StreamShape, config: dict[str, Any]) -> list[Finding]:
    """Every problem and note about a stream's configuration. Empty: it is as `natsgate provision` makes it.

    Args:
        config: as `$JS.API.STREAM.INFO` tells it.
    """
    name = shape.name
    found = []
    for each in shape.problems(config):
        text, _, mend = each.rpartition("; ")
        found.append(problem("stream", text, mend))
    if int(config.get("max_consumers") or -1) <= 0:
        text = f"stream {name} has no max_consumers, so the server's own limit of 1000 holds unseen"
        found.append(problem("stream", text, f"run: {shape.provision}"))
    window, age = int(config.get("duplicate_window") or 0), int(config.get("max_age") or 0)
    wanted = min(DUPLICATE_WINDOW_NS, age or DUPLICATE_WINDOW_NS)
    if window < wanted:
        text = f"stream {name} knows duplicates for {show_duration(window / 1e9)} only: retries may be stored twice"
        found.append(problem("stream", text, f"run: {shape.provision}"))
    if config.get("no_ack"):
        text = f"stream {name} acknowledges nothing: publishers never learn that an event is stored"
        found.append(problem("stream", text, f"run: {shape.provision}"))
    return found + _retention(shape, config) + _notes(shape, config)


def _retention(shape: StreamShape, config: dict[str, Any]) -> list[Finding]:
    name = shape.name
    found = []
    age_s = int(config.get("max_age") or 0) / 1e9
    if 0 < age_s < SHORTEST_AGE_S:
        text = f"stream {name} keeps events for {show_duration(age_s)}, less than a client's reconnect may take"
        found.append(problem("stream", text, f"run: {shape.provision} --max-age 24h"))
    size = int(config.get("max_bytes") or -1)
    if 0 < size < FEWEST_BYTES:
        text = f"stream {name} keeps {show_size(size)} only, less than a client's reconnect may need"
        found.append(problem("stream", text, f"run: {shape.provision} --max-bytes 1GiB"))
    if config.get("sealed"):
        text = f"stream {name} is sealed: nothing can be stored in it"
        found.append(problem("stream", text, f"delete it (nats stream rm {name}) and run: {shape.provision}"))
    return found


def _notes(shape: StreamShape, config: dict[str, Any]) -> list[Finding]:
    name = shape.name
    found = []
    if config.get("storage") == "memory":
        text = f"stream {name} is in memory: its events go when the server ends, and replays are slower"
        mend = f"JetStream cannot change that; nats stream rm {name} and {shape.provision} make a new one on file"
        found.append(note("stream", text, mend))
    if config.get("discard", "old") != "old":
        text = f"stream {name} refuses new events when it is full, instead of dropping the oldest"
        found.append(note("stream", text, f"nats stream edit {name} --discard old, unless that is what you want"))
    per_subject = int(config.get("max_msgs_per_subject") or -1)
    if per_subject > 0:
        text = f"stream {name} keeps {per_subject} events of a subject: clients that come back miss older ones unsaid"
        found.append(note("stream", text, f"nats stream edit {name} --max-msgs-per-subject=-1"))
    return found

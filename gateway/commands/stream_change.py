"""What `natsgate provision` would change on an existing stream: only what natsgate needs, and what was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.commands.quantities import show_duration, show_size
from gateway.core.stream import (
    DEFAULT_MAX_AGE_S,
    DEFAULT_MAX_BYTES,
    DEFAULT_MAX_CONSUMERS,
    DUPLICATE_WINDOW_NS,
    EPOCH_KEY,
    StreamShape,
)
from gateway.core.subjects import covers

_OWN_METADATA = "_nats."
"""What the server itself writes into a stream's metadata begins so."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was given on the command line; None: leave it as it is.

    Attributes:
        replicas: copies in a cluster.
        max_age_s: seconds that events are kept; 0: no limit.
        max_bytes: bytes that are kept; 0: no limit.
        epoch: a new value of the metadata `natsgate_epoch`.
    """

    replicas: int | None = None
    max_age_s: float | None = None
    max_bytes: int | None = None
    epoch: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One setting of the stream that would change."""

    key: str
    before: Any
    after: Any

    def line(self) -> str:
        """`max_age: 24h -> 48h`, for a terminal."""
        return f"{self.key}: {_shown(self.key, self.before)} -> {_shown(self.key, self.after)}"


@dataclass(slots=True)
class Plan:
    """What provisioning an existing stream comes to.

    Attributes:
        config: the whole new configuration.
        created: whether there was none before.
        changes: what is different in it.
        impossible: what natsgate needs and JetStream cannot change, each with its mend.
        regrets: what natsgate would like, can do without, and JetStream cannot change.
    """

    config: dict[str, Any]
    created: bool = False
    changes: list[Change] = field(default_factory=list)
    impossible: list[str] = field(default_factory=list)
    regrets: list[str] = field(default_factory=list)

    def compare(self, name: str, before: dict[str, Any], *, anew: str) -> None:
        """Say what is different from the stream's configuration, and what of that JetStream cannot change.

        Args:
            name: the stream's.
            before: its configuration.
            anew: how it is made anew, the mend of what cannot be changed.
        """
        self.changes = _changes(before, self.config)
        self.impossible = [f"{each}; {anew}" for each in _impossible(name, before)]
        if before.get("storage", "file") != "file":
            what = f"stream {name} is in {before['storage']}, and JetStream cannot move an existing stream to file"
            self.regrets = [f"{what}; {anew}"]


def new_config(shape: StreamShape, wishes: Wishes) -> dict[str, Any]:
    """The configuration of a new stream, as wished."""
    config = shape.config(
        replicas=wishes.replicas or 1,
        max_age_s=DEFAULT_MAX_AGE_S if wishes.max_age_s is None else wishes.max_age_s,
        max_bytes=(DEFAULT_MAX_BYTES if wishes.max_bytes is None else wishes.max_bytes) or -1,
    )
    if wishes.epoch is not None:
        config["metadata"] = {EPOCH_KEY: wishes.epoch}
    return config


def plan_change(shape: StreamShape, config: dict[str, Any], wishes: Wishes) -> Plan:
    """Compare a stream with what natsgate needs of it.

    Args:
        config: the stream's configuration as its leader tells it. Whatever is not named here stays as it is.
    """
    plan = Plan(dict(config))
    for key, value in [*_needed(shape, config), *_wished(config, wishes)]:
        if plan.config.get(key) != value:
            plan.config[key] = value
    age, window = int(plan.config.get("max_age") or 0), int(plan.config.get("duplicate_window") or 0)
    # The window may not be longer than events are kept; shorter than ours, retries would be stored twice.
    wanted = max(window, DUPLICATE_WINDOW_NS)
    plan.config["duplicate_window"] = min(wanted, age) if age else wanted
    anew = f"to have it so, delete the stream with all its events (nats stream rm {shape.name}) and run provision again"
    plan.compare(shape.name, config, anew=anew)
    return plan


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    return [Change(key, before.get(key), value) for key, value in sorted(after.items()) if before.get(key) != value]


def _needed(shape: StreamShape, config: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    subjects = list(config.get("subjects") or [])
    missing = [f"{root}.>" for root in shape.not_stored(subjects)]
    if missing:
        patterns = [tuple(each.split(".")) for each in missing]
        kept = [each for each in subjects if not any(covers(root, tuple(each.split("."))) for root in patterns)]
        yield "subjects", kept + missing
    republish = config.get("republish") or {}
    right = republish.get("dest") == f"{shape.live_prefix}.>" and republish.get("src") in (">", "", None)
    if not right or republish.get("headers_only"):
        yield "republish", {"src": ">", "dest": f"{shape.live_prefix}.>"}
    if not config.get("allow_direct"):
        yield "allow_direct", True
    if config.get("no_ack"):
        yield "no_ack", False
    if config.get("retention") == "interest":
        yield "retention", "limits"
    if int(config.get("max_consumers") or -1) <= 0:
        yield "max_consumers", DEFAULT_MAX_CONSUMERS


def _wished(config: dict[str, Any], wishes: Wishes) -> Iterable[tuple[str, Any]]:
    if wishes.replicas is not None:
        yield "num_replicas", wishes.replicas
    if wishes.max_age_s is not None:
        yield "max_age", int(wishes.max_age_s * 1e9)
    if wishes.max_bytes is not None:
        yield "max_bytes", wishes.max_bytes or -1
    if wishes.epoch is not None:
        yield "metadata", {**(config.get("metadata") or {}), EPOCH_KEY: wishes.epoch}


def _impossible(name: str, config: dict[str, Any]) -> Iterable[str]:
    """What keeps a stream of this configuration from storing what natsgate stores, for good."""
    if config.get("retention") == "workqueue":
        yield f"stream {name} is a work queue, and JetStream cannot make it keep events"
    if config.get("sealed"):
        yield f"stream {name} is sealed, and JetStream cannot open it again"
    if config.get("mirror"):
        yield f"stream {name} is a mirror, which stores no subjects of its own"


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "(not set)"
    if key in ("max_age", "duplicate_window"):
        return show_duration(value / 1e9) if value else "no limit"
    if key == "max_bytes":
        return show_size(value) if value > 0 else "no limit"
    if key == "max_consumers" and value <= 0:
        return "(not set)"
    if key == "subjects":
        return " ".join(value)
    if key == "metadata":
        value = {each: text for each, text in value.items() if not each.startswith(_OWN_METADATA)}
    return orjson.dumps(value).decode()

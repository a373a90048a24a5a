"""The bucket of revoked users, as operators' commands see it: what would be changed on it, what is wrong with it."""

from __future__ import annotations

from typing import Any

from gateway.commands.finding import Finding, note, problem
from gateway.commands.quantities import show_duration
from gateway.commands.stream_change import Plan
from gateway.core.bucket import BucketShape


def plan_bucket_change(shape: BucketShape, config: dict[str, Any], *, replicas: int) -> Plan:
    """Compare a bucket with what natsgate needs of it.

    Args:
        config: its stream's configuration as the leader tells it. Whatever need not change stays as it is.
        replicas: copies that the stream of events has. The bucket is to have as many, or more.
    """
    plan = Plan({**config, **shape.needed(config)})
    if int(config.get("num_replicas") or 1) < replicas:
        plan.config["num_replicas"] = replicas
    anew = f"to have it so, delete it with all revocations (nats stream rm {shape.name}) and run provision again"
    plan.compare(shape.name, config, anew=anew)
    return plan


def look_at_bucket(shape: BucketShape, config: dict[str, Any]) -> list[Finding]:
    """Every problem and note about a bucket's configuration. Empty: it is as `natsgate provision` makes it."""
    found = []
    for each in shape.problems(config):
        text, _, mend = each.rpartition("; ")
        found.append(problem("bucket", text, mend))
    if config.get("storage") == "memory":
        text = f"stream {shape.name} is in memory: revocations go when the server ends"
        mend = f"JetStream cannot change that; nats stream rm {shape.name} and {shape.provision} make a new one on file"
        found.append(note("bucket", text, mend))
    age_s = int(config.get("max_age") or 0) / 1e9
    if age_s:
        text = f"stream {shape.name} keeps revocations for {show_duration(age_s)}: older tokens are taken again then"
        found.append(note("bucket", text, "fine where no token is valid for longer"))
    return found

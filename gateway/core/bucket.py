"""The KV bucket of revoked users: its stream as natsgate makes it, and what is wrong with one that others made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.core.revoked import BUCKET, PREFIX
from gateway.core.stream import DUPLICATE_WINDOW_NS, PROVISION
from gateway.core.subjects import covers

MAX_BYTES = 8 * 2**20
"""The most that the bucket keeps, and with it the table in every replica: some 50,000 users."""

MAX_MSG_BYTES = 1024
"""The most that one entry may have: a time, and the headers of KV clients."""

SUBJECTS = f"{PREFIX}>"


@dataclass(frozen=True, slots=True)
class BucketShape:
    """What natsgate expects of the bucket.

    Attributes:
        name: its stream.
        provision: the command that makes it so, for mends.
    """

    name: str = f"KV_{BUCKET}"
    provision: str = PROVISION

    def config(self, *, replicas: int = 1) -> dict[str, Any]:
        """The configuration for `$JS.API.STREAM.CREATE`: that of any KV bucket (NATS ADR-8), bounded."""
        return {
            "name": self.name,
            "description": "natsgate: users whose tokens are refused, and from when on they count",
            "subjects": [SUBJECTS],
            "storage": "file",
            "retention": "limits",
            "discard": "new",  # a full bucket refuses, and whoever revokes is told; it does not forget the oldest
            "max_msgs_per_subject": 1,
            "max_bytes": MAX_BYTES,
            "max_msg_size": MAX_MSG_BYTES,
            "num_replicas": replicas,
            "duplicate_window": DUPLICATE_WINDOW_NS,
            "allow_direct": True,
            "allow_rollup_hdrs": True,
            "allow_msg_ttl": True,
            "deny_delete": True,
        }

    def needed(self, config: dict[str, Any]) -> dict[str, Any]:
        """What has to be changed in a bucket's configuration: the settings with their new values."""
        found: dict[str, Any] = {}
        if not self._stores(config):
            found["subjects"] = [*(config.get("subjects") or []), SUBJECTS]
        if not config.get("allow_direct"):
            found["allow_direct"] = True
        if int(config.get("max_msgs_per_subject") or -1) < 1:
            found["max_msgs_per_subject"] = 1
        if int(config.get("max_bytes") or -1) < 1:
            found["max_bytes"] = MAX_BYTES
        if config.get("discard", "old") != "new":
            found["discard"] = "new"
        if not config.get("allow_rollup_hdrs"):
            found["allow_rollup_hdrs"] = True
        if config.get("no_ack"):
            found["no_ack"] = False
        if config.get("retention") == "interest":
            found["retention"] = "limits"
        return found

    def problems(self, config: dict[str, Any]) -> list[str]:
        """What keeps revoked users from being refused, or the table from being bounded; each with its mend."""
        mend = f"run: {self.provision}"
        found = []
        needed = self.needed(config)
        if "subjects" in needed:
            found.append(f"stream {self.name} does not store {SUBJECTS}; {mend}")
        if "allow_direct" in needed:
            found.append(f"stream {self.name} does not allow direct gets; {mend}")
        if "max_bytes" in needed:
            found.append(f"stream {self.name} has no max_bytes, so the table in every replica has no limit; {mend}")
        if "max_msgs_per_subject" in needed or "allow_rollup_hdrs" in needed:
            found.append(f"stream {self.name} is not that of a KV bucket; {mend}")
        if "discard" in needed:
            found.append(f"stream {self.name} forgets the oldest revocations when it is full; {mend}")
        if "no_ack" in needed or "retention" in needed:
            found.append(f"stream {self.name} does not keep, or does not acknowledge, what is written; {mend}")
        return found

    def _stores(self, config: dict[str, Any]) -> bool:
        pattern = tuple(SUBJECTS.split("."))
        return any(covers(tuple(each.split(".")), pattern) for each in config.get("subjects") or [])


BUCKET_SHAPE = BucketShape()

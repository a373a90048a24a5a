"""The stream: its configuration as natsgate needs it, what its leader says of it, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import orjson

from gateway.core.cursor import incarnation_of
from gateway.core.errors import UpstreamRefused
from gateway.core.subjects import covers

EPOCH_KEY = "natsgate_epoch"
DUPLICATE_WINDOW_NS = 120 * 10**9
DEFAULT_MAX_AGE_S = 24 * 3600.0
DEFAULT_MAX_BYTES = 2**30
DEFAULT_MAX_CONSUMERS = 1000
PROVISION = "natsgate provision"


class Shape(Protocol):
    """What natsgate expects of a stream."""

    @property
    def name(self) -> str:
        """The stream."""

    @property
    def provision(self) -> str:
        """The command that makes it so."""

    def problems(self, config: dict[str, Any]) -> list[str]:
        """What keeps natsgate from working on a stream of this configuration; each with its mend. Empty: it is
        usable."""


@dataclass(frozen=True, slots=True)
class StreamShape:
    """What the gateway expects of the stream.

    Attributes:
        name: the stream.
        roots: the first tokens it stores.
        live_prefix: what republished subjects begin with.
        provision: the command that makes the stream so, for mends.
    """

    name: str
    roots: tuple[str, ...]
    live_prefix: str
    provision: str = PROVISION

    def config(
        self, *, replicas: int = 1, max_age_s: float = DEFAULT_MAX_AGE_S, max_bytes: int = DEFAULT_MAX_BYTES
    ) -> dict[str, Any]:
        """The configuration for `$JS.API.STREAM.CREATE`."""
        return {
            "name": self.name,
            "subjects": [f"{root}.>" for root in self.roots],
            "storage": "file",  # scans in memory storage are slower
            "retention": "limits",
            "discard": "old",
            "max_age": int(max_age_s * 10**9),
            "max_bytes": max_bytes,
            "max_consumers": DEFAULT_MAX_CONSUMERS,  # nats-server 2.15 refuses the 1,001st when it is not said
            "num_replicas": replicas,
            "duplicate_window": min(DUPLICATE_WINDOW_NS, int(max_age_s * 10**9) or DUPLICATE_WINDOW_NS),
            "allow_direct": True,
            "republish": {"src": ">", "dest": f"{self.live_prefix}.>"},
        }

    def not_stored(self, subjects: list[str]) -> list[str]:
        """The roots that a stream with these subjects does not store whole."""
        patterns = [tuple(each.split(".")) for each in subjects]
        return [root for root in self.roots if not any(covers(each, (root, ">")) for each in patterns)]

    def problems(self, config: dict[str, Any]) -> list[str]:
        """What keeps the gateway from working on this stream; each with its mend. Empty: it is usable."""
        found = []
        subjects = config.get("subjects") or []
        missing = self.not_stored(subjects)
        if missing:
            found.append(
                f"stream {self.name} does not store {' '.join(f'{root}.>' for root in missing)}; "
                f"run: {self.provision} (or leave those out of NATSGATE_ROOTS)"
            )
        republish = config.get("republish") or {}
        wanted = f"{self.live_prefix}.>"
        if republish.get("dest") != wanted or republish.get("src") not in (">", "", None):
            found.append(
                f"stream {self.name} does not republish everything to {wanted}; run: {self.provision} "
                "(or set NATSGATE_LIVE_PREFIX to its prefix)"
            )
        elif republish.get("headers_only"):
            found.append(f"stream {self.name} republishes headers only; run: {self.provision}")
        if config.get("retention", "limits") != "limits":
            found.append(
                f"stream {self.name} has retention {config['retention']}: events go before clients have come back for "
                f"them; run: {self.provision}"
            )
        if not config.get("allow_direct"):
            found.append(f"stream {self.name} does not allow direct gets; run: {self.provision}")
        return found


@dataclass(frozen=True, slots=True)
class StreamState:
    """What the stream's leader says.

    Attributes:
        incarnation: which life of the stream it is.
        first, last: the first and last stored sequence. An empty stream has first = last + 1.
        messages, bytes: what it holds.
        subjects: how many different ones.
        last_time: when the last one was stored.
        config: its configuration.
    """

    incarnation: str
    first: int
    last: int
    messages: int
    bytes: int
    subjects: int
    last_time: datetime
    config: dict[str, Any]


def read_info(answer: bytes) -> StreamState:
    """Read the answer to `$JS.API.STREAM.INFO`, `CREATE` or `UPDATE`.

    Raises:
        UpstreamRefused: the server answered with an error (10059: there is no such stream), or with nonsense.
    """
    content = read_answer(answer)
    try:
        config, state = content["config"], content["state"]
        epoch = (config.get("metadata") or {}).get(EPOCH_KEY, "")
        return StreamState(
            incarnation=incarnation_of(content["created"], epoch),
            first=int(state["first_seq"]),
            last=int(state["last_seq"]),
            messages=int(state["messages"]),
            bytes=int(state["bytes"]),
            subjects=int(state.get("num_subjects", 0)),  # left out where there is none
            last_time=datetime.fromisoformat(state["last_ts"]),
            config=config,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UpstreamRefused(0, f"the stream's info lacks {error}") from None


def read_answer(answer: bytes) -> dict[str, Any]:
    """Read an answer of the JetStream API.

    Raises:
        UpstreamRefused: it is an error, or no JSON object.
    """
    try:
        content = orjson.loads(answer)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise UpstreamRefused(0, "the JetStream API answered with something that is no JSON object")
    error = content.get("error")
    if isinstance(error, dict):
        raise UpstreamRefused(
            int(error.get("err_code") or error.get("code") or 0),
            str(error.get("description", "unknown error")),
        )
    return content


NO_SUCH_STREAM = 10059
JETSTREAM_OFF = 10039

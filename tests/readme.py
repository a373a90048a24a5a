"""Writes the tables of gateway/README.md from the code: `python -m tests.readme`."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from gateway.auth.jwks import Fetched
from gateway.core.closing import Closing
from gateway.core.control import GapReason
from gateway.core.dialect import Transport
from gateway.core.envelope import DropReason
from gateway.core.errors import AuthFailure, Rejection
from gateway.core.intake import FOUND_BY
from gateway.given import PREFIX
from gateway.reload import LIVE
from gateway.settings import Settings
from gateway.transports.room import Published, Way
from gateway.upstream.ranges import ReplayOutcome

README = Path(__file__).parent.parent / "gateway" / "README.md"


def blocks(language: str, of: Path = README) -> list[str]:
    """The examples of a page that are marked so."""
    page = of.read_text("utf-8")
    return re.findall(rf"^```{re.escape(language)}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def settings_table() -> str:
    """All settings, in the order of the code."""
    rows = ["| name | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        if name == "route":
            continue
        rows.append(f"| `{name.upper()}` | {_default(name)} | {field.description} |")
    return "\n".join(rows)


def _default(name: str) -> str:
    if name == "replica":
        return "host name"
    value = Settings.model_fields[name].default
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if name.endswith("_bytes") and isinstance(value, int):
        return f"`{value // 2**20} MiB`" if value % 2**20 == 0 else f"`{value // 2**10} KiB`"
    return f"`{','.join(value) if isinstance(value, tuple) else value}`"


def live_settings() -> str:
    """The settings that a reload takes over, in the order of the code."""
    names = ["the routes" if name == "route" else f"`{name.upper()}`" for name in Settings.model_fields if name in LIVE]
    return textwrap.fill(", ".join(names) + ".", 120)


def closing_table() -> str:
    """All reasons, with their WebSocket close codes."""
    rows = ["| reason | WebSocket code | come back |", "| --- | --- | --- |"]
    for why in Closing:
        code = why.code or "(metric and log only)"
        rows.append(f"| `{why.reason}` | {code} | {_comes_back(why)} |")
    return "\n".join(rows)


def _comes_back(why: Closing) -> str:
    if why in (Closing.TOKEN_EXPIRED, Closing.UNAUTHORIZED):
        return "with a new token"
    return "yes" if why.reconnect else "no"


TRANSPORTS = get_args(Transport)
REASONS = tuple(why.reason for why in Closing)

CLOSED: Mapping[str, Sequence[Mapping[str, tuple[str, ...]]]] = {
    "natsgate_connections_closed_total": [{"transport": TRANSPORTS, "reason": REASONS}],
    "natsgate_requests_rejected_total": [{"reason": get_args(Rejection)}],
    "natsgate_auth_failures_total": [{"reason": get_args(AuthFailure)}],
    "natsgate_jwks_fetches_total": [{"outcome": get_args(Fetched)}],
    "natsgate_publishes_total": [{"via": get_args(Way), "outcome": get_args(Published)}],
    "natsgate_events_dropped_total": [{"reason": get_args(DropReason)}],
    "natsgate_deliveries_total": [{"transport": TRANSPORTS}],
    "natsgate_sent_bytes_total": [{"transport": TRANSPORTS}],
    "natsgate_replayed_events_total": [{"source": ("log", "stream")}],
    "natsgate_replays_total": [
        {"source": ("log",), "outcome": ("done",)},
        {"source": ("stream",), "outcome": get_args(ReplayOutcome)},
    ],
    "natsgate_gaps_total": [{"reason": get_args(GapReason)}],
    "natsgate_holes_repaired_total": [{"found_by": FOUND_BY}],
}
"""What the labels of counters can be, where that is not for the settings to say (routes, roots): all combinations of a
group."""


def labels_table() -> str:
    """The closed sets."""
    rows = ["| counter | its labels |", "| --- | --- |"]
    for metric, groups in CLOSED.items():
        shown = [", ".join([f"{label} {_any_of(values)}" for label, values in group.items()]) for group in groups]
        rows.append(f"| `{metric}` | {'; '.join(shown)} |")
    return "\n".join(rows)


def _any_of(values: tuple[str, ...]) -> str:
    if values is REASONS:
        return "as in [its table](#why-a-connection-ends)"
    return " ".join([f"`{value}`" for value in values])


def written(text: str) -> str:
    """The page with its tables written anew."""
    parts = {
        "settings": settings_table(),
        "live settings": live_settings(),
        "closing reasons": closing_table(),
        "labels": labels_table(),
    }
    for name, table in parts.items():
        block = re.compile(rf"(<!-- {name}: written by make docs -->\n).*?(<!-- end -->)", re.DOTALL)
        assert block.search(text), f"no place for {name}"
        text = block.sub(lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}", text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    README.write_text(written(README.read_text("utf-8")), "utf-8")
    print(f"{README.name} written; settings are {PREFIX}*")

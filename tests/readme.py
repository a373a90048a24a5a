"""Writes the tables of gateway/README.md from the code: `python -m tests.readme`."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from gateway.core.closing import Closing
from gateway.reload import LIVE
from gateway.settings import PREFIX, Settings

README = Path(__file__).parent.parent / "gateway" / "README.md"


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
        rows.append(f"| `{why.reason}` | {code} | {'yes' if why.reconnect else 'no'} |")
    return "\n".join(rows)


def written(text: str) -> str:
    """The page with its tables written anew."""
    parts = {"settings": settings_table(), "live settings": live_settings(), "closing reasons": closing_table()}
    for name, table in parts.items():
        block = re.compile(rf"(<!-- {name}: written by make docs -->\n).*?(<!-- end -->)", re.DOTALL)
        assert block.search(text), f"no place for {name}"
        text = block.sub(lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}", text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    README.write_text(written(README.read_text("utf-8")), "utf-8")
    print(f"{README.name} written; settings are {PREFIX}*")

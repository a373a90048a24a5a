"""Events as lines of a terminal, or as JSON lines for the next program."""

from __future__ import annotations

import time
from typing import Any

import click
import orjson

from gateway.core.sse_reader import UNNAMED, SseEvent


def json_line(event: SseEvent) -> str:
    """`{"cursor":…,"type":…,"event":…}`: cursor null in a snapshot; type the event's own, else what the gateway calls
    it, which is its subject's tail, null where it has no name; the event's own text is passed on as it is."""
    head = orjson.dumps({"cursor": event.id, "type": _type_of(event, _object(event.data))}).decode()
    return f'{head[:-1]},"event":{_one_line(event.data)}}}'


def console_line(event: SseEvent, *, colours: bool) -> str:
    """`12:03:44.120 task.progress {…}`, the time being the event's own `ts`, or now. Nothing in an event can move
    the terminal's cursor or colours."""
    content = _object(event.data)
    stamp = content.get("ts")
    valid = isinstance(stamp, int) and not isinstance(stamp, bool) and 0 <= stamp < 10**14
    millis = stamp if valid and isinstance(stamp, int) else time.time_ns() // 1_000_000
    clock = f"{time.strftime('%H:%M:%S', time.localtime(millis // 1000))}.{millis % 1000:03d}"
    name = printable(_type_of(event, content) or "-")
    data = printable(_one_line(event.data))
    if not colours:
        return f"{clock} {name} {data}"
    mark = click.style(clock, dim=True)
    return f"{mark} {click.style(name, fg='cyan', bold=True)} {data}"


def printable(text: str) -> str:
    """The text with everything that a terminal would act on written as `\\uXXXX`, which JSON reads as the same."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    # json's own escape: a surrogate pair beyond the first 65,536 characters.
    code = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{code[at : at + 4]}" for at in range(0, len(code), 4))


def _one_line(text: str) -> str:
    return text.replace("\n", " ")


def _object(text: str) -> dict[str, Any]:
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}


def _type_of(event: SseEvent, content: dict[str, Any]) -> str | None:
    own = content.get("type")
    if isinstance(own, str) and own:
        return own
    return None if event.name == UNNAMED else event.name

"""A complaint: what validation found wrong with a setting, in the words of who wrote it.

pydantic's own words speak of inputs, strings and tuples. Here the value is shown, then what would be right, with the
unit that the setting's name ends in. Values with a grammar of their own say so themselves, in `gateway.values`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from gateway.core.routes import RouteSpec, is_name
from gateway.given import PREFIX, meant

MOST_SHOWN_CHARS, MOST_SHOWN_BITS = 60, 200
_OWN_WORDS = "Value error, "
_NUMBERS = {
    "float_parsing", "float_type", "finite_number", "int_parsing", "int_type", "int_from_float", "int_parsing_size",
}  # fmt: skip
_TABLES = {"model_type", "model_attributes_type", "dict_type"}


def complaint(error: Mapping[str, Any], *, secret: bool, default: object = None) -> str:
    """One sentence: what is wrong with a value, and what would be right.

    Args:
        error: one of `ValidationError.errors()`.
        secret: whether the value is never to be shown.
        default: the setting's; a number serves as an example.
    """
    value = error["input"]
    if isinstance(value, bool):
        value = str(value).lower()  # as TOML has it
    shown = f'"{value!s:.{MOST_SHOWN_CHARS}}"' if isinstance(value, str | float) and not secret else "it"
    if isinstance(value, int) and not secret and value.bit_length() < MOST_SHOWN_BITS:  # a longer one cannot be shown
        shown = f'"{value}"'
    kind, text = error["type"], re.sub(r"\s+", " ", error["msg"])
    if text.startswith(_OWN_WORDS):
        text = text.removeprefix(_OWN_WORDS)
        # Values with words of their own often quote themselves.
        return text if shown == "it" or repr(value) in text else f"{text} (it is {shown})"
    return _in_words(kind, value, shown, error.get("ctx") or {}, _quantity(error, default)) or text


def _in_words(kind: str, value: object, shown: str, limits: Mapping[str, Any], quantity: tuple[str, str]) -> str:
    what, example = quantity
    if value == "" and kind != "literal_error":
        return f"it is empty; leave it out, or give {_wanted(kind, what)}{example}"
    if kind in _NUMBERS:
        return f"{shown} is not {what}; give one{example or ', in digits'}"
    if kind in _TABLES:
        return "it is no table; give one, such as [[route]]"
    match kind:
        case "greater_than_equal":
            return f"{shown} is too small; give {what}, {limits['ge']:g} or more"
        case "greater_than":
            return f"{shown} is too small; give {what} above {limits['gt']:g}"
        case "less_than_equal":
            return f"{shown} is too large; give {what}, {limits['le']:g} at most"
        case "bool_parsing" | "bool_type":
            return f"{shown} is neither true nor false; give one of them"
        case "literal_error":
            return f"{shown} is not known; give {limits['expected'].replace(chr(39), '')}"
        case "string_type":
            return f"{shown} is no text; put it into quotes"
        case "string_unicode":
            return "it is not UTF-8"
        case "string_too_long":
            return f"it is longer than {limits['max_length']} characters"
        case "too_short":
            return "it is empty; give at least one"
        case "tuple_type":
            return f"{shown} is no list; give one, in square brackets"
        case "missing":
            return "it is missing; give it"
        case "extra_forbidden":
            return "there is no such key"
    return ""


def _wanted(kind: str, what: str) -> str:
    if kind in _NUMBERS:
        return what
    return {"tuple_type": "one or more, separated by commas", "bool_parsing": "true or false"}.get(kind, "a text")


def _quantity(error: Mapping[str, Any], default: object) -> tuple[str, str]:
    """What a number of this setting counts, and an example of one."""
    name = str(error["loc"][-1]) if error["loc"] else ""
    if name.endswith("_bytes"):
        return "a number of bytes", ", such as 65536 or 64MiB"
    example = f", such as {default:g}" if isinstance(default, int | float) and default else ""
    if name.endswith("_s"):
        return "a number of seconds", example
    return "a whole number" if error["type"].startswith("int_") else "a number", example


def named(setting: str, spelled: Mapping[str, str]) -> str:
    """A setting as its author named it."""
    return spelled.get(setting, PREFIX + setting.upper())


def line(
    error: Mapping[str, Any],
    spelled: Mapping[str, str],
    values: Mapping[str, Any],
    fields: Mapping[str, object],
    *,
    secrets: Collection[str],
) -> str:
    """The line about one wrong value: where it stands, as its author wrote it, and what is wrong with it.

    Args:
        error: one of `ValidationError.errors()`.
        spelled: how each setting that was given is named where it was.
        values: all that was given.
        fields: the settings there are, with their defaults.
        secrets: those whose values are never shown.
    """
    name = str(error["loc"][0]) if error["loc"] else ""
    # What comes from a file is a secret, if not of this setting: the wrong file may be named.
    secret = name not in fields or name in secrets or named(name, spelled).endswith("_FILE")
    text = complaint(error, secret=secret, default=fields.get(name))
    location = [str(part) for part in error["loc"]]
    if not location:
        location, _, text = ([text.partition(": ")[0]], "", text.partition(": ")[2])
    key = location[0]
    if error["type"] == "extra_forbidden" and key == "route":
        text += meant(location[-1], RouteSpec.model_fields)
    rest = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in location[1:])
    if key == "route" and len(location) > 1 and (name := _route_name(values, int(location[1]))):
        within = rest.removeprefix(f"[{location[1]}]").removeprefix(".")
        rest = f": {name}: {within}" if within else f": {name}"
    return f"{named(key, spelled)}{rest}: {text}"


def _route_name(values: Mapping[str, Any], number: int) -> str:
    """What a route calls itself, which says more than its number; empty where that is no name."""
    route = values["route"][number]
    name = route.get("name") if isinstance(route, Mapping) else None
    return str(name) if is_name(name) else ""

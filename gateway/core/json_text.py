"""JSON as text (RFC 8259): the parts of a document as they stand there, for those who pass them on unread."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

_SPACE = re.compile(r"[ \t\n\r]*")


def no_constant(name: str) -> NoReturn:
    """What Python's parser is to make of NaN and Infinity, which RFC 8259 does not know."""
    raise ValueError(f"{name} is no JSON")


# Numbers stay text: their size must not matter, and nobody computes with them here.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=no_constant)


def members(text: str) -> dict[str, str]:
    """The members of an object: names, and the texts of the values. Of equal names the last one counts.

    Raises:
        ValueError: it is no JSON object.
        RecursionError: it is nested too deep to be read.
    """
    found: dict[str, str] = {}
    at = _begin(text, "{")
    while at is not None:
        name, at = _DECODER.raw_decode(text, at)
        if not isinstance(name, str):
            raise ValueError("a name is to be a string")
        begin = _skip(text, _expect(text, _skip(text, at), ":"))
        _, end = _DECODER.raw_decode(text, begin)
        found[name] = text[begin:end]
        at = _next(text, end, "}")
    return found


def elements(text: str) -> Iterator[tuple[Any, str]]:
    """The elements of an array: what each means (numbers as text), and its text.

    Raises:
        ValueError: it is no JSON array.
        RecursionError: it is nested too deep to be read.
    """
    at = _begin(text, "[")
    while at is not None:
        value, end = _DECODER.raw_decode(text, at)
        yield value, text[at:end]
        at = _next(text, end, "]")


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None
    return space.end()


def _expect(text: str, at: int, sign: str) -> int:
    if text[at : at + 1] != sign:
        raise ValueError(f"there is no {sign} at character {at}")
    return at + 1


def _begin(text: str, sign: str) -> int | None:
    """Where the first part begins; None when there is none."""
    at = _skip(text, _expect(text, _skip(text, 0), sign))
    closing = "}" if sign == "{" else "]"
    if text[at : at + 1] == closing:
        _require_end(text, at + 1)
        return None
    return at


def _next(text: str, at: int, closing: str) -> int | None:
    """Where the part behind the one that ends here begins; None when it was the last one."""
    at = _skip(text, at)
    if text[at : at + 1] == closing:
        _require_end(text, at + 1)
        return None
    return _skip(text, _expect(text, at, ","))


def _require_end(text: str, at: int) -> None:
    if _skip(text, at) != len(text):
        raise ValueError("something stands behind the end")

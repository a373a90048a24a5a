"""Filters for tests of what is done with them: also such as no client may ask for."""

from __future__ import annotations

from gateway.core.subjects import Filter


def filter_of(text: str) -> Filter:
    """A text as a filter, taken as it is."""
    return Filter(text, tuple(text.split(".")))

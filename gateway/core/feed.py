"""Feeds: the sets of filters that connections asked for. Equal sets are one `Feed`, however many readers it has.

To a client its feed is what its connection or subscription asked for, with a cursor of its own (README.md, What is
promised). Here that is a `Reader`; a `Feed` is the part that all readers share who asked for the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import orjson

from gateway.core.index import FilterTree
from gateway.core.subjects import Filter, feed_name

if TYPE_CHECKING:
    from gateway.core.dialect import Dialect
    from gateway.core.reader import Reader


class Audience:
    """The live readers of a feed in one dialect, and what all of them were written since the first one came. A reader
    takes the difference between its coming and its going: counting costs nothing per delivery.

    Attributes:
        readers: who they are.
        events, bytes: what was written to each of them, had it been there all the time.
    """

    __slots__ = ("bytes", "events", "readers")

    def __init__(self) -> None:
        self.readers: set[Reader] = set()
        self.events = 0
        self.bytes = 0

    def join(self, reader: Reader) -> None:
        """Write to it from now on."""
        self.readers.add(reader)
        reader.events -= self.events
        reader.bytes -= self.bytes

    def leave(self, reader: Reader) -> None:
        """Write to it no more; its counts are right again."""
        self.readers.discard(reader)
        reader.events += self.events
        reader.bytes += self.bytes


class Feed:
    """A set of filters and the readers that are up to date with it.

    Attributes:
        name: the filters, sorted, joined by commas: the `feed` of WebSocket frames.
        head: the first part of its WebSocket event frames, up to the event's own part.
        live: by dialect, the readers that get each new event at once. Fan-out touches nobody else.
        delivered_at: when something was last written to the live readers (monotonic seconds).
        readers: how many readers hold the feed, live or not.
    """

    __slots__ = ("delivered_at", "filters", "head", "live", "name", "name_json", "readers")

    def __init__(self, name: str, filters: tuple[Filter, ...]) -> None:
        self.name = name
        self.filters = filters
        self.name_json = orjson.dumps(name)
        self.head = b'{"op":"event","feed":%b,' % self.name_json
        self.live: dict[Dialect, Audience] = {}
        self.delivered_at = 0.0
        self.readers = 0


class Feeds:
    """All feeds that somebody holds."""

    def __init__(self) -> None:
        self.tree = FilterTree()
        self._by_name: dict[str, Feed] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def acquire(self, filters: Iterable[Filter]) -> Feed:
        """The feed of these filters, held once more; `release` it."""
        unique = {each.text: each for each in filters}
        name = feed_name(unique.values())
        feed = self._by_name.get(name)
        if feed is None:
            feed = self._by_name[name] = Feed(name, tuple(unique.values()))
            self.tree.add(feed)
        feed.readers += 1
        return feed

    def release(self, feed: Feed) -> None:
        feed.readers -= 1
        if feed.readers == 0:
            self.tree.remove(feed)
            del self._by_name[feed.name]

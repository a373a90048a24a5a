"""The log's index by subject, and the tree of filters: which events a feed wants, which feeds an event has."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.core.event import Event
    from gateway.core.feed import Feed

_SEQ = attrgetter("seq")
_COMPACT_AT = 64

TOPIC_BYTES, TOKEN_BYTES = 500, 350
"""What a distinct subject costs beside its text: the topic, and a branch of the index for each of its tokens
(CPython 3.11, 64 bit, rounded up; shared branches are counted for each)."""


class Run:
    """Events in ascending order of sequence: appended at the right, evicted at the left, searched by sequence."""

    __slots__ = ("_events", "_start")

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._start = 0

    def __len__(self) -> int:
        return len(self._events) - self._start

    @property
    def empty(self) -> bool:
        return self._start == len(self._events)

    def append(self, event: Event) -> None:
        self._events.append(event)

    def popleft(self) -> Event:
        """Evict the oldest. Amortised constant time: the list is cut when half of it is dead."""
        events, start = self._events, self._start
        event = events[start]
        start += 1
        if start == len(events) or (start >= _COMPACT_AT and start * 2 >= len(events)):
            del events[:start]
            start = 0
        self._start = start
        return event

    def count_after(self, sequence: int) -> int:
        """How many events have a higher sequence."""
        return len(self._events) - bisect_right(self._events, sequence, lo=self._start, key=_SEQ)

    def after(self, sequence: int, most: int) -> list[Event]:
        """At most `most` events with a higher sequence, the oldest first."""
        begin = bisect_right(self._events, sequence, lo=self._start, key=_SEQ)
        return self._events[begin : begin + most]


class Topic:
    """One exact subject that is in the log.

    Attributes:
        wire: the subject's bytes on the wire.
        subject: the same as text for readers; what is not UTF-8 in it (NATS allows that) is shown as U+FFFD.
        tokens: its tokens, without that loss.
        run: its events in the log.
        cost: what it holds in memory, in bytes.
        feeds: the feeds that want it, as of `version` of the filter tree.
    """

    __slots__ = ("cost", "feeds", "run", "subject", "tokens", "version", "wire")

    def __init__(self, wire: bytes) -> None:
        self.wire = wire
        self.subject = wire.decode("utf-8", "replace")
        self.tokens = tuple(wire.decode("utf-8", "surrogateescape").split("."))
        self.cost = TOPIC_BYTES + TOKEN_BYTES * len(self.tokens) + 4 * len(wire)
        self.run = Run()
        self.feeds: tuple[Feed, ...] = ()
        self.version = -1


class _Branch:
    __slots__ = ("children", "topic")

    def __init__(self) -> None:
        self.children: dict[str, _Branch] = {}
        self.topic: Topic | None = None


class SubjectIndex:
    """Topics by subject: exactly, from the bytes on the wire, and by filter."""

    def __init__(self) -> None:
        self._by_wire: dict[bytes, Topic] = {}
        self._root = _Branch()

    def __len__(self) -> int:
        return len(self._by_wire)

    def topic(self, wire: bytes) -> Topic:
        """The topic of a subject as it came over the wire; made on first sight."""
        topic = self._by_wire.get(wire)
        if topic is None:
            topic = self._by_wire[wire] = Topic(wire)
            branch = self._root
            for token in topic.tokens:
                branch = branch.children.setdefault(token, _Branch())
            branch.topic = topic
        return topic

    def prune(self, topic: Topic) -> None:
        """Forget a topic that has no events left."""
        del self._by_wire[topic.wire]
        path: list[tuple[_Branch, str]] = []
        branch = self._root
        for token in topic.tokens:
            path.append((branch, token))
            branch = branch.children[token]
        branch.topic = None
        for parent, token in reversed(path):
            child = parent.children[token]
            if child.children or child.topic is not None:
                break
            del parent.children[token]

    def select(self, tokens: tuple[str, ...], most: int) -> list[Topic] | None:
        """The topics that a filter selects, or None when more than `most` places had to be looked at."""
        found: list[Topic] = []
        for visited, branch in enumerate(self._walk(self._root, tokens, 0)):
            if visited >= most:
                return None
            if branch.topic is not None:
                found.append(branch.topic)
        return found

    def _walk(self, branch: _Branch, tokens: tuple[str, ...], depth: int) -> Iterator[_Branch]:
        if depth == len(tokens):
            yield branch
            return
        token = tokens[depth]
        if token == ">":
            stack = list(branch.children.values())
            while stack:
                child = stack.pop()
                yield child
                stack.extend(child.children.values())
        elif token == "*":
            for child in branch.children.values():
                yield from self._walk(child, tokens, depth + 1)
        elif (child_or_none := branch.children.get(token)) is not None:
            yield from self._walk(child_or_none, tokens, depth + 1)


class _Node:
    __slots__ = ("children", "ends", "tails")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.ends: set[Feed] = set()
        self.tails: set[Feed] = set()

    @property
    def empty(self) -> bool:
        return not (self.children or self.ends or self.tails)


class FilterTree:
    """All filters of all feeds; answers which feeds want a subject.

    Attributes:
        version: goes up with every change, so that answers kept elsewhere know when they are stale.
    """

    def __init__(self) -> None:
        self.version = 0
        self._root = _Node()

    def add(self, feed: Feed) -> None:
        for each in feed.filters:
            node = self._root
            for token in each.tokens:
                if token == ">":
                    node.tails.add(feed)
                    break
                node = node.children.setdefault(token, _Node())
            else:
                node.ends.add(feed)
        self.version += 1

    def remove(self, feed: Feed) -> None:
        for each in feed.filters:
            path: list[tuple[_Node, str]] = []
            node = self._root
            for token in each.tokens:
                if token == ">":
                    node.tails.discard(feed)
                    break
                path.append((node, token))
                node = node.children[token]
            else:
                node.ends.discard(feed)
            for parent, token in reversed(path):
                if not parent.children[token].empty:
                    break
                del parent.children[token]
        self.version += 1

    def feeds_of(self, topic: Topic) -> tuple[Feed, ...]:
        """The feeds that want a topic, each once however many of its filters do."""
        if topic.version != self.version:
            found: set[Feed] = set()
            self._match(self._root, topic.tokens, 0, found)
            topic.feeds = tuple(found)
            topic.version = self.version
        return topic.feeds

    def _match(self, node: _Node, tokens: tuple[str, ...], depth: int, found: set[Feed]) -> None:
        if depth == len(tokens):
            found |= node.ends
            return
        found |= node.tails
        child = node.children.get(tokens[depth])
        if child is not None:
            self._match(child, tokens, depth + 1, found)
        child = node.children.get("*")
        if child is not None:
            self._match(child, tokens, depth + 1, found)

"""The log gives every feed exactly its events in order, and stays within its bytes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.feed import Feed, Feeds
from gateway.core.log import Log
from gateway.core.subjects import Filter
from tests.support.filters import filter_of

ROOTS = ("repo", "task")
tokens = st.sampled_from(["a", "b", "c"])
subjects = st.builds(
    lambda root, rest: ".".join([root, *rest]), st.sampled_from(ROOTS), st.lists(tokens, min_size=1, max_size=3)
)
patterns = st.builds(
    lambda root, rest, tail: ".".join([root, *rest, *tail]),
    st.sampled_from(ROOTS),
    st.lists(st.sampled_from(["a", "b", "*"]), max_size=2),
    st.sampled_from([["a"], ["*"], [">"]]),
)


def filters_of(texts: list[str]) -> list[Filter]:
    return [filter_of(text) for text in texts]


def wanted(filters: list[Filter], subject: str) -> bool:
    """The obvious way: token by token, as the NATS documentation defines wildcards."""

    def one(pattern: list[str], given: list[str]) -> bool:
        if not pattern or not given:
            return not pattern and not given
        if pattern[0] == ">":
            return True
        return pattern[0] in ("*", given[0]) and one(pattern[1:], given[1:])

    return any(one(each.text.split("."), subject.split(".")) for each in filters)


def read_all(log: Log, feed: Feed, after: int, limit_bytes: int) -> list[int]:
    found: list[int] = []
    while after < log.head:
        taken = log.read(feed, after, limit_bytes)
        assert taken.upto > after
        found += [event.seq for event in taken.events]
        after = taken.upto
    return found


@given(st.lists(subjects, max_size=60), st.lists(patterns, min_size=1, max_size=3), st.data())
def test_reading_forward_finds_what_an_obvious_search_finds(
    stored: list[str], asked: list[str], data: st.DataObject
) -> None:
    """From any position, with any slice size, a feed reads exactly the events that its filters select, in order."""
    feeds = Feeds()
    log = Log(2**20, feeds.tree)
    filters = filters_of(asked)
    feed = feeds.acquire(filters)
    log.reset("x", 10)
    for number, subject in enumerate(stored):
        log.append(11 + number, subject.encode(), b"{}")
    after = data.draw(st.integers(10, 10 + len(stored)))
    limit = data.draw(st.integers(1, 64))

    expected = [11 + n for n, subject in enumerate(stored) if 11 + n > after and wanted(filters, subject)]

    assert read_all(log, feed, after, limit) == expected


@given(st.lists(subjects, min_size=1, max_size=80), patterns, st.integers(1000, 20000))
def test_the_limit_holds_and_the_beginning_moves_up(stored: list[str], asked: str, limit: int) -> None:
    """Whatever goes in, the log holds no more than its limit (and the newest event), and says where it begins."""
    feeds = Feeds()
    log = Log(limit, feeds.tree)
    filters = filters_of([asked])
    feed = feeds.acquire(filters)
    log.reset("x", 0)
    for number, subject in enumerate(stored, start=1):
        log.append(number, subject.encode(), b'{"n":%d}' % number)
        assert log.bytes <= limit or len(log) == 1

    expected = [n for n, subject in enumerate(stored, start=1) if n > log.base and wanted(filters, subject)]

    assert read_all(log, feed, log.base, 10**6) == expected
    assert log.topics == len({s for n, s in enumerate(stored, start=1) if n > log.base})


def test_frames_made_for_readers_are_paid_for_and_given_back() -> None:
    """Frames that readers cause count against the limit, and nothing is left on the account when all is evicted."""
    feeds = Feeds()
    log = Log(10**6, feeds.tree)
    feed = feeds.acquire(filters_of(["repo.>"]))
    log.reset("x", 0)
    events = [log.append(n, b"repo.a", b'{"n":1}') for n in range(1, 11)]
    before = log.bytes
    taken = log.read(feed, 0, 10**6)
    for event in taken.events:
        event.sse()
        event.tail()
        log.charge(event)

    assert log.bytes == before + sum(len(event.sse()) + len(event.tail()) for event in events)

    log.limit_bytes = 0
    log.evict()
    assert len(log) == 1
    assert log.bytes == events[-1].cost + events[-1].topic.cost


def test_a_bad_event_keeps_its_place_and_is_counted_once() -> None:
    """What is no event is given to nobody, costs one count however many ask, and leaves the sequence whole."""
    feeds = Feeds()
    log = Log(10**6, feeds.tree)
    feed = feeds.acquire(filters_of(["repo.>"]))
    log.reset("x", 0)
    log.append(1, b"repo.a", b'{"n":1}')
    log.append(2, b"repo.a", b"[1]")
    log.append(3, b"repo.a", b"\xff")
    log.append(4, b"repo.a", b'{"n":NaN}')
    log.append(5, b"repo.a", b'{"n":2}')

    for _ in range(2):
        assert [event.seq for event in log.read(feed, 0, 10**6).events] == [1, 5]
    assert log.dropped == Counter(not_object=1, not_utf8=1, not_json=1)

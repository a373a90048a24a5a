"""The reader of event streams, by the standard's letter."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.sse_reader import NotAnEventStream, SseEvent, SseReader

TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8)
LINES = st.one_of(
    st.builds("{}:{}".format, st.sampled_from(["data", "id", "event", "retry", "", "other", "data "]), TEXT),
    st.builds("{}: {}".format, st.sampled_from(["data", "id", "event"]), TEXT),
    st.sampled_from(["data", "id", "event", "retry", "", "", "retry: 12", "id: a\0b", "\ufeffdata: x"]),
)
STREAMS = st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r\n", "\r"])), max_size=20)


def read(*pieces: bytes) -> tuple[list[SseEvent], str, int | None]:
    reader = SseReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    return events, reader.last_event_id, reader.retry_ms


def by_the_letter(text: str) -> tuple[list[SseEvent], str, int | None]:
    """The standard's algorithm, on the whole text at once, with nothing clever."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]
    events: list[SseEvent] = []
    last_id, retry = "", None
    data, name, own_id = "", "", None
    for line in lines:
        if line == "":
            last_id = last_id if own_id is None else own_id
            if data != "":
                events.append(SseEvent(name or "message", data.removesuffix("\n"), own_id))
            data, name, own_id = "", "", None
            continue
        field, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if line.startswith(":"):
            continue
        if field == "data":
            data += value + "\n"
        elif field == "event":
            name = value
        elif field == "id" and "\0" not in value:
            own_id = value
        elif field == "retry" and value and all(char in "0123456789" for char in value):
            retry = int(value)
    return events, last_id, retry


@given(STREAMS, st.lists(st.integers(0, 400), max_size=10))
def test_any_cutting_gives_the_same_events(lines: list[tuple[str, str]], cuts: list[int]) -> None:
    """Whatever the line ends, and wherever the bytes are cut, within characters and CR LF too."""
    text = "".join(line + end for line, end in lines)
    whole = text.encode()
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[begin:end] for begin, end in pairwise(places)]
    expected = by_the_letter(text)
    assert read(*pieces) == expected
    assert read(whole) == expected
    assert read(*(whole[at : at + 1] for at in range(len(whole)))) == expected


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_are_read_the_same_however_cut(data: bytes, cut: int) -> None:
    """Bytes that are no UTF-8 become replacement characters, the same ones in any cutting."""
    assert read(data[:cut], data[cut:]) == read(data)


def test_an_event_comes_out_with_the_first_byte_that_ends_it() -> None:
    """A lone CR ends a line at once; the LF behind it, if any, is no second line."""
    reader = SseReader()
    assert reader.feed(b"id: 7\rdata: a\r\r") == [SseEvent("message", "a", "7")]
    assert reader.feed(b"\ndata: b\n") == []
    assert reader.feed(b"\n") == [SseEvent("message", "b", None)]
    assert reader.last_event_id == "7"


def test_an_endless_event_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block without end does not fill the memory; comments between events do not count."""
    monkeypatch.setattr("gateway.core.sse_reader.LARGEST_BLOCK_BYTES", 1000)
    reader = SseReader()
    for _ in range(500):
        reader.feed(b": heartbeat\n\n")
    for piece in (b"data: " + b"x" * 2000, b"data: x\n" * 500):
        with pytest.raises(NotAnEventStream):
            SseReader().feed(piece)

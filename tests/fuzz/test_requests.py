"""What a client may ask for in an URL: filters, queries, paths of routes."""

from __future__ import annotations

from itertools import permutations, product
from urllib.parse import quote_from_bytes

from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.core.errors import BadRequest, ClientError, Forbidden
from gateway.core.query import parse_filters, parse_query
from gateway.core.routes import RouteSpec
from gateway.core.subjects import Filter, covers, meet, parse_filter, widest
from publishers.wire import DEFAULT_ROOTS, encode_id


def told(error: ClientError) -> None:
    """An error is one printable line, however long and strange the question was."""
    assert error.detail.isprintable(), ascii(error.detail)
    assert len(error.detail) < 1000


tokens = st.sampled_from(["repo", "task", "inbox", "42", "*", ">", "a>", "*a", "%2E", "%2e", "%41", "%", "", " ", "ü"])
nearly_filters = st.lists(tokens | st.text(max_size=4), max_size=6).map(".".join)


@given(nearly_filters | st.text())
@example("repo." + "x" * 2000)
@example("repo." + "\n" * 90)
@example("repo.\ud800")
def test_a_filter_is_taken_as_it_is_or_refused(text: str) -> None:
    """An accepted filter is what the client wrote, is ASCII without spaces, and begins with a root that is served."""
    try:
        accepted = parse_filter(text, DEFAULT_ROOTS)
    except (BadRequest, Forbidden) as error:
        told(error)
        return
    assert str(accepted) == text
    assert accepted.tokens == tuple(text.split("."))
    assert accepted.tokens[0] in set(DEFAULT_ROOTS) - {"inbox"}
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text
    assert ">" not in accepted.tokens[:-1]
    assert all(token in ("*", ">") or ("*" not in token and ">" not in token) for token in accepted.tokens)


ALPHABET = ("a", "b", "neither")
SUBJECTS = [subject for size in range(1, 6) for subject in product(ALPHABET, repeat=size)]
patterns = st.builds(
    lambda begin, end: (*begin, *end),
    st.lists(st.sampled_from(["a", "b", "*"]), max_size=3),
    st.sampled_from([("a",), ("*",), (">",)]),
)


def selected(pattern: tuple[str, ...]) -> set[tuple[str, ...]]:
    """All subjects that a pattern selects, found token by token."""

    def selects(pattern: tuple[str, ...], subject: tuple[str, ...]) -> bool:
        if not pattern or not subject:
            return not pattern and not subject
        if pattern == (">",):
            return True
        return pattern[0] in ("*", subject[0]) and selects(pattern[1:], subject[1:])

    return {subject for subject in SUBJECTS if selects(pattern, subject)}


@given(patterns, patterns)
def test_a_right_covers_exactly_what_lies_within_it(right: tuple[str, ...], asked: tuple[str, ...]) -> None:
    """A pattern covers a filter when, and only when, every subject of the filter is one of the pattern's."""
    assert covers(right, asked) == (selected(asked) <= selected(right))


@given(patterns, patterns)
def test_two_filters_meet_in_what_both_select(one: tuple[str, ...], two: tuple[str, ...]) -> None:
    """Two filters meet in the pattern of the subjects that both select, if there are any."""
    common = meet(one, two)
    assert (set() if common is None else selected(common)) == selected(one) & selected(two)
    assert common is None or selected(common) or len(common) > 5


@given(st.lists(patterns, max_size=5))
def test_the_widest_of_some_filters_select_the_same(some: list[tuple[str, ...]]) -> None:
    """What the widest of some filters select is what all of them do, and none of them covers another."""
    found = [each.tokens for each in widest(Filter(".".join(tokens), tokens) for tokens in some)]
    assert set().union(*map(selected, found)) == set().union(*map(selected, some))
    assert not any(covers(one, two) for one, two in permutations(found, 2))


values = st.sampled_from(
    [
        *("", "true", "false", "1", "0", "TRUE", "head", "tail", "repo.1.>", "task.*", "user.%25.x", "x" * 5000),
        *("all", "15m", "-1s", "1e3s", "9" * 30 + "d", "2030-01-31", "2030-01-31T12:00:00Z"),
        *("0-0", "abc-1", "abc-01", f"abc-{2**64 - 1}", f"abc-{2**64}"),
    ]
)
names = st.sampled_from(["subject", "since", "snapshot", "until", "named", "control", "last_event_id", "other"])


@given(st.lists(st.tuples(names, values | st.text(max_size=8)), max_size=6), st.none() | values, st.booleans())
def test_a_query_means_what_it_says_or_is_refused(
    items: list[tuple[str, str]], header: str | None, snapshot: bool
) -> None:
    """Each value of an accepted query is the one that was given; the header wins over the parameter."""
    try:
        query = parse_query(items, last_event_id=header, snapshot=snapshot)
        parse_filters(query.subjects, DEFAULT_ROOTS, 32)
    except ClientError as error:
        told(error)
        return
    given_once = dict(items)
    assert list(query.subjects) == [value for name, value in items if name == "subject"]
    cursor = header or given_once.get("last_event_id")
    assert str(query.start.cursor or "") == (cursor or "")
    assert query.start.until_head == (given_once.get("until") == "head")
    assert (query.start.since is not None) == ("since" in given_once)
    assert not (query.start.since is not None and query.start.snapshot)
    assert query.named == (given_once.get("named") in ("", "1", "true"))
    assert query.control == (given_once.get("control") in ("", "1", "true"))


def spec(path: str, *subjects: str) -> RouteSpec:
    return RouteSpec(name="r", path=path, subjects=subjects)


ROUTE = spec("/api/{owner}/repos/{repo}", "repo.{owner}.{repo}.>", "task.*.{repo}")


@st.composite
def spellings(draw: st.DrawFn, data: bytes) -> bytes:
    """One of the many ways to write a segment of a path: bytes that need no escape may have one."""
    out = b""
    for byte in data:
        plain = quote_from_bytes(bytes([byte]), safe="!$&'()*+,;=:@>").encode()
        out += draw(st.sampled_from([plain, b"%%%02X" % byte, b"%%%02x" % byte]))
    return out


@given(st.data(), st.binary(min_size=1, max_size=12), st.text(min_size=1, max_size=12))
@example(None, b"*", ">").via("wildcards")
@example(None, b".", "%2E").via("dots, and what looks escaped")
def test_a_parameter_is_one_literal_token(data: st.DataObject | None, owner: bytes, repo: str) -> None:
    """However a client spells a path, each parameter is the id that it means, as one token that is no wildcard."""
    try:
        second = repo.encode()
    except UnicodeEncodeError:
        second = b"\xff"
    path = b"/api/%b/repos/%b"
    if data is None:
        raw = path % (quote_from_bytes(owner).encode(), quote_from_bytes(second).encode())
    else:
        raw = path % (data.draw(spellings(owner)), data.draw(spellings(second)))
    try:
        ids = owner.decode(), second.decode()
    except UnicodeDecodeError:
        ids = None
    try:
        found = ROUTE.match(raw)
    except ClientError as error:
        told(error)
        assert ids is None
        return
    assert ids is not None
    assert found == {"owner": encode_id(ids[0]), "repo": encode_id(ids[1])}
    first, last = ROUTE.filters(found, DEFAULT_ROOTS)
    assert first.tokens == ("repo", found["owner"], found["repo"], ">")
    assert last.tokens == ("task", "*", found["repo"])


@given(
    st.binary(max_size=40) | st.lists(st.sampled_from([b"/", b"api", b"%", b"%2", b"%zz", b"..", b"x"])).map(b"".join)
)
def test_any_path_is_matched_or_not(raw: bytes) -> None:
    """A path of any bytes is this route's, or another's, or refused in words."""
    try:
        found = ROUTE.match(b"/api/" + raw)
    except ClientError as error:
        told(error)
        return
    if found is not None:
        assert set(found) == {"owner", "repo"}
        assert all(token.isascii() and "." not in token and token not in ("*", ">") for token in found.values())


segments = st.sampled_from(
    ["{id}", "{id}", "{other}", "{sub}", "{Id}", "{id", "x{id}", "events", "", "ü", "a b", "%41"]
)
templates = st.lists(
    st.sampled_from(["repo", "inbox", "moon", "{id}", "{sub}", "{type}", "{no}", "*", ">", "", "x{id}"]), max_size=4
).map(".".join)


@given(
    st.lists(segments, max_size=4).map(lambda each: "/" + "/".join(each)), st.lists(templates, min_size=1, max_size=3)
)
def test_a_route_that_is_taken_can_be_served(path: str, subjects: list[str]) -> None:
    """A route of any path and subjects is refused when it is read, or its own path leads to its own filters."""
    try:
        route = spec(path, *subjects)
        route.check_roots(DEFAULT_ROOTS)
    except ValidationError as error:
        assert error.errors()
        return
    except ValueError as error:
        assert str(error).isprintable()
        return
    own = path.replace("{id}", "42").replace("{other}", "43")
    found = route.match(own.encode())
    assert found is not None
    filters = route.filters({**found, "sub": "me"}, DEFAULT_ROOTS)
    assert len(filters) == len(subjects)
    assert "{" not in "".join(map(str, filters))

"""A filter is allowed when one pattern covers it whole, and no `sub` makes a pattern wider than one id."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.errors import BadRequest, Forbidden
from gateway.core.revoked import MAX_KEY_CHARS, key_of
from gateway.core.rights import EVERYONE, BadClaims, Principal, parse_pattern, principal_of
from gateway.core.subjects import covers, parse_filter
from publishers.wire import DEFAULT_ROOTS, decode_id, encode_id
from tests.support.filters import filter_of


def principal(*patterns: str, sub: str = "alice", publish: tuple[str, ...] = ()) -> Principal:
    rights = {"subscribe": list(patterns), "publish": list(publish)}
    return principal_of({"sub": sub, "exp": 4102444800, "natsgate": rights})


@pytest.mark.parametrize(
    ("patterns", "filter_", "allowed"),
    [
        (["repo.42.>"], "repo.42.>", True),
        (["repo.42.>"], "repo.42.task.progress", True),
        (["repo.42.>"], "repo.42.*", True),
        (["repo.42.>"], "repo.42.*.>", True),
        (["repo.42.>"], "repo.42", False),
        (["repo.42.>"], "repo.>", False),
        (["repo.42.>"], "repo.*", False),
        (["repo.42.>"], "repo.*.task", False),
        (["repo.42.>"], "repo.4.>", False),
        (["repo.42.>"], "repo.421.>", False),
        (["repo.42.>"], "task.42.>", False),
        (["repo.>"], "repo.42.>", True),
        (["repo.>"], "repo.*", True),
        (["repo.>"], "repo.>", True),
        (["repo.*"], "repo.42", True),
        (["repo.*"], "repo.*", True),
        (["repo.*"], "repo.>", False),
        (["repo.*"], "repo.42.x", False),
        (["repo.*.>"], "repo.*.x", True),
        (["repo.*.>"], "repo.42.>", True),
        (["repo.*.>"], "repo.42", False),
        (["repo.*.>"], "repo.>", False),
        (["repo.*.task.*"], "repo.42.task.progress", True),
        (["repo.*.task.*"], "repo.42.task.>", False),
        (["repo.*.task.*"], "repo.42.*.progress", False),
        (["*.42.>"], "repo.42.x", True),
        (["*.42.>"], "repo.42.>", True),
        (["*.42.>"], "repo.*.x", False),
        ([">"], "repo.>", True),
        ([">"], "repo.42", True),
        (["*"], "repo.42", False),
        (["*.>"], "repo.>", True),
        ([], "repo.42", False),
        (["repo.*", "repo.*.>"], "repo.>", False),  # together they would; one has to
        (["repo.1.>", "repo.2.>"], "repo.*.>", False),
        (["repo.1.>", "repo.2.>"], "repo.2.>", True),
        (["user.{sub}.>"], "user.alice.>", True),
        (["user.{sub}.>"], "user.bob.>", False),
        (["user.{sub}.>"], "user.*.x", False),
        (["repo.owner%2Frepo.>"], "repo.owner%2Frepo.x", None),  # not canonical: / stands for itself
        (["repo.owner/repo%2Ejs.>"], "repo.owner/repo%2Ejs.x", True),
    ],
)
def test_the_table(patterns: list[str], filter_: str, allowed: bool | None) -> None:
    """Filter by filter, pattern by pattern."""
    if allowed is None:
        with pytest.raises(BadClaims):
            principal(*patterns)
        return
    who = principal(*patterns)
    asked = filter_of(filter_)
    assert who.may_subscribe(asked) is allowed
    if allowed:
        who.require([asked])
    else:
        with pytest.raises(Forbidden, match=re.escape(filter_)):
            who.require([asked])


# The oracle: what a pattern selects is written as a regular expression, and subjects are counted out.

LETTERS = ("repo", "a", "b")
"""One token more than any pattern can name at one place, so that naming is not covering."""

DEEPEST = 5
SUBJECTS = [".".join(tokens) for depth in range(1, DEEPEST + 1) for tokens in product(LETTERS, repeat=depth)]


def selected(pattern: str) -> frozenset[str]:
    """The subjects that a NATS pattern selects, up to a depth that no pattern here reaches without `>`."""
    parts = {"*": r"[^.]+", ">": r".+"}
    shape = re.compile(r"\.".join(parts.get(token) or re.escape(token) for token in pattern.split(".")))
    return frozenset(subject for subject in SUBJECTS if shape.fullmatch(subject))


tokens = st.sampled_from(["repo", "a", "*"])
tails = st.sampled_from([[], [">"]])
patterns = st.builds(lambda head, tail: ".".join([*head, *tail]), st.lists(tokens, min_size=1, max_size=3), tails)
filters = st.builds(
    lambda head, tail: ".".join(["repo", *head, *tail]), st.lists(tokens, min_size=1, max_size=2), tails
) | st.just("repo.>")


@given(patterns, patterns)
def test_covering_is_selecting_at_least_the_same(pattern: str, other: str) -> None:
    """A pattern covers another when it selects every subject that the other one does."""
    expected = selected(other) <= selected(pattern)
    assert covers(tuple(pattern.split(".")), tuple(other.split("."))) is expected


@given(patterns, st.sampled_from(SUBJECTS))
def test_a_subject_is_selected_or_not(pattern: str, subject: str) -> None:
    """A literal subject is covered by the patterns that select it."""
    assert covers(tuple(pattern.split(".")), tuple(subject.split("."))) is (subject in selected(pattern))


@given(st.lists(patterns, max_size=3), filters)
def test_one_pattern_has_to_cover_the_filter(rights: list[str], text: str) -> None:
    """A filter is allowed when there is one pattern that selects all of its subjects."""
    allowed = any(selected(text) <= selected(pattern) for pattern in rights)
    assert principal(*rights).may_subscribe(filter_of(text)) is allowed


@given(st.lists(patterns, max_size=3), st.sampled_from(SUBJECTS))
def test_publishing_takes_one_pattern(rights: list[str], subject: str) -> None:
    """A subject may be published to when a pattern of `publish` selects it; those of `subscribe` give no such right."""
    who = principal(">", publish=tuple(rights))
    if any(subject in selected(pattern) for pattern in rights):
        who.require_publish(subject)
    else:
        with pytest.raises(Forbidden, match=re.escape(subject)):
            who.require_publish(subject)


# What a `sub` may hold

subs = st.text(min_size=1, max_size=30).filter(lambda text: not re.search("[\ud800-\udfff]", text))


@given(subs, subs)
@example("*", "alice")
@example(">", "alice")
@example("a.b", "a")
@example("alice.>", "alice")
@example("%", "%25")
@example("%2A", "*")
@example("{sub}", "sub")
@example("\0", "\r\n")
@example("ä", "a\u0308")
@example("K", "\u212a")
@example("alice", "Alice")
def test_a_sub_is_one_id_and_no_other(sub: str, other: str) -> None:
    """Whatever it holds, the rights of a `sub` are those of its own encoded id."""
    who = principal("user.{sub}.>", sub=sub, publish=("inbox.{sub}.*",))
    own = encode_id(sub)
    assert who.subscribe == (("user", own, ">"),)
    assert decode_id(own) == sub
    assert who.may_subscribe(parse_filter(f"user.{own}.>", DEFAULT_ROOTS))
    who.require_publish(f"inbox.{own}.x")
    for wider in ("user.>", "user.*", "user.*.>", "user.*.x"):
        assert not who.may_subscribe(filter_of(wider))
    theirs = encode_id(other)
    assert who.may_subscribe(parse_filter(f"user.{theirs}.x", DEFAULT_ROOTS)) is (sub == other)
    if sub != other:
        with pytest.raises(Forbidden):
            who.require_publish(f"inbox.{theirs}.x")


@given(subs)
def test_a_sub_in_a_pattern_of_its_issuer(sub: str) -> None:
    """An issuer that writes an id into a pattern unencoded gets an error, or what it wrote: never something wider
    without having asked for it."""
    pattern = f"user.{sub}.>"
    try:
        tokens_ = parse_pattern(pattern)
    except BadClaims as error:
        assert str(error).isascii()
        assert len(str(error)) < 400
        return
    assert ".".join(tokens_) == pattern


# The inbox


@given(st.lists(st.text(max_size=6) | st.sampled_from(["*", ">", "inbox"]), max_size=3).map(".".join))
@example("inbox.>")
@example("inbox.project.9.x")
@example("*.>")
@example(">")
def test_no_filter_selects_the_inbox(text: str) -> None:
    """What clients send to services is nobody's to read, whatever the rights: no filter that is taken selects it."""
    for asked in (text, f"inbox.{text}", f"*.{text}"):
        try:
            taken = parse_filter(asked, DEFAULT_ROOTS)
        except (BadRequest, Forbidden):
            continue
        EVERYONE.require([taken])
        assert taken.tokens[0] in DEFAULT_ROOTS
        assert taken.tokens[0] != "inbox"


def test_the_inbox_is_forbidden_by_name() -> None:
    """Asking for it is understood, and refused."""
    with pytest.raises(Forbidden, match="inbox"):
        parse_filter("inbox.>", DEFAULT_ROOTS)


def test_a_sub_that_could_not_be_revoked_is_refused() -> None:
    """A `sub` is at most 256 bytes, so that its key in the bucket of revocations is a key, whatever it holds."""
    longest = "ä" * 128
    assert len(key_of(principal_of({"sub": longest}).sub)) <= MAX_KEY_CHARS
    with pytest.raises(BadClaims, match="256 bytes"):
        principal_of({"sub": longest + "x"})

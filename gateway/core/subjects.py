"""Subject filters: what a client may ask for, in NATS's own pattern syntax.

A filter is a list of tokens separated by dots. `*` stands for one token, a closing `>` for one or more.
Its first token is a literal root. Every other literal token is in the canonical encoding of ids
(`publishers.wire`), so that one thing has one name and no id can act as a wildcard.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from gateway.core.errors import BadRequest, Forbidden
from publishers.wire import is_canonical_token

MAX_FILTER_BYTES = 1024
"""The longest filter taken, in bytes. nats-server's own limit for a protocol line is 4,096."""

MAX_FILTER_TOKENS = 32
"""The most tokens in one filter."""

LEAST_SUBJECT_TOKENS = 3
"""An event's subject is `<root>.<id>.<event type>`."""

OWN_SUBJECTS = frozenset({"_INBOX", "natsgate"})
"""First tokens of what NATS and natsgate say to each other: answers, and questions to services. Stored and republished,
they would be events for everybody, and the stream would answer questions that are not its."""

INBOX_ROOT = "inbox"
"""What clients send to services: stored, never subscribable through the gateway."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One valid filter.

    Attributes:
        text: the filter as NATS spells it: `repo.42.>`.
        tokens: its tokens: `("repo", "42", ">")`.
    """

    text: str
    tokens: tuple[str, ...]

    def __str__(self) -> str:
        return self.text

    def matches(self, subject: str) -> bool:
        """Whether a literal subject is one of this filter's."""
        return covers(self.tokens, tuple(subject.split(".")))


def parse_filter(text: str, roots: Collection[str]) -> Filter:
    """Read one filter as a client wrote it.

    Args:
        text: the filter, decoded once from its query parameter or JSON string.
        roots: the first tokens that this gateway serves.

    Raises:
        BadRequest: it is no valid filter; the detail names the token and the mend.
        Forbidden: it asks for `inbox`.
    """
    if not text:
        raise BadRequest("The subject is empty. Give a filter such as repo.42.> or task.7.progress.")
    if len(text.encode("utf-8", "surrogatepass")) > MAX_FILTER_BYTES:
        raise BadRequest(f"The subject is longer than {MAX_FILTER_BYTES} bytes.")
    tokens = tuple(text.split("."))
    if len(tokens) > MAX_FILTER_TOKENS:
        raise BadRequest(f"The subject has {len(tokens)} tokens; at most {MAX_FILTER_TOKENS} are taken.")
    root = tokens[0]
    if root == INBOX_ROOT:
        raise Forbidden("Subjects below inbox are what clients send to services; they cannot be subscribed to.")
    if root not in roots:
        offered = " ".join(sorted(set(roots) - {INBOX_ROOT}))
        raise BadRequest(
            f"The subject {_shown(text)} does not begin with a root of this gateway ({offered}); "
            "the first token cannot be a wildcard."
        )
    if len(tokens) < 2:
        raise BadRequest(
            f"The subject {_shown(text)} names a root only. Say which part of it: {root}.> is all, {root}.42.> one id."
        )
    for position, token in enumerate(tokens[1:], start=2):
        if token == "*" or (token == ">" and position == len(tokens)):
            continue
        if token == ">":
            raise BadRequest(f"In {_shown(text)} the > is not the last token; use * for one token in the middle.")
        if not token:
            raise BadRequest(f"In {_shown(text)} token {position} is empty: two dots in a row, or one at an end.")
        if not is_canonical_token(token):
            raise BadRequest(
                f"In {_shown(text)} token {position} ({_shown(token)}) is not in canonical encoding: every byte "
                "outside A-Z a-z 0-9 - _ ~ ! $ & ' ( ) + , ; = : @ / is written as % and two upper-case hex digits, "
                "and nothing else is. In a URL's query that % is itself sent as %25, and + as %2B."
            )
    if len(tokens) < LEAST_SUBJECT_TOKENS and tokens[-1] != ">":
        raise BadRequest(
            f"The subject {_shown(text)} has two tokens; the subject of an event has at least three (root.id.type). "
            f"Write {_shown(text + '.>')} for all that happens to it."
        )
    return Filter(text, tokens)


def covers(pattern: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether every subject that `other` (a filter or a literal subject) selects is also selected by `pattern`."""
    for position, token in enumerate(pattern):
        if token == ">":
            return position < len(other)
        if position >= len(other):
            return False
        theirs = other[position]
        if theirs == ">" or (token != "*" and token != theirs):
            return False
    return len(pattern) == len(other)


def meet(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...] | None:
    """The pattern of the subjects that both select; None when there are none."""
    common: list[str] = []
    for position, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine == ">":
            return (*common, *other[position:])
        if theirs == ">":
            return (*common, *one[position:])
        if mine != theirs and "*" not in (mine, theirs):
            return None
        common.append(theirs if mine == "*" else mine)
    return tuple(common) if len(one) == len(other) else None


def widest(filters: Iterable[Filter]) -> tuple[Filter, ...]:
    """The filters that no other one of them covers: they select the same, and fewer subjects twice."""
    found: list[Filter] = []
    for each in filters:
        if not any(covers(other.tokens, each.tokens) for other in found):
            found = [other for other in found if not covers(each.tokens, other.tokens)] + [each]
    return tuple(found)


def feed_name(filters: Iterable[Filter]) -> str:
    """The name of a feed: its filters, each once, sorted, joined by commas."""
    return ",".join(sorted({each.text for each in filters}))


def _shown(text: str) -> str:
    """Client text inside an error: bounded and printable."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")

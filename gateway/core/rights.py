"""Who is asking, and what they may see and say. Every filter of every transport passes through `Principal`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.core.errors import Forbidden
from gateway.core.subjects import Filter, covers
from publishers.wire import InvalidId, encode_id, is_canonical_token

CLAIM = "natsgate"
"""The claim of a token that holds its rights."""

SUB = "{sub}"
"""The token in a pattern that stands for the encoded `sub`."""

LAST_SECOND = 253_402_300_799
"""9999-12-31T23:59:59Z: a time behind it is none. Mostly it is one in milliseconds."""

MAX_PATTERNS = 256
"""The most patterns in one list of rights: each filter is held against all of them."""

MOST_SHOWN = 80
"""Characters of a pattern that go into an error."""

MOST_GIVEN_CHARS = 400
"""Characters of a token's own patterns that go into an error together."""

MAX_SUB_BYTES = 256
"""The longest `sub`: it has to fit into a subject and into the key of its revocation, each byte as three characters."""

Pattern = tuple[str, ...]
"""A NATS pattern, as tokens: `("repo", "42", ">")`."""


class BadClaims(ValueError):
    """The claims of a token, though signed, are not what a gateway can work with."""


@dataclass(frozen=True, slots=True)
class Principal:
    """An identity with rights.

    Attributes:
        sub: who it is; empty for nobody in particular.
        subscribe, publish: NATS patterns. A filter, or a subject, is allowed when one of them covers it whole.
        expires_at: when that ends, seconds since the epoch; None: never.
        issued_at: when the token was made, seconds since the epoch; 0 where it does not say.
        claims: everything that the token says, for services that decide by it.
    """

    sub: str
    subscribe: tuple[Pattern, ...]
    publish: tuple[Pattern, ...] = ()
    expires_at: float | None = None
    issued_at: float = 0.0
    claims: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def may_subscribe(self, each: Filter) -> bool:
        """Whether one pattern covers the filter whole."""
        return any(covers(pattern, each.tokens) for pattern in self.subscribe)

    def require(self, filters: Iterable[Filter]) -> None:
        """Check that all of the filters may be subscribed to.

        Raises:
            Forbidden: one may not; the detail names it, and what the token allows.
        """
        for each in filters:
            if not self.may_subscribe(each):
                raise Forbidden(
                    f"Your token gives no right to subscribe to {each.text}; {_given('subscribe', self.subscribe)}"
                )

    def require_publish(self, subject: str) -> None:
        """Check that the subject may be published to.

        Raises:
            Forbidden: it may not; the detail names it, and what the token allows.
        """
        tokens = tuple(subject.split("."))
        if not any(covers(pattern, tokens) for pattern in self.publish):
            raise Forbidden(f"Your token gives no right to publish to {subject}; {_given('publish', self.publish)}")


EVERYONE = Principal(sub="", subscribe=((">",),), publish=((">",),))
"""Who everybody is while `auth = "none"`."""


def time_of(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519, section 2) among claims, seconds since the epoch; None where there is none.

    Raises:
        BadClaims: it is no number of seconds up to the year 9999.
    """
    if name not in claims:
        return None
    value = claims[name]
    # A NaN is not between anything; the integer is compared before it becomes a float, which may not hold it.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LAST_SECOND:
        raise BadClaims(f"{name} is to be a number of seconds since 1970-01-01")
    return float(value)


def parse_sub(text: str) -> str:
    """The one subject token of a `sub`.

    Raises:
        BadClaims: it is no id, or longer than any gateway takes.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_SUB_BYTES:
        raise BadClaims(f"sub is longer than {MAX_SUB_BYTES} bytes")
    try:
        return encode_id(text)
    except InvalidId as error:
        raise BadClaims(f"sub: {error}") from None


def parse_pattern(text: str) -> Pattern:
    """Read one pattern of rights, `{sub}` still in it.

    Raises:
        BadClaims: it is no NATS pattern of canonical tokens; the text says which token and why.
    """
    tokens = tuple(text.split("."))
    for position, token in enumerate(tokens, start=1):
        if token in ("*", SUB) or (token == ">" and position == len(tokens)):
            continue
        if token == ">":
            raise BadClaims(f"{_shown(text)}: > stands at the end only; * is one token in the middle")
        if SUB in token:
            raise BadClaims(f"{_shown(text)}: {SUB} is a whole token, with nothing beside it")
        if not is_canonical_token(token):
            raise BadClaims(
                f"{_shown(text)}: token {position} ({_shown(token)}) is {'empty' if not token else 'not encoded'}; "
                "write bytes other than A-Z a-z 0-9 - _ ~ ! $ & ' ( ) + , ; = : @ / as % and two upper-case hex digits"
            )
    return tokens


def _shown(text: str) -> str:
    shown = ascii(text)
    return shown if len(shown) <= MOST_SHOWN else f"{shown[: MOST_SHOWN - 4]}...{shown[-1]}"


def _given(verb: str, patterns: Sequence[Pattern]) -> str:
    """What a token's holder is told of its rights, bounded. Patterns are printable, whoever signed them."""
    if not patterns:
        return f"it gives none, since its claim {CLAIM}.{verb} is missing or empty."
    shown: list[str] = []
    for pattern in patterns:
        text = ".".join(pattern)
        shown.append(text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}...")
        if sum(map(len, shown)) > MOST_GIVEN_CHARS:
            shown.pop()
            break
    more = len(patterns) - len(shown)
    return f"it gives {' '.join(shown)}{f' and {more} more' if more else ''} (its claim {CLAIM}.{verb})."


def principal_of(claims: Mapping[str, Any]) -> Principal:
    """The identity and the rights that the claims of a verified token give.

    Raises:
        BadClaims: `sub`, a time or `natsgate` is malformed; the text names the claim.
    """
    sub = claims.get("sub")
    if not isinstance(sub, str) or not sub:
        raise BadClaims("sub is to be a string that is not empty")
    own = parse_sub(sub)
    given = claims.get(CLAIM)
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise BadClaims(f'{CLAIM} is to be an object: {{"subscribe": ["repo.42.>"], "publish": []}}')
    return Principal(
        sub=sub,
        subscribe=_patterns(given, "subscribe", own),
        publish=_patterns(given, "publish", own),
        expires_at=time_of(claims, "exp"),
        issued_at=time_of(claims, "iat") or 0.0,
        claims=claims,
    )


def _patterns(rights: Mapping[str, Any], verb: str, own: str) -> tuple[Pattern, ...]:
    given = rights.get(verb)
    if given is None:
        return ()
    if not isinstance(given, list) or len(given) > MAX_PATTERNS:
        raise BadClaims(f"{CLAIM}.{verb} is to be a list of at most {MAX_PATTERNS} patterns")
    found = []
    for position, text in enumerate(given):
        if not isinstance(text, str):
            raise BadClaims(f"{CLAIM}.{verb}[{position}] is to be a string")
        try:
            pattern = parse_pattern(text)
        except BadClaims as error:
            raise BadClaims(f"{CLAIM}.{verb}[{position}] {error}") from None
        # The sub is one encoded token: whatever it holds, it never becomes a wildcard or a dot.
        found.append(tuple(own if token == SUB else token for token in pattern))
    return tuple(found)

"""Configured routes: which path serves which subjects, over which transports.

Paths are matched raw, segment by segment. Each parameter is percent-decoded once and then encoded as an id, so that a
parameter is always one literal token: whatever a client puts into the path, it never becomes a wildcard or a dot.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Annotated, Literal, Self, get_args
from urllib.parse import unquote_to_bytes

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gateway.core.dialect import Transport
from gateway.core.errors import BadRequest, Forbidden
from gateway.core.subjects import Filter, parse_filter
from publishers.wire import MAX_SUBJECT_BYTES, InvalidId, encode_id

_PARAMETER = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()+,;=:@-]+")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_OWN_PATHS = ("/events", "/ws", "/livez", "/readyz", "/metrics")
_OWN_BELOW = ("/publish/", "/auth/")

BUILT_IN = "events"
"""The name of `/events` and `/ws`, where routes are told apart: in metrics and in logs."""

SUB = "sub"
"""The parameter that is not in the path: the principal's own id."""

TYPE = "type"
"""The parameter of `publish` that comes from the client's message."""


def is_name(text: object) -> bool:
    """Whether a route may be called so."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError("a name is a-z 0-9 - _, such as repo-events: 63 characters at most, neither - nor _ first")
    return text


class RouteSpec(BaseModel):
    """One `[[route]]` of the configuration file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(_name)]
    path: str
    transports: Annotated[tuple[Transport, ...], Field(min_length=1)] = get_args(Transport)
    subjects: Annotated[tuple[str, ...], Field(min_length=1)]
    snapshot: bool = False
    framing: Literal["envelope", "raw"] = "envelope"
    publish: str | None = None
    authorize: Literal["token", "service"] = "token"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.name == BUILT_IN:
            raise ValueError(f"name {self.name!r} is that of /events and /ws in metrics and logs; choose another")
        if not self.path.startswith("/"):
            raise ValueError(f"path {self.path!r} must begin with /")
        for segment in self.segments:
            if not (_PARAMETER.fullmatch(segment) or _LITERAL.fullmatch(segment)):
                raise ValueError(
                    f"path {self.path!r}: the segment {segment!r} is neither plain text nor one {{parameter}} "
                    "in lower case"
                )
        if self.path in _OWN_PATHS or self.path.startswith(_OWN_BELOW):
            raise ValueError(f"path {self.path!r} is one that natsgate serves itself")
        names = self.parameters
        if len(set(names)) != len(names):
            raise ValueError(f"path {self.path!r} names a parameter twice")
        if SUB in names:
            raise ValueError(f"path {self.path!r}: {{{SUB}}} is the signed-in user, it cannot come from the path")
        if self.publish is not None and ("ws" not in self.transports or self.framing != "raw"):
            raise ValueError('publish needs transports = ["ws"] and framing = "raw"')
        if self.framing == "raw" and "ws" not in self.transports:
            raise ValueError('framing = "raw" is for WebSocket: add "ws" to transports')
        known = {*names, SUB}
        for template in self.subjects:
            _check_template(template, known)
        if self.publish is not None:
            if TYPE in names and f"{{{TYPE}}}" in self.publish:
                raise ValueError(
                    f"publish {self.publish!r}: {{{TYPE}}} is the type of the client's message; give the parameter of "
                    f"the path {self.path!r} another name"
                )
            _check_template(self.publish, {*known, TYPE})
        return self

    @property
    def segments(self) -> tuple[str, ...]:
        """The path's segments."""
        return tuple(self.path[1:].split("/"))

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the path's parameters."""
        return tuple(shape[1] for segment in self.segments if (shape := _PARAMETER.fullmatch(segment)))

    def check_roots(self, roots: Collection[str]) -> None:
        """Check the templates against the gateway's roots.

        Raises:
            ValueError: a subject would never be served, or a publish subject never stored.
        """
        stand_in = dict.fromkeys((*self.parameters, SUB, TYPE), "x")
        for template in self.subjects:
            try:
                parse_filter(_fill(template, stand_in), roots)
            except (BadRequest, Forbidden) as error:
                filled = f" (with x for what is in braces, {_fill(template, stand_in)})" if "{" in template else ""
                raise ValueError(f"route: {self.name}: subjects: {template}{filled}: {error.detail}") from None
        if self.publish is not None and self.publish.split(".")[0] not in roots:
            raise ValueError(f"route: {self.name}: publish: {self.publish!r} does not begin with one of the roots")

    def match(self, raw_path: bytes) -> dict[str, str] | None:
        """The parameters, encoded as ids, when the path is this route's; else None.

        Raises:
            BadRequest: it is this route's, but a parameter is no UTF-8 text in valid percent-encoding.
        """
        given = raw_path[1:].split(b"/")
        if len(given) != len(self.segments):
            return None
        found: dict[str, bytes] = {}
        for segment, raw in zip(self.segments, given, strict=True):
            if shape := _PARAMETER.fullmatch(segment):
                if not raw:
                    return None
                found[shape[1]] = raw
            elif segment.encode("ascii") != raw:
                return None
        return {name: _parameter(name, raw) for name, raw in found.items()}

    def filters(self, parameters: Mapping[str, str], roots: Collection[str]) -> list[Filter]:
        """The filters of this route with its parameters filled in.

        Raises:
            Forbidden: the route needs a signed-in user and there is none.
            BadRequest: the filled-in subject is too long.
        """
        return [parse_filter(_fill(template, parameters), roots) for template in self.subjects]

    def publish_subject(self, parameters: Mapping[str, str], event_type: str) -> str:
        """Where a client's message goes.

        Args:
            parameters: those of the path, and `sub`.
            event_type: the `type` of the message, as it came.

        Raises:
            BadRequest: the type is no id, or makes the subject too long: NATS ends the connection of whoever sends it
                a longer one than it takes.
        """
        assert self.publish is not None
        try:
            subject = _fill(self.publish, {**parameters, TYPE: encode_id(event_type)})
        except InvalidId as error:
            raise BadRequest(f"type: {error}") from None
        if len(subject) > MAX_SUBJECT_BYTES:
            raise BadRequest(f"type: it makes the subject longer than {MAX_SUBJECT_BYTES} bytes; use a shorter one.")
        return subject


def _parameter(name: str, raw: bytes) -> str:
    if _BAD_ESCAPE.search(raw):
        raise BadRequest(f"The path's {name} holds a % that is not followed by two hex digits; a literal % is %25.")
    try:
        return encode_id(unquote_to_bytes(raw).decode("utf-8"))
    except UnicodeDecodeError:
        raise BadRequest(f"The path's {name} is not UTF-8 once its percent-encoding is undone.") from None
    except InvalidId as error:
        raise BadRequest(f"The path's {name}: {error}") from None


def _check_template(template: str, known: Collection[str]) -> None:
    for token in template.split("."):
        shape = _PARAMETER.fullmatch(token)
        if shape is None and ("{" in token or "}" in token):
            raise ValueError(
                f"subject {template!r}: {token!r} mixes text and a parameter; a parameter is a whole token"
            )
        if shape is not None and shape[1] not in known:
            raise ValueError(
                f"subject {template!r}: {{{shape[1]}}} is not in the path; known: {' '.join(sorted(known))}"
            )


def _fill(template: str, parameters: Mapping[str, str]) -> str:
    tokens = []
    for token in template.split("."):
        shape = _PARAMETER.fullmatch(token)
        if shape is not None and not parameters.get(shape[1]):
            raise Forbidden("This route belongs to a signed-in user, and you are not signed in.")
        tokens.append(parameters[shape[1]] if shape is not None else token)
    return ".".join(tokens)

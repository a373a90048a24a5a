"""What a `natsgate.v1` client sends: one JSON object a message, read into values. And the replies, as bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.core import frames
from gateway.core.carriers import MAX_TOKEN_CHARS
from gateway.core.errors import BadRequest, ClientError, ErrorCode
from gateway.core.json_text import members
from gateway.core.query import parse_start
from gateway.core.start import Start

Ref = str | None
"""What a client marks a request with, as the JSON text that it is: a number or a string; None: nothing. The reply has
the same text, since a number that is read and written anew may come back as another one."""

MAX_REF_CHARS = 128


class BadOp(BadRequest):
    """A message that cannot be answered otherwise. `ref`: the request's, where it could be read."""

    def __init__(self, detail: str, *, code: ErrorCode, ref: Ref = None) -> None:
        super().__init__(detail, code=code)
        self.ref = ref


@dataclass(frozen=True, slots=True)
class Subscribe:
    """`subscribe`: begin a feed of these filters, as the client spelled them, at `start`."""

    ref: Ref
    subjects: tuple[str, ...]
    start: Start


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """`unsubscribe`: end a feed, by its name."""

    ref: Ref
    feed: str


@dataclass(frozen=True, slots=True)
class Ping:
    """`ping`: answered by `pong`. A page cannot send protocol pings."""

    ref: Ref


@dataclass(frozen=True, slots=True)
class Auth:
    """`auth`: who the client is; later, a newer token of the same user."""

    ref: Ref
    token: str = field(repr=False)


Op = Subscribe | Unsubscribe | Ping | Auth


def parse_op(message: bytes) -> Op:
    """Read one message.

    Raises:
        BadOp: with the code `bad_json`, `bad_request` or `unknown_op`.
    """
    try:
        content = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise BadOp(f"The message is no JSON: {error}", code="bad_json") from None
    if not isinstance(content, dict):
        raise BadOp('The message is no JSON object. Send one such as {"op":"ping","ref":1}.', code="bad_json")
    ref = _ref(content, message)
    op = content.get("op")
    if not isinstance(op, str):
        raise BadOp('op is missing. Send one such as {"op":"ping","ref":1}.', code="bad_request", ref=ref)
    if op not in _OPS:
        raise BadOp(f"There is no op {op[:40]!r} here. Known: {', '.join(_OPS)}.", code="unknown_op", ref=ref)
    read, fields = _OPS[op]
    for name in content:
        if name not in fields and name not in ("op", "ref"):
            known = ", ".join(("op", "ref", *fields))
            raise BadOp(f"There is no field {name[:40]!r} in {op}. Known: {known}.", code="bad_request", ref=ref)
    return read(content, ref)


def _ref(content: Mapping[str, Any], message: bytes) -> Ref:
    value = content.get("ref")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BadOp("ref is to be a number or a string.", code="bad_request")
    try:
        text = members(message.decode("utf-8"))["ref"]
    except RecursionError:  # the parser before this one goes deeper
        raise BadOp("The message is nested too deep.", code="bad_json") from None
    if len(value if isinstance(value, str) else text) > MAX_REF_CHARS:
        raise BadOp(f"ref is longer than {MAX_REF_CHARS} characters.", code="bad_request")
    return text


def _subscribe(content: Mapping[str, Any], ref: Ref) -> Subscribe:
    return Subscribe(ref, _subjects(content, ref), _start(content, ref))


def _unsubscribe(content: Mapping[str, Any], ref: Ref) -> Unsubscribe:
    return Unsubscribe(ref, _text(content, "feed", ref))


def _auth(content: Mapping[str, Any], ref: Ref) -> Auth:
    return Auth(ref, _token(content, ref))


def _ping(content: Mapping[str, Any], ref: Ref) -> Ping:
    return Ping(ref)


_OPS: dict[str, tuple[Callable[[Mapping[str, Any], Ref], Op], tuple[str, ...]]] = {
    "subscribe": (_subscribe, ("subject", "subjects", "cursor", "since", "snapshot")),
    "unsubscribe": (_unsubscribe, ("feed",)),
    "auth": (_auth, ("token",)),
    "ping": (_ping, ()),
}
"""Each op: how it is read, and the fields that it has beside `op` and `ref`."""


def _subjects(content: Mapping[str, Any], ref: Ref) -> tuple[str, ...]:
    if "subject" in content and "subjects" in content:
        raise BadOp("Give subject or subjects, not both.", code="bad_request", ref=ref)
    given = content["subjects"] if "subjects" in content else [_text(content, "subject", ref)]
    if not isinstance(given, list) or not given or not all(isinstance(each, str) for each in given):
        raise BadOp('subjects is to be a list of filters, such as ["repo.42.>"].', code="bad_request", ref=ref)
    return tuple(given)


def _start(content: Mapping[str, Any], ref: Ref) -> Start:
    for key, kind in (("cursor", str), ("since", str), ("snapshot", bool)):
        if content.get(key) is not None and not isinstance(content[key], kind):
            raise BadOp(f"{key} is to be a {'boolean' if kind is bool else 'string'}.", code="bad_request", ref=ref)
    try:
        return parse_start(cursor=content.get("cursor"), since=content.get("since"), snapshot=content.get("snapshot"))
    except BadRequest as error:
        raise BadOp(error.detail, code=error.code, ref=ref) from None


def _token(content: Mapping[str, Any], ref: Ref) -> str:
    token = _text(content, "token", ref)
    if not token or len(token) > MAX_TOKEN_CHARS:
        raise BadOp(f"token is empty or longer than {MAX_TOKEN_CHARS} characters.", code="bad_request", ref=ref)
    return token


def _text(content: Mapping[str, Any], key: str, ref: Ref) -> str:
    value = content.get(key)
    if not isinstance(value, str):
        raise BadOp(f"{key} is missing or no string.", code="bad_request", ref=ref)
    return value


def reply(op: str, **fields: Any) -> bytes:
    """A reply, as a text frame. `ref`: see `Ref`."""
    if fields.get("ref") is not None:
        fields["ref"] = orjson.Fragment(fields["ref"])
    return frames.text(orjson.dumps({"op": op, **fields}))


def hello(connection: str, replica: str, *, authenticated: bool) -> bytes:
    """The first frame of every connection."""
    return reply("hello", connection=connection, replica=replica, authenticated=authenticated)


def error_reply(error: ClientError, ref: Ref) -> bytes:
    """An `error`, as a text frame. The connection stays open."""
    return reply("error", ref=ref, code=error.code, message=error.detail)

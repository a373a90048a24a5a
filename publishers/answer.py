"""What NATS answers to an event: stored, refused for good, or a reason to try again."""

from __future__ import annotations

import orjson

from publishers.errors import Refused
from publishers.outbox import Ack


def read_answer(subject: str, data: bytes, status: str | None) -> Ack | Refused | str:
    """Read the answer to an event.

    Args:
        subject: the event's, for what is said.
        data: the answer's payload: JetStream's acknowledgement, or its error.
        status: the answer's, such as `503` where nobody listens.

    Returns:
        the acknowledgement; the refusal, which is final; or why it is not stored now.
    """
    if status is not None:
        no_stream = f"no stream stores {subject}: provision it, or use one of its roots"
        return no_stream if status == "503" else f"{subject}: NATS answered {status}"
    try:
        answer = orjson.loads(data)
        error = answer.get("error")
        if not error:
            return Ack(answer["stream"], answer["seq"], answer.get("duplicate", False))
    except (orjson.JSONDecodeError, AttributeError, KeyError):
        return f"{subject}: something that is no stream answered {data[:80]!r}"
    code, err_code = error.get("code", 0), error.get("err_code", 0)
    said = f"{subject}: {error.get('description')} (code {code}, err_code {err_code})"
    if code == 400:
        return Refused(f"the stream refused {said}", code=code, err_code=err_code)
    return f"the stream did not store {said}"


def forbidden(subject: str) -> Refused:
    """The refusal of an event that the login may not publish."""
    what = f"the NATS login may not publish to {subject}"
    mend = "let it (deploy/nats/README.md has a table of rights), or log in as somebody who may"
    return Refused(f"{what}: it is not stored; {mend}", code=403, err_code=0)

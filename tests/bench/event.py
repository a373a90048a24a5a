"""The benchmark's event: a number that every client counts, in a JSON object of fixed size."""

SUBJECT = "repo.bench.tick"
FILTER = "repo.bench.>"
OTHER_SUBJECT = "repo.elsewhere.tick"
EVENT_BYTES = 250

_BEFORE = b'{"type":"tick","ts":1700000000000,"id":"~'
_AFTER = b'","repo_id":"bench","payload":{"text":"'
_END = b'"}}'
_PAD = b"x" * (EVENT_BYTES - len(_BEFORE) - 8 - len(_AFTER) - len(_END))
_TAIL = _AFTER + _PAD + _END


def event(number: int) -> bytes:
    """Event `number`: EVENT_BYTES bytes, with `~` and eight digits, the mark that drain.c looks for."""
    return _BEFORE + b"%08d" % number + _TAIL

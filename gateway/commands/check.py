"""`natsgate check`: whether NATS and the stream are as a gateway with these settings needs them."""

from __future__ import annotations

from gateway.commands.auth_findings import look_at_keys
from gateway.commands.bucket import look_at_bucket
from gateway.commands.finding import Finding, fine, note, problem
from gateway.commands.nats_session import NotPermitted, Session, open_session
from gateway.commands.outcome import NatsNotReached
from gateway.commands.overlaps import explained, overlaps
from gateway.commands.permissions import silence_of, try_permissions
from gateway.commands.quantities import show_duration, show_size
from gateway.commands.stream_findings import look_at
from gateway.core.bucket import BUCKET_SHAPE, BucketShape
from gateway.core.errors import UpstreamError, UpstreamRefused
from gateway.core.stream import NO_SUCH_STREAM, StreamShape, StreamState
from gateway.nats_settings import bucket_of, shape_of, without_login
from gateway.settings import Settings


async def check(settings: Settings) -> tuple[list[Finding], bool]:
    """Look at everything.

    Returns:
        what was found; and whether NATS was reached.

    Raises:
        ConfigError: a certificate, key or credentials file cannot be loaded.
    """
    found = [
        fine(
            "settings",
            f"stream {settings.stream}, roots {' '.join(settings.roots)}, live prefix {settings.live_prefix}, "
            f"{len(settings.route)} routes, auth {settings.auth}",
        ),
        *await look_at_keys(settings),
    ]
    try:
        async with open_session(settings) as session:
            urls = " ".join(without_login(settings.nats_url))
            found.append(fine("nats", f"connected to {session.server} (of {urls})"))
            return found + await _beyond_reach(session, settings), True
    except NatsNotReached as error:
        text, _, mend = str(error).rpartition("; ")
        return [*found, problem("nats", text, mend)], False


async def _beyond_reach(session: Session, settings: Settings) -> list[Finding]:
    shape = shape_of(settings)
    revocation = settings.auth == "jwt"
    trial = await try_permissions(session, shape, revocation=revocation)
    found = trial.findings
    told = trial.told.get(shape.name)
    if told is None:
        return found  # without an inbox no answer comes
    missing = isinstance(told, UpstreamRefused) and told.code == NO_SUCH_STREAM
    if missing or isinstance(told, StreamState | NotPermitted):
        # First: while another stream stores our subjects, no `provision` mends what is said of ours.
        found += await _overlaps(session, shape, new=missing)
    if isinstance(told, StreamState):
        found += _stream(shape, told)
    elif missing:
        found.append(problem("stream", f"there is no stream {shape.name}", f"run: {shape.provision}"))
    elif not isinstance(told, NotPermitted):
        return [*found, silence_of(told)]
    if revocation:
        found += _bucket(bucket_of(settings), trial.told.get(BUCKET_SHAPE.name))
    return found


def _bucket(shape: BucketShape, told: StreamState | UpstreamError | None) -> list[Finding]:
    name = shape.name
    if isinstance(told, StreamState):
        found = look_at_bucket(shape, told.config)
        if any(each.level == "problem" for each in found):
            return found
        text = f"{name} holds {told.subjects} entries ({told.bytes} of {show_size(int(told.config['max_bytes']))})"
        return [fine("bucket", text), *found]
    if isinstance(told, UpstreamRefused) and told.code == NO_SUCH_STREAM:
        return [
            note("bucket", f"there is no stream {name}: nobody is revoked", f"{shape.provision}, or revoke, makes it")
        ]
    if told is None or isinstance(told, NotPermitted):
        return []  # said with the permissions
    mend = "look at the cluster: nats stream report, nats server report jetstream"
    return [problem("bucket", f"the leader of {name} does not answer: {told!s}", mend)]


def _stream(shape: StreamShape, state: StreamState) -> list[Finding]:
    found = look_at(shape, state.config)
    if any(each.level == "problem" for each in found):
        return found
    age, size = int(state.config.get("max_age") or 0), int(state.config.get("max_bytes") or -1)
    kept = f"{show_duration(age / 1e9) if age else 'any age'}, {show_size(size) if size > 0 else 'any size'}"
    text = f"{shape.name} holds {state.messages} events ({state.bytes} bytes), keeps {kept}, republishes to "
    return [fine("stream", f"{text}{shape.live_prefix}.>"), *found]


async def _overlaps(session: Session, shape: StreamShape, *, new: bool) -> list[Finding]:
    live = f"{shape.live_prefix}.>"
    try:
        found = await overlaps(session, shape.name, [f"{root}.>" for root in shape.roots])
        doubled = await overlaps(session, shape.name, [live])
    except NotPermitted as error:
        text = f"whether other streams store the same subjects is not known: no right to publish {error.subject}"
        return [note("stream", text, "allow it to have it checked")]
    except UpstreamError as error:
        return [note("stream", f"whether other streams store the same subjects is not known: {error}")]
    told = [problem("stream", text, mend) for text, mend in explained(found, shape, new=new)]
    for name in doubled:
        text = f"stream {name} stores subjects below {live}, so every event is stored twice"
        mend = f"take them from it (nats stream edit {name} --subjects …), or set another NATSGATE_LIVE_PREFIX"
        told.append(problem("stream", text, mend))
    return told

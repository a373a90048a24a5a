"""The `natsgate` command: how each command is spelled. What they do is in `gateway.commands`."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway import __version__
from gateway.commands.entry import (
    client_settings,
    config_option,
    die,
    nats_url_option,
    on_nats,
    quiet_logs,
    settings_of,
    tell,
)
from gateway.commands.outcome import EXIT_DONE, EXIT_NOT_REACHED, EXIT_WRONG, CommandFailed
from gateway.commands.quantities import DURATION, SIZE
from gateway.core.errors import ConfigError

if TYPE_CHECKING:
    from gateway.settings import Settings

# Everything else is imported by the command that needs it: most of them are done before the rest would be loaded.


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="natsgate")
def main() -> None:
    """Pushes NATS events to browsers: Server-Sent Events and WebSocket, resumable from JetStream.

    Settings are NATSGATE_* environment variables or a TOML file; see gateway/README.md.
    """


@main.command()
@config_option
@click.option("--listen", help="Where to serve, host:port (NATSGATE_LISTEN).")
def serve(config: Path | None, listen: str | None) -> None:
    """Run one replica. It listens at once and is ready when NATS and the stream are usable."""
    import signal

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can be served, it would end us: a reload is no reason to

    from gateway import logs
    from gateway.server import NotReached
    from gateway.server import serve as run
    from gateway.settings import load_settings, log_format

    settings = settings_of(config, listen=listen)
    logs.configure(settings.log_level, log_format(settings))
    try:
        run(settings, lambda: load_settings(config=config, given={"listen": listen}))
    except ConfigError as error:
        die(EXIT_WRONG, str(error))
    except NotReached as error:
        die(EXIT_NOT_REACHED, str(error))


@main.command()
@config_option
@nats_url_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def check(config: Path | None, nats_url: str | None, as_json: bool) -> None:
    """Look at settings, NATS, its permissions and the stream; every problem comes with its mend.

    Exit code 2: something is wrong. 3: NATS was not reached within NATSGATE_START_TIMEOUT_S (5 s where that is 0).
    """
    import asyncio

    from gateway.commands import finding
    from gateway.commands.check import check as run
    from gateway.settings import load_settings

    quiet_logs()
    reached = True
    try:
        settings = load_settings(config=config, given={"nats_url": nats_url}, keyless=True)
        found, reached = asyncio.run(run(settings))
    except (ConfigError, CommandFailed) as error:
        problems = error.problems if isinstance(error, ConfigError) else [str(error)]
        if not as_json:
            for each in problems[:-1]:
                tell(each)
            die(EXIT_WRONG, problems[-1])
        found = [finding.problem("settings", each, "") for each in problems]
    click.echo(finding.as_json(found) if as_json else "\n".join(each.line() for each in found))
    sys.exit(EXIT_NOT_REACHED if not reached else EXIT_DONE if finding.healthy(found) else EXIT_WRONG)


@main.command()
@on_nats
@click.option("--replicas", type=click.IntRange(1, 5), help="Copies in a cluster.  [default: 1]")
@click.option("--max-age", type=DURATION, help="How long events are kept, such as 24h; 0: no limit.  [default: 24h]")
@click.option("--max-bytes", type=SIZE, help="How much is kept, such as 1GiB; 0: no limit.  [default: 1GiB]")
@click.option("--new-epoch", is_flag=True, help="After a restore: every cursor is of an earlier life from now on.")
@click.option("--yes", is_flag=True, help="Change an existing stream without asking.")
def provision(
    settings: Settings,
    replicas: int | None,
    max_age: float | None,
    max_bytes: int | None,
    new_epoch: bool,
    yes: bool,
) -> None:
    """Create the stream that stores and republishes all events, and the bucket of revoked users, or change them.

    What would change is shown first. Options that are not given leave an existing stream as it is.
    """
    from gateway.commands.provision import Speech, attended
    from gateway.commands.provision import provision as run
    from gateway.commands.stream_change import Wishes

    wishes = Wishes(replicas, max_age, max_bytes, secrets.token_hex(8) if new_epoch else None)
    run(settings, wishes, Speech(click.echo, tell, click.confirm if attended() else None), yes=yes)


@main.command()
@config_option
@click.option("--sub", required=True, help="Whose token it is.")
@click.option("--subscribe", multiple=True, metavar="PATTERN", help="What it may see, e.g. 'repo.42.>'; repeatable.")
@click.option("--publish", multiple=True, metavar="PATTERN", help="Where it may publish; repeatable.")
@click.option("--ttl", type=DURATION, default="1h", show_default=True, help="How long it is valid.")
@click.option("--issuer", help="The claim iss, for gateways that check it.")
@click.option("--audience", help="The claim aud, for gateways that check it.")
def token(
    config: Path | None,
    sub: str,
    subscribe: tuple[str, ...],
    publish: tuple[str, ...],
    ttl: float,
    issuer: str | None,
    audience: str | None,
) -> None:
    """Print a token, signed (HS256) with NATSGATE_JWT_SECRET. In a pattern {sub} stands for the token's own --sub."""
    from gateway.commands.token import idle_rights, mint

    settings = client_settings(config)
    try:
        signed = mint(
            settings, sub=sub, subscribe=subscribe, publish=publish, ttl_s=ttl, issuer=issuer, audience=audience
        )
        if not (subscribe or publish):
            tell("this token gives no rights; --subscribe 'repo.42.>' and --publish give some")
        for line in idle_rights(settings, subscribe=subscribe, publish=publish):
            tell(line)
        click.echo(signed)
    except CommandFailed as error:
        die(error.code, str(error))


@main.command()
@click.argument("sub", required=False)
@on_nats
@click.option("--at", metavar="TIME", help="Tokens issued before it; RFC 3339 or seconds since 1970.  [default: now]")
@click.option("--lift", "lifted", is_flag=True, help="Take the tokens again.")
@click.option("--list", "shown", is_flag=True, help="Show who is revoked: a line each, <time> <sub>.")
def revoke(settings: Settings, sub: str | None, at: str | None, lifted: bool, shown: bool) -> None:
    """Refuse the tokens of SUB that were issued until now, on every replica, and end the connections that have them.

    A token that was issued later is taken. A TIME in the future refuses new ones, too, until then. Exit code 2: it is
    not done. 3: NATS was not reached.
    """
    import asyncio

    from gateway.commands import revoke as revoking

    if shown and (sub is not None or at is not None or lifted):
        raise CommandFailed("--list goes alone")
    if lifted and at is not None:
        raise CommandFailed("--lift takes every token again; leave --at out")
    if shown:
        lines, complaints = asyncio.run(revoking.listed(settings))
        for complaint in complaints:
            tell(complaint)
        for line in lines:
            click.echo(line)
    elif sub is None:
        raise CommandFailed("whose tokens? Give SUB, the claim sub of the tokens; or --list")
    elif lifted:
        asyncio.run(revoking.lift(settings, sub, click.echo))
    else:
        asyncio.run(revoking.revoke(settings, sub, revoking.parse_at(at), click.echo))


@main.command()
@click.argument("subject")
@click.argument("event", required=False)
@on_nats
@click.option("--lines", is_flag=True, help="Standard input holds one event a line (JSON lines).")
@click.option("--id", "msg_id", help="The Nats-Msg-Id: the same twice is stored once. With --lines: its beginning.")
def publish(settings: Settings, subject: str, event: str | None, lines: bool, msg_id: str | None) -> None:
    """Store EVENT, a JSON object, under SUBJECT (root.id.type) in NATS. Without EVENT, or with -, from standard input.

    Says the sequence once the stream has stored it. Exit code 2: something was not stored. 3: NATS was not reached.
    """
    import asyncio

    from gateway.commands import publish as publishing
    from gateway.nats_settings import place_of

    try:
        publishing.check_subject(subject, settings)
        if not lines:
            given = None if event in (None, "-") else str(event).encode("utf-8", "surrogateescape")
            ack = asyncio.run(publishing.publish_one(settings, subject, given, msg_id))
            became = f"duplicate of {ack.sequence}" if ack.duplicate else f"stored {ack.sequence}"
            click.echo(f"{became} at {place_of(settings)}")
            return
        if event not in (None, "-"):
            raise CommandFailed("--lines reads standard input; leave the event out")
        publishing.publish_lines(settings, subject, msg_id)
    except KeyboardInterrupt:
        die(EXIT_WRONG, "interrupted")


@main.command()
@click.argument("filters", nargs=-1, metavar="[FILTER]...")
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Where the gateway is.")
@click.option("--route", metavar="PATH", help="A configured route instead of filters, such as /api/….")
@click.option("--since", help="Begin in the past: all, a duration (15m) or an RFC 3339 time.")
@click.option("--until-head", is_flag=True, help="End when everything stored so far was shown.")
@click.option("--json", "as_json", is_flag=True, help='One line per event: {"cursor":…,"type":…,"event":{…}}.')
@click.option("--token", envvar="NATSGATE_TOKEN", help="A bearer token (better: NATSGATE_TOKEN).")
def tail(
    filters: tuple[str, ...],
    url: str,
    route: str | None,
    since: str | None,
    until_head: bool,
    as_json: bool,
    token: str | None,
) -> None:
    """Follow events of a gateway, e.g. natsgate tail 'repo.42.>' 'user.*.notification'.

    It comes back by itself where it was. Exit code 2: the gateway refuses. Ctrl-C ends it with 0.
    """
    import os

    from gateway.commands.tail import Request
    from gateway.commands.tail import tail as run
    from gateway.commands.tail_line import console_line, json_line, printable
    from gateway.core.sse_reader import SseEvent

    tty = sys.stdout.isatty()

    def show(event: SseEvent) -> None:
        line = json_line(event) if as_json else console_line(event, colours=tty)
        # For a program the event's own text, for a terminal nothing that it would act on: both are the same JSON.
        sys.stdout.buffer.write((printable(line) if as_json and tty else line).encode() + b"\n")
        sys.stdout.buffer.flush()

    try:
        run(Request(url, filters, route, since, until_head, token), show, lambda text: tell(printable(text)))
    except CommandFailed as error:
        die(error.code, printable(str(error)))
    except BrokenPipeError:
        # Who read us is gone, as with `| head`: that is no failure, and flushing at the end would only complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@main.command()
@click.option(
    "--url",
    "urls",
    multiple=True,
    default=("http://127.0.0.1:8080",),
    show_default=True,
    help="Where a replica's /metrics is; repeatable.",
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="One table, for scripts.")
def top(urls: tuple[str, ...], interval: float, once: bool) -> None:
    """Replicas side by side: connections, rates, latency, who is behind, gaps, NATS. Ctrl-C ends it.

    Rates and latencies are those since the look before. Exit code 3: with --once, a replica could not be looked at.
    """
    import os
    import signal

    from gateway.commands.top import Screen, Top

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    screen = Screen(sys.stdout, tty=sys.stdout.isatty() and not once)
    try:
        watched = Top(urls, interval)
        if once:
            sys.exit(watched.once(screen.show))
        watched.live(screen.show)
    except CommandFailed as error:
        die(error.code, str(error))
    except KeyboardInterrupt:
        screen.leave()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # see `tail`


@main.command()
@click.option("--listen", default="127.0.0.1:8080", show_default=True, help="Where the gateway serves; loopback only.")
@click.option("--nats-port", default=4222, show_default=True, type=click.IntRange(1, 65535), help="nats-server's port.")
@click.option("--nats-server", metavar="PATH", help="The nats-server binary.  [default: the embedded one, or PATH's]")
@click.option("--samples/--no-samples", default=True, show_default=True, help="Publish sample events.")
@click.option("--fresh", is_flag=True, help="Forget the events of earlier runs.")
def dev(listen: str, nats_port: int, nats_server: str | None, samples: bool, fresh: bool) -> None:
    """An own nats-server, the stream, a gateway and sample events on this machine. Ctrl-C ends all of it."""
    from gateway.dev import ChildEnded, Dev, parse_listen

    try:
        address = parse_listen(listen)
        run = Dev(address.host, address.port, nats_port, nats_server=nats_server, samples=samples, say=click.echo)
        run.run(fresh=fresh)
    except ConfigError as error:
        die(EXIT_WRONG, str(error))
    except ChildEnded as error:
        die(1, str(error))

"""The `natsgate` command."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from random import Random
from typing import NoReturn

import click

from gateway import __version__, logs
from gateway.core.errors import ConfigError, UpstreamError, UpstreamRefused
from gateway.core.stream import NO_SUCH_STREAM
from gateway.settings import Settings, load_settings, log_format

EXIT_WRONG, EXIT_NOT_REACHED = 2, 3

_config = click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="A TOML file with settings and routes."
)


def _die(code: int, text: str) -> NoReturn:
    click.echo(f"natsgate: {text}", err=True)
    sys.exit(code)


def _settings(config: Path | None, **given: object) -> Settings:
    try:
        return load_settings(config=config, given=given)
    except ConfigError as error:
        _die(EXIT_WRONG, str(error))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="natsgate")
def main() -> None:
    """Pushes NATS events to browsers: Server-Sent Events and WebSocket, resumable from JetStream.

    Settings are NATSGATE_* environment variables or a TOML file; see gateway/README.md.
    """


@main.command()
@_config
@click.option("--listen", help="Where to serve, host:port (NATSGATE_LISTEN).")
def serve(config: Path | None, listen: str | None) -> None:
    """Run one replica. It listens at once and is ready when NATS and the stream are usable."""
    from gateway.server import NotReached
    from gateway.server import serve as run

    settings = _settings(config, listen=listen)
    logs.configure(settings.log_level, log_format(settings))
    try:
        run(settings)
    except ConfigError as error:
        _die(EXIT_WRONG, str(error))
    except NotReached as error:
        _die(EXIT_NOT_REACHED, str(error))


@main.command()
@_config
def provision(config: Path | None) -> None:
    """Create the stream that stores and republishes all events."""
    settings = _settings(config)
    logs.configure("warning", log_format(settings))
    sys.exit(asyncio.run(_provision(settings)))


async def _provision(settings: Settings) -> int:
    from gateway.server import nats_options, shape_of
    from gateway.upstream.api import StreamApi
    from gateway.upstream.connection import NatsConnection

    up = asyncio.Event()
    nats = NatsConnection(
        nats_options(settings),
        random=Random(),
        on_change=lambda connected: up.set() if connected else up.clear(),
        on_trouble=lambda event, fields: None,
    )
    running = asyncio.create_task(nats.run())
    api = StreamApi(nats, shape_of(settings))
    wanted = api.shape.config()
    try:
        async with asyncio.timeout(settings.start_timeout_s or 10):
            await up.wait()
        try:
            state = await api.info()
        except UpstreamRefused as error:
            if error.code != NO_SUCH_STREAM:
                raise
            await api.create(wanted)
            click.echo(f"stream {settings.stream} created: {json.dumps(wanted)}")
            return 0
        problems = api.shape.problems(state.config)
        if problems:
            for problem in problems:
                click.echo(f"natsgate: {problem}", err=True)
            return EXIT_WRONG
        click.echo(f"stream {settings.stream} is there and usable; nothing to do")
        return 0
    except TimeoutError:
        click.echo(f"natsgate: NATS at {' '.join(settings.nats_url)} was not reached: {nats.last_error}", err=True)
        return EXIT_NOT_REACHED
    except UpstreamError as error:
        click.echo(f"natsgate: {error}", err=True)
        return EXIT_WRONG
    finally:
        running.cancel()
        await asyncio.wait([running])


@main.command()
@click.option("--listen", default="127.0.0.1:8080", show_default=True, help="Where the gateway serves; loopback only.")
@click.option("--nats-port", default=4222, show_default=True, type=click.IntRange(1, 65535), help="nats-server's port.")
@click.option("--nats-server", metavar="PATH", help="The nats-server binary.  [default: the embedded one, or PATH's]")
@click.option("--samples/--no-samples", default=True, show_default=True, help="Publish sample events.")
@click.option("--fresh", is_flag=True, help="Forget the events of earlier runs.")
def dev(listen: str, nats_port: int, nats_server: str | None, samples: bool, fresh: bool) -> None:
    """An own nats-server, the stream, a gateway and sample events on this machine. Ctrl-C ends all of it."""
    from gateway.dev import ChildEnded, Dev

    address = _settings(None, listen=listen, auth="none", insecure=False).listen
    if not address.port:
        _die(EXIT_WRONG, "--listen: give a port; dev tells you the URL to open")
    run = Dev(address.host, address.port, nats_port, nats_server=nats_server, samples=samples, say=click.echo)
    try:
        run.run(fresh=fresh)
    except ConfigError as error:
        _die(EXIT_WRONG, str(error))
    except ChildEnded as error:
        _die(1, str(error))

"""What the commands have in common: options, settings, and how they say that something is wrong."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from gateway.commands.outcome import EXIT_WRONG, CommandFailed
from gateway.core.errors import ConfigError

if TYPE_CHECKING:
    from gateway.settings import Settings

config_option = click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="A TOML file with settings and routes."
)
nats_url_option = click.option(
    "--nats-url", help="NATS servers, comma-separated (NATSGATE_NATS_URL). Logins are better in NATSGATE_NATS_*."
)


def die(code: int, text: str) -> NoReturn:
    """End the command with a line on standard error and this exit code."""
    click.echo(f"natsgate: {text}", err=True)
    sys.exit(code)


def settings_of(config: Path | None, **given: object) -> Settings:
    """The settings; wrong ones end the command.

    Args:
        config: the TOML file.
        given: what the command line says; None: nothing.
    """
    from gateway.settings import load_settings

    try:
        return load_settings(config=config, given=given)
    except ConfigError as error:
        die(EXIT_WRONG, str(error))


def client_settings(config: Path | None, **given: object) -> Settings:
    """The same for commands that serve nobody: who may connect to a gateway is not their business."""
    return settings_of(config, auth="none", insecure=True, **given)


def on_nats(command: Callable[..., None]) -> Callable[..., None]:
    """A command that serves nobody and talks to NATS: its options, its settings, its failures."""

    @config_option
    @nats_url_option
    @functools.wraps(command)
    def run(config: Path | None, nats_url: str | None, **rest: object) -> None:
        settings = client_settings(config, nats_url=nats_url)
        quiet_logs()
        try:
            command(settings, **rest)
        except ConfigError as error:
            die(EXIT_WRONG, str(error))
        except CommandFailed as error:
            die(error.code, str(error))

    return run


def quiet_logs() -> None:
    """Log errors only: a command says itself what its user has to know."""
    from gateway import logs

    logs.configure("error", "console")


def tell(text: str) -> None:
    """Say a line on standard error; standard output is for what was asked for."""
    click.echo(f"natsgate: {text}", err=True)

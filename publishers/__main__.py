"""`python -m publishers`: the sample publishers."""

from __future__ import annotations

import asyncio
import dataclasses
import sys

import click

from publishers import demo as demonstration
from publishers.errors import SettingsError
from publishers.settings import Settings

_FOR_EVER_S = 1e9


@click.group()
def main() -> None:
    """Publishers for natsgate."""


@main.command()
@click.option("--nats-url", help="NATS URLs, comma-separated.  [default: NATSGATE_NATS_URL, or 127.0.0.1:4222]")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=5.0, show_default=True)
@click.option("--repos", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
def demo(nats_url: str | None, rate: float, repos: int, seed: int) -> None:
    """Publish sample events of four systems, RATE per second, until Ctrl-C.

    Logins come from the NATSGATE_NATS_* variables. It waits for NATS and for the stream.
    """
    try:
        settings = Settings.from_env()
        servers = nats_url or settings.servers
        settings = dataclasses.replace(
            settings, servers=servers, name="natsgate-demo", retry_for_s=_FOR_EVER_S, backoff_max_s=1.0
        )
    except SettingsError as err:
        click.echo(f"error: {err}", err=True)
        sys.exit(2)
    click.echo(f"samples at {rate:g} events/s of {repos} repositories, a pipeline, documents and boards", err=True)
    asyncio.run(
        demonstration.run(
            settings,
            rate=rate,
            repos=repos,
            seed=seed,
            say=lambda line: click.echo(line, err=True),
        )
    )


if __name__ == "__main__":
    main()

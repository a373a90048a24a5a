"""The scene: everything a run needs, made and taken down around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from tests.stress.plan import Plan
from tests.stress.run import Outcome, Run, repairs
from tests.stress.stage import Stage
from tests.support.command import natsgate
from tests.support.nats_cluster import NatsCluster
from tests.support.nats_server import NatsServer

CLIENTS = 60
RATE = 250.0


async def play(
    plan: Plan,
    folder: Path,
    *,
    say: Callable[[str], None],
    clients: int = CLIENTS,
    rate: float = RATE,
    cluster: bool = False,
) -> Outcome:
    """Carry out a plan in a folder of its own; the processes' logs stay there."""
    async with AsyncExitStack() as stack:
        if cluster:
            trio = await stack.enter_async_context(NatsCluster(folder / "nats"))
            await trio.make_stream()
            servers = list(trio.servers)
        else:
            server = await stack.enter_async_context(NatsServer(folder / "nats"))
            settings = {"NATS_URL": server.url, "AUTH": "none"}
            done = await asyncio.to_thread(natsgate, "provision", settings=settings)
            assert done.returncode == 0, done.stderr
            servers = [server]
        stage = Stage(folder, servers, plan.replicas)
        stack.push_async_callback(stage.close)
        await stage.open()
        outcome = await Run(plan, stage, clients=clients, rate=rate, say=say).run()
        mended = repairs([await asyncio.to_thread(replica.metrics) for replica in stage.replicas])
        say("mended: " + ", ".join(f"{number:.0f} {what}" for what, number in mended.items()))
        return outcome

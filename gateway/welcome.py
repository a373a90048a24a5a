"""The welcome of `natsgate dev`: what is there now, and what to paste."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def shown(path: Path) -> str:
    """A path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def welcome(address: str, nats_url: str, token: str, *, state: Path, secret: Path) -> str:
    """The screen.

    Args:
        address: the gateway's `host:port`.
        nats_url: where NATS is.
        token: lets its holder have everything.
        state: the folder that holds what is kept.
        secret: the file that holds what tokens are signed with.
    """
    url = f"http://{address}"
    command = "natsgate" if shutil.which("natsgate") else shown(Path(sys.executable).with_name("natsgate"))
    bearer = '-H "Authorization: Bearer $NATSGATE_TOKEN"'
    return "\n".join(
        (
            "",
            f"natsgate is up: NATS at {nats_url}, the gateway at {url}, state in {state}/",
            "",
            "Watch everything that happens to repositories (paste it):",
            f"  curl -N -H 'Authorization: Bearer {token}' '{url}/events?subject=repo.>'",
            "",
            f"Its token, for a month and for everything (more of them: NATSGATE_JWT_SECRET_FILE={secret} "
            f"{command} token --sub …):",
            f"  export NATSGATE_TOKEN={token}",
            "",
            "More of it:",
            f"  curl -N {bearer} '{url}/events?subject=task.*.progress&subject=user.>&named=true'",
            f"  curl -N {bearer} {url}/api/repositories/1/events",
            f"  {command} tail --url {url} 'repo.>'                (takes NATSGATE_TOKEN)",
            f"  ws://{address}/ws                        (subprotocol natsgate.v1; first "
            'message {"op":"auth","ref":1,"token":"…"})',
            f"  ws://{address}/api/projects/1/ws         (bare events)",
            "  From a page of another origin: start it with NATSGATE_ALLOWED_ORIGINS=http://localhost:5173",
            "",
            "In a browser:",
            f"  {url}/events?subject=repo.%3E&access_token={token}",
            "",
            "Publish one yourself, from any NATS client:",
            f"  {command} publish --nats-url {nats_url} repo.42.task.progress "
            '\'{"type":"task.progress","payload":{"percent":50}}\'',
            f'  nats -s {nats_url} pub repo.42.task.progress \'{{"type":"task.progress","payload":{{"percent":50}}}}\'',
            "",
            f"Health: {url}/readyz   metrics: {url}/metrics   Ctrl-C ends all of it.",
            "",
        )
    )

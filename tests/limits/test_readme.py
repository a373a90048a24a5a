"""The limits that are no settings are what gateway/README.md says they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.descriptors import RESERVED
from gateway.transports.journal import LINES, LINES_OF_ONE, WINDOW_S
from gateway.transports.limits import EARLY_BYTES, KEEP_ALIVE_S, MOST_EARLY_BYTES, MOST_PIPELINED, MOST_WAITING
from gateway.transports.sockets import BACKLOG, RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES
from gateway.transports.sse import MOST_SAID_BYTES
from gateway.transports.ws_frames import FRAMES_A_MESSAGE, INBOUND_WINDOW_S, MOST_UNREAD_BYTES
from gateway.transports.ws_raw import MAX_UNSTORED
from gateway.transports.ws_v1 import MAX_FEEDS_BYTES

README = Path(__file__).parents[2] / "gateway" / "README.md"
KIB, MIB = 2**10, 2**20

SAID = [
    f"or that wait for the next one | {MOST_WAITING:,} |",
    f"time between two requests | {KEEP_ALIVE_S:g} s |",
    f"that wait for an answer | {MOST_PIPELINED} |",
    f"the file descriptors, less {RESERVED} |",
    f"an SSE client sends behind its request | {MOST_SAID_BYTES // KIB} KiB |",
    f"`MAX_SUBSCRIPTIONS`, and {MAX_FEEDS_BYTES // KIB} KiB of filters |",
    f"on average over {INBOUND_WINDOW_S:g} s, so ten seconds' worth at once; {FRAMES_A_MESSAGE} pongs or fragments",
    f"messages of one raw client that are not stored yet | {MAX_UNSTORED} |",
    f"messages of all clients that are not whole, or not stored yet | {MOST_UNREAD_BYTES // MIB} MiB |",
    f"before its handshake is answered | {EARLY_BYTES // KIB} KiB, and {MOST_EARLY_BYTES // MIB} MiB of all |",
    f"{LINES_OF_ONE:,} in {WINDOW_S:g} s of one address, {LINES:,} of all",
    f"{2 * SEND_BUFFER_BYTES // KIB} KiB in the kernel; when we do not read it, {2 * RECEIVE_BUFFER_BYTES // KIB} KiB",
    f"| `MAX_CONNECTIONS` + {MOST_WAITING + RESERVED:,} |",
    f"`net.ipv4.tcp_max_syn_backlog` | {BACKLOG} or more |",
    f"| {2 * (SEND_BUFFER_BYTES + RECEIVE_BUFFER_BYTES) // KIB} KiB for each client that may stall |",
]


@pytest.mark.parametrize("said", SAID)
def test_the_readme_says_what_the_code_does(said: str) -> None:
    """A number that is changed in one place is found in the other."""
    assert said in " ".join(README.read_text("utf-8").split("\n"))

"""`natsgate dev`: everything on one machine, gone without a trace on Ctrl-C."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.command import natsgate
from tests.support.dev import Dev
from tests.support.eventually import wait_until
from tests.support.ports import free_port, taken_port
from tests.support.sse import SseClient
from tests.support.tokens import bearer
from tests.support.ws import ws_client

SAMPLE_TYPES = {"repo.status_changed", "task.status_changed", "doc.created", "task.progress", "log.append"}


@pytest.fixture
def dev(tmp_path: Path) -> Dev:
    """A `natsgate dev` with an empty folder; not started."""
    return Dev(tmp_path / "project", tmp_path / "around")


def ready(dev: Dev) -> None:
    wait_until(dev.is_ready, "natsgate dev serves", timeout_s=20)


def dev_events(url: str, headers: dict[str, str]) -> int:
    """The status of a request for a stream; its first bytes have come."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            assert answer.readline().startswith(b"retry: ")
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def gone(dev: Dev) -> None:
    """It ended within 3 s of now, no process is left, and nothing lies outside `.natsgate/`."""
    code = dev.wait(timeout_s=3)
    assert code in (0, 130), dev.output
    assert "Traceback" not in dev.output, dev.output
    assert dev.processes() == {}
    assert dev.left_behind() == []


async def test_the_sample_events_reach_a_browser(dev: Dev) -> None:
    """All five event types of the analysed repository arrive over SSE, and a board's over WebSocket."""
    with dev:
        await asyncio.to_thread(ready, dev)
        headers = bearer(await asyncio.to_thread(lambda: dev.token))
        ws_url = f"ws://127.0.0.1:{dev.port}"
        async with SseClient(dev.url, "repo.>", headers=headers) as sse, ws_client(ws_url, headers=headers) as ws:
            await sse.ready()
            await ws.subscribe("project.>")
            seen: set[str] = set()
            async with asyncio.timeout(30):
                while not seen >= SAMPLE_TYPES:
                    event = (await sse.next_message(timeout_s=20)).json()
                    seen.add(event["type"])
                    assert {"type", "ts", "payload"} <= event.keys()
                assert (await ws.event(timeout_s=20))["subject"].startswith("project.")
        dev.interrupt()
        await asyncio.to_thread(gone, dev)


def test_the_screen_shows_urls_and_a_curl_line(dev: Dev) -> None:
    """What to do next is on the screen: the address and a `curl -N` line ready to paste, which works."""
    with dev:
        ready(dev)
        wait_until(lambda: "curl -N" in dev.output, "a curl line on the screen")
        (line,) = [line for line in dev.output.splitlines() if "curl -N" in line][:1]
        assert f"{dev.url}/" in line
        words = shlex.split(line)
        assert words[:2] == ["curl", "-N"]
        headers = dict([words[words.index("-H") + 1].split(": ", 1)])
        for command in ("tail", "publish"):
            (line,) = [each for each in dev.output.splitlines() if f"natsgate {command} " in each]
            assert shutil.which(shlex.split(line)[0]), (
                "what is to be pasted can be found, whether the venv is active or not"
            )
        assert dev_events(words[-1], headers) == 200
        assert dev_events(words[-1], {}) == 401
        dev.interrupt()
        gone(dev)


@pytest.mark.parametrize("group", [True, False], ids=["terminal", "one process"])
def test_ctrl_c_once_it_runs(dev: Dev, group: bool) -> None:
    """Ctrl-C ends all of it within 3 s, whether the whole group or only `dev` itself gets it."""
    with dev:
        ready(dev)
        assert len(dev.processes()) >= 2, "dev and its nats-server"
        dev.interrupt(group=group)
        gone(dev)


def test_ctrl_c_as_soon_as_its_nats_server_appears(dev: Dev) -> None:
    """Interrupted between nats-server and gateway, nothing stays behind."""
    with dev:
        wait_until(
            lambda: any("nats-server" in command for command in dev.processes().values()),
            "the nats-server runs",
            every_s=0.001,
        )
        dev.interrupt()
        gone(dev)


@pytest.mark.parametrize("after_s", [0.3, 0.7, 1.2])
def test_ctrl_c_while_it_starts(dev: Dev, after_s: float) -> None:
    """Interrupted at some moment of its start, nothing stays behind. (The moment is what is varied.)"""
    with dev:
        time.sleep(after_s)
        dev.interrupt(group=after_s != 0.7)
        dev.wait(timeout_s=3)
        assert dev.processes() == {}
        assert dev.left_behind() == []


def test_ctrl_c_twice_and_sigterm(dev: Dev) -> None:
    """An impatient second Ctrl-C or a SIGTERM on top changes nothing."""
    with dev:
        ready(dev)
        dev.interrupt()
        dev.interrupt()
        dev.interrupt(group=False, how=signal.SIGTERM)
        dev.wait(timeout_s=3)
        assert dev.processes() == {}
        assert dev.left_behind() == []


def test_sigterm_ends_it_as_well(dev: Dev) -> None:
    """SIGTERM to `dev` alone, as a supervisor sends it, ends all of it."""
    with dev:
        ready(dev)
        dev.interrupt(group=False, how=signal.SIGTERM)
        assert dev.wait(timeout_s=3) in (0, 130, 143)
        assert dev.processes() == {}


def test_state_is_kept_until_fresh_forgets_it(tmp_path: Path) -> None:
    """A second run goes on with the stream of the first; `--fresh` begins anew."""

    async def incarnation(dev: Dev) -> str:
        headers = bearer(await asyncio.to_thread(lambda: dev.token))
        async with SseClient(dev.url, "repo.>", headers=headers) as sse:
            return str((await sse.ready()).json()["cursor"]).rpartition("-")[0]

    incarnations = []
    for n, arguments in enumerate([[], [], ["--fresh"]]):
        with Dev(tmp_path / "project", tmp_path / f"around-{n}", arguments=arguments) as dev:
            ready(dev)
            incarnations.append(asyncio.run(incarnation(dev)))
            dev.interrupt()
            gone(dev)
    assert incarnations[0] == incarnations[1]
    assert incarnations[1] != incarnations[2]


def test_its_secret_is_its_users_alone(dev: Dev) -> None:
    """The secret that signs its tokens lies in `.natsgate/`, readable by nobody else, and is no process's argument; a
    token of the first run opens the second."""
    with dev:
        ready(dev)
        token = dev.token
        secret = dev.folder / ".natsgate" / "jwt_secret"
        assert secret.stat().st_mode & 0o077 == 0
        assert not any(secret.read_text().strip() in command for command in dev.processes().values())
        dev.interrupt()
        gone(dev)
    with Dev(dev.folder, dev.folder.parent / "again") as again:
        ready(again)
        assert dev_events(f"{again.url}/events?subject=repo.1.x", bearer(token)) == 200
        again.interrupt()
        gone(again)


IGNORED = {
    "NATS_URL": "nats://127.0.0.1:1",
    "NATS_URL_FILE": "/nowhere",
    "NATS_CA": "/nowhere",
    "NATS_PASSWORD": "shibboleth",
    "AUTH": "none",
    "LISTEN": "0.0.0.0:1",
    "LISTEN_FILE": "/nowhere",
    "JWT_SECRET": "short",
    "JWT_ISSUER": "nobody",
    "JWKS_URL": "http://127.0.0.1:9/keys",
    "TICKET_SECRET": "short",
    "ALLOW_ACCESS_TOKEN": "false",
    "DRAIN_S": "600",
    "TOKEN": "shibboleth",
}
"""Variables of somebody who works with another NATS, other tokens and another address."""


async def test_it_takes_what_is_not_its_own_from_the_environment(tmp_path: Path) -> None:
    """What the environment says of NATS, tokens, address and draining is ignored, were it wrong; the rest holds."""
    holds = {"HEARTBEAT_S": "0.2", "REPLICA": "mine", "STREAM": "MINE"}
    variables = {f"NATSGATE_{name}": value for name, value in {**IGNORED, **holds}.items()}
    with Dev(tmp_path / "project", tmp_path / "around", variables=variables) as dev:
        await asyncio.to_thread(ready, dev)
        token = await asyncio.to_thread(lambda: dev.token)
        url = f"{dev.url}/events?subject=repo.none.%3E"
        assert await asyncio.to_thread(dev_events, url, {}) == 401
        assert await asyncio.to_thread(dev_events, f"{url}&access_token={token}", {}) == 200
        async with SseClient(dev.url, "repo.none.>", headers=bearer(token)) as sse:
            assert (await sse.ready()).json()["replica"] == "mine"
            await sse.next_comment()
        assert list((dev.folder / ".natsgate" / "nats").rglob("streams/MINE"))
        dev.interrupt()
        await asyncio.to_thread(gone, dev)


def test_a_wrong_variable_is_one_clear_line(tmp_path: Path) -> None:
    """A variable that holds for it and is wrong: one line with its name, exit code 2, nothing running."""
    variables = {"NATSGATE_HEARTBEAT_S": "soon"}
    with Dev(tmp_path / "project", tmp_path / "around", variables=variables) as dev:
        assert dev.wait(timeout_s=10) == 2, dev.output
        (line,) = dev.output.strip().splitlines()
        assert "NATSGATE_HEARTBEAT_S" in line
        assert dev.processes() == {}


def test_a_second_dev_in_the_same_folder_is_refused(dev: Dev, tmp_path: Path) -> None:
    """The second one says in one line that one is running, ends with 2, and does the first no harm."""
    with dev:
        ready(dev)
        with Dev(dev.folder, tmp_path / "second") as second:
            assert second.wait(timeout_s=10) == 2
            refusal = second.output.strip()
            assert len(refusal.splitlines()) == 1, refusal
            assert "Traceback" not in refusal
            assert dev.is_ready()
            dev.interrupt()
            gone(dev)


def test_after_a_kill_the_next_dev_starts(dev: Dev, tmp_path: Path) -> None:
    """A `dev` that was killed outright leaves no lock that keeps the next one out, nor its nats-server."""
    with dev:
        ready(dev)
        dev.interrupt(group=False, how=signal.SIGKILL)
        dev.wait(timeout_s=3)
        wait_until(lambda: not dev.processes(), "its children end by themselves")
        with Dev(dev.folder, tmp_path / "second", port=dev.port, nats_port=dev.nats_port) as second:
            ready(second)
            second.interrupt()
            gone(second)


@pytest.mark.parametrize("which", ["listen", "nats"])
def test_a_port_in_use_is_one_clear_line(tmp_path: Path, which: str) -> None:
    """Somebody else's port, for HTTP or for NATS: one line with the port, exit code 2, nothing running."""
    with taken_port() as port:
        dev = Dev(
            tmp_path / "project",
            tmp_path / "around",
            port=port if which == "listen" else None,
            nats_port=port if which == "nats" else None,
        )
        with dev:
            assert dev.wait(timeout_s=10) == 2, dev.output
            assert len(dev.output.strip().splitlines()) == 1, dev.output
            assert str(port) in dev.output
            assert dev.processes() == {}


def test_a_missing_nats_server_is_one_clear_line(tmp_path: Path) -> None:
    """Without the binary: one line that says how to get it, exit code 2."""
    missing = ["--nats-server", str(tmp_path / "missing" / "nats-server")]
    with Dev(tmp_path / "project", tmp_path / "around", arguments=missing) as dev:
        assert dev.wait(timeout_s=10) == 2, dev.output
        assert len(dev.output.strip().splitlines()) == 1, dev.output
        assert "nats-server" in dev.output
        assert dev.processes() == {}


def test_wrong_arguments_are_explained(tmp_path: Path) -> None:
    """A senseless address ends with 2 and names the option."""
    done = natsgate("dev", "--listen", "nowhere", "--nats-port", str(free_port()), settings={}, cwd=tmp_path)
    assert done.returncode == 2
    assert "listen" in done.stderr.lower()
    assert "Traceback" not in done.stderr

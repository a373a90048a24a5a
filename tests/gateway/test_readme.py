"""The READMEs say what is so: their tables come from the code, and their examples run."""

from __future__ import annotations

import ast
import json
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from nats.aio.client import Client

from gateway.settings import load_settings
from tests.conftest import StartGateway
from tests.readme import README, blocks, written
from tests.support.barrier import barrier
from tests.support.gateway import Gateway, routes
from tests.support.http_reply import fetch_async
from tests.support.nats_server import NatsServer
from tests.support.service import Service
from tests.support.sse import SseClient
from tests.support.tcp import TcpStream
from tests.support.tokens import SECRET, bearer, claims, sign, token
from tests.support.ws import WsClient, ws_client

PAGE = README.read_text("utf-8")
ANY = "…"


def with_token(example: str) -> str:
    """An example with a token where the page shows none: the one whose claims the page shows, but for its end."""
    (claims,) = blocks("json")
    token = sign(json.loads(claims) | {"exp": int(time.time()) + 600})
    return example.replace("Bearer …", f"Bearer {token}").replace('"token":"…"', f'"token":"{token}"')


def fits(pattern: str, text: str) -> bool:
    """Whether a text is what the page shows, where … stands for anything but a quote."""
    shape = "".join('[^"\n]*' if part == ANY else re.escape(part) for part in re.split(f"({ANY})", pattern))
    return re.fullmatch(shape, text) is not None


def test_the_tables_are_those_of_the_code() -> None:
    """Settings and closing reasons in the README are the ones in the code; `make docs` writes them."""
    assert written(PAGE) == PAGE


def test_the_example_of_routes_is_a_valid_configuration(tmp_path: Path) -> None:
    """The TOML on the page starts a gateway."""
    (example,) = blocks("toml")
    file = tmp_path / "natsgate.toml"
    file.write_text(example, "utf-8")

    settings = load_settings({"NATSGATE_AUTH": "none"}, file)

    assert [route.name for route in settings.route] == ["repo-events", "board"]


@pytest.mark.parametrize("example", blocks("natsgate.v1"))
async def test_the_websocket_example_runs_as_it_stands(gateway: Gateway, nc: Client, example: str) -> None:
    """Each line that the page shows going in brings the lines that it shows coming out."""
    async with ws_client(gateway.ws_url, hello=False) as ws:
        for line in example.splitlines():
            await ws_line(ws, nc, line)


@pytest.mark.parametrize("example", blocks("natsgate.v1 jwt"))
async def test_the_websocket_example_with_a_token_runs(guarded: Gateway, nc: Client, example: str) -> None:
    """The same where clients have to say who they are."""
    async with ws_client(guarded.ws_url, hello=False) as ws:
        for line in with_token(example).splitlines():
            await ws_line(ws, nc, line)


async def ws_line(ws: WsClient, nc: Client, line: str) -> None:
    mark, _, rest = line.partition(" ")
    if mark == ">":
        await ws.connection.send(rest)
    elif mark == ">>>":
        subject, _, event = rest.partition(" ")
        await nc.jetstream().publish(subject, event.encode())
    else:
        got = await ws.receive_text()
        assert fits(rest, got), f"the page shows {rest}, the gateway says {got}"


@pytest.mark.parametrize("example", blocks("http"))
async def test_the_sse_example_runs_as_it_stands(gateway: Gateway, nc: Client, example: str) -> None:
    """Each request that the page shows brings the lines that it shows, on the wire."""
    await sse_example(gateway, nc, example)


@pytest.mark.parametrize("example", blocks("http jwt"))
async def test_the_sse_example_with_a_token_runs(guarded: Gateway, nc: Client, example: str) -> None:
    """The same where clients have to say who they are."""
    await sse_example(guarded, nc, with_token(example))


async def sse_example(gateway: Gateway, nc: Client, example: str) -> None:
    request, _, rest = example.partition("\n\n")
    line, *headers = request.splitlines()
    async with TcpStream(gateway.host, gateway.port) as tcp:
        lines = [f"{line.replace('>', '%3E')} HTTP/1.1", "Host: x", *headers, "", ""]
        await tcp.send("\r\n".join(lines).encode())
        head = await tcp.read_until(b"\r\n\r\n")
        for part in re.split(r"^(>>> .*)\n", rest, flags=re.MULTILINE):
            if part.startswith(">>> "):
                _, subject, event = part.split(" ", 2)
                await nc.jetstream().publish(subject, event.encode())
            elif part[:3].isdigit():
                status, _, body = part.strip().partition(" ")
                assert head.startswith(f"HTTP/1.1 {status} ".encode())
                length = re.search(rb"content-length: (\d+)", head)
                assert length is not None
                assert fits(body, (await tcp.read_exactly(int(length[1]))).decode())
            else:
                await read_lines(tcp, part.strip().splitlines())


async def read_lines(tcp: TcpStream, lines: list[str]) -> None:
    for expected in lines:
        while True:
            got = (await tcp.read_until(b"\n")).decode().rstrip("\r\n")
            if got and not re.fullmatch("[0-9a-f]+", got):
                break  # neither the size of a chunk nor an empty line
        assert fits(expected, got), f"the page shows {expected}, the gateway says {got}"


TASK_EVENTS = routes(
    (
        'name = "task-events"',
        'path = "/tasks/{task_id}/events"',
        'transports = ["sse"]',
        'subjects = ["task.{task_id}.>"]',
        'authorize = "service"',
    )
)


@pytest.fixture
async def asking(own_nats: NatsServer, start_gateway: StartGateway) -> Gateway:
    """A gateway whose route `task-events` asks a service, which is the test's."""
    settings = {"AUTH": "jwt", "JWT_SECRET": SECRET}
    return await start_gateway(nats_url=own_nats.url, config=TASK_EVENTS, settings=settings)


def authorize_example() -> tuple[str, list[str]]:
    """The question that the page shows, and the answers."""
    (example,) = blocks("natsgate.authorize")
    question, *answers = [line.removeprefix("question").removeprefix("answer").strip() for line in example.splitlines()]
    return question, answers


async def test_a_service_is_asked_as_the_page_shows(
    asking: Gateway, own_nats: NatsServer, connect_nats: Callable[[str], Awaitable[Client]]
) -> None:
    """The question on the page is the one that comes, claims and all; each answer on it does what the page says."""
    shown, (yes, no) = authorize_example()
    nc = await connect_nats(own_nats.url)
    content = claims("alice")
    async with Service(nc, "task-events", yes) as service:
        async with SseClient(asking.url, target="/tasks/7/events", headers=bearer(sign(content))) as page:
            first = await page.next_message()
            assert (first.json(), first.id) == (json.loads(yes)["initial"][0], None)
            assert (await page.ready()).json()["snapshot"] == 1
        assert service.questions == [json.loads(shown.replace("{…}", json.dumps(content)))]
        service.answer = no
        refused = await fetch_async(
            asking.host, asking.port, "/tasks/7/events", headers=bearer(sign(content | {"sub": "bob"}))
        )
        assert refused.status == json.loads(no)["status"] == 404


class Task:
    """One of a service's tasks."""

    owner = "alice"

    def as_event(self) -> dict[str, object]:
        return {"type": "status_update", "data": {"status": "running"}}


class Tasks:
    """A service's tasks: there is one, 7, which is alice's."""

    async def find(self, task_id: str) -> Task | None:
        return Task() if task_id == "7" else None


async def test_the_service_on_the_page_runs_as_it_stands(
    asking: Gateway, own_nats: NatsServer, connect_nats: Callable[[str], Awaitable[Client]]
) -> None:
    """The Python on the page, on a NATS connection, shows a task to its owner and hides it from everybody else."""
    (example,) = blocks("python")
    nc = await connect_nats(own_nats.url)
    await eval(
        compile(example, README.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), {"nc": nc, "tasks": Tasks()}
    )
    await barrier(nc)
    async with SseClient(asking.url, target="/tasks/7/events", headers=bearer(token("alice"))) as page:
        assert (await page.next_message()).json() == Task().as_event()
        await page.ready()
        await nc.publish("task.7.x", b'{"n":1}')
        assert (await page.next_message()).json() == {"n": 1}
    for sub, path in (("bob", "/tasks/7/events"), ("alice", "/tasks/8/events")):
        refused = await fetch_async(asking.host, asking.port, path, headers=bearer(token(sub)))
        assert refused.status == 404, (sub, path)


RUN = {
    "http", "http jwt", "js", "json", "natsgate.authorize", "natsgate.v1", "natsgate.v1 jwt", "python", "toml",
}  # fmt: skip
"""The kinds of examples that a test runs: `js` in tests/browsers, `json` as the claims of the others' tokens."""


def test_every_example_is_of_a_kind_that_is_run() -> None:
    """There is none on the page that no test would look at."""
    fences = re.findall(r"^```(.*)$", PAGE, re.MULTILINE)
    assert set(fences[::2]) == RUN
    assert set(fences[1::2]) == {""}


def test_every_room_has_its_noun() -> None:
    """Each module and package at the top of gateway/ is in the table of rooms, once, and no other is."""
    rooms = PAGE[PAGE.index("## The rooms") :]
    named = re.findall(r"`([\w/.]+)`", "".join(re.findall(r"^\| (`[^|]+`) \|", rooms, re.MULTILINE)))
    there = {path.name for path in README.parent.glob("*.py")} - {"__init__.py", "__main__.py"}
    there |= {f"{path.parent.name}/" for path in README.parent.glob("*/__init__.py")}
    assert sorted(named) == sorted(there)


def test_the_tests_of_the_threat_model_exist() -> None:
    """Each test that the threat model names is one."""
    model = PAGE[PAGE.index("### Threat model") :].split("\n## ", 1)[0]
    named = set(re.findall(r"`(test_\w+)`", model))
    tests = Path(__file__).parent.parent
    written_down = {
        name
        for path in tests.rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text("utf-8"), re.MULTILINE)
    }
    assert len(named) > 25
    assert named <= written_down

"""The READMEs say what is so: their tables come from the code, and their examples run."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from nats.aio.client import Client

from gateway.settings import load_settings
from tests.readme import README, written
from tests.support.gateway import Gateway
from tests.support.tcp import TcpStream
from tests.support.tokens import sign
from tests.support.ws import WsClient, ws_client

PAGE = README.read_text("utf-8")
ANY = "…"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{re.escape(language)}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


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

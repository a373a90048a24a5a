"""The private surface of uvicorn that `gateway.transports.http_server` stands on is still there."""

from __future__ import annotations

import inspect
from importlib.metadata import version

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


def test_the_version_is_one_that_was_tested() -> None:
    """Another minor version of uvicorn needs a look at http_server.py before the range is widened."""
    parts = tuple(int(part) for part in version("uvicorn").split(".")[:2])

    assert (0, 52) <= parts < (0, 55)


@pytest.mark.parametrize("protocol", [HttpToolsProtocol, WebSocketsSansIOProtocol])
def test_protocols_are_made_as_before(protocol: type) -> None:
    """uvicorn makes protocols with these arguments, so ours take them."""
    assert list(inspect.signature(protocol).parameters) == ["config", "server_state", "app_state", "_loop"]


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (HttpToolsProtocol, "_unset_keepalive_if_required"),
        (HttpToolsProtocol, "handle_websocket_upgrade"),
        (HttpToolsProtocol, "_should_upgrade"),
        (HttpToolsProtocol, "_unsupported_upgrade_warning"),
        (HttpToolsProtocol, "on_message_begin"),
        (HttpToolsProtocol, "on_headers_complete"),
        (HttpToolsProtocol, "on_header"),
        (HttpToolsProtocol, "on_body"),
        (HttpToolsProtocol, "on_message_complete"),
        (HttpToolsProtocol, "on_response_complete"),
        (HttpToolsProtocol, "_start_asgi_task"),
        (WebSocketsSansIOProtocol, "handle_connect"),
        (WebSocketsSansIOProtocol, "stop_keepalive"),
        (WebSocketsSansIOProtocol, "run_asgi"),
        (uvicorn.Server, "capture_signals"),
        (uvicorn.Server, "handle_exit"),
    ],
)
def test_what_is_called_or_overridden_exists(owner: type, name: str) -> None:
    """Each method that we call or override is uvicorn's own, under this name."""
    assert callable(getattr(owner, name))


@pytest.mark.parametrize(
    ("owner", "words"),
    [
        (RequestResponseCycle.run_asgi, ["not self.response_started and not self.disconnected"]),
        (
            HttpToolsProtocol.__init__,
            ["self.connections = server_state.connections", "self.pipeline", "self.transport"],
        ),
        (HttpToolsProtocol.on_headers_complete, ["self._start_asgi_task(self.cycle", "self.pipeline.appendleft("]),
        (HttpToolsProtocol.on_response_complete, ["self.pipeline.pop()", "self._start_asgi_task(cycle"]),
        (HttpToolsProtocol.handle_websocket_upgrade, ["self.connections.discard(self)", "set_protocol(protocol)"]),
        (WebSocketsSansIOProtocol.__init__, ["handshake_initiated", "handshake_complete", "self.disconnected"]),
        (WebSocketsSansIOProtocol.run_asgi, ["self.transport.close()"]),
        (HttpToolsProtocol.pause_writing, ["self.flow.pause_writing()"]),
        (FlowControl.pause_writing, ["self.write_paused = True"]),
        (WebSocketsSansIOProtocol.pause_writing, ["self.writable.clear()"]),
        (uvicorn.Server.shutdown, ["self.server_state.connections", "connection.shutdown()"]),
    ],
)
def test_the_lines_that_we_rely_on_are_there(owner: object, words: list[str]) -> None:
    """Where uvicorn's behaviour is relied on, the words that make it are still in its code."""
    source = inspect.getsource(owner)  # type: ignore[arg-type]
    for each in words:
        assert each in source

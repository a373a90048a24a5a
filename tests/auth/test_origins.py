"""Which pages may use a gateway: what browsers add by themselves counts only where the page is known to be ours."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.core.errors import ConfigError
from gateway.settings import load_settings
from tests.conftest import ShareGateway
from tests.support.command import natsgate
from tests.support.gateway import Gateway, routes
from tests.support.http_reply import HttpReply, fetch_async
from tests.support.raw_ws import RawWebSocket
from tests.support.sse import SseClient
from tests.support.tokens import JWT, SECRET, bearer, token

APP = "https://app.example.com"
FOREIGN = "https://evil.example"
ROUTES = routes(
    [
        'name = "board"',
        'path = "/boards/{project_id}"',
        'transports = ["ws"]',
        'subjects = ["project.{project_id}.>"]',
        'framing = "raw"',
    ]
)


@pytest.fixture(scope="module")
def paged(share_gateway: ShareGateway) -> Gateway:
    """A gateway that allows one origin, spelled as people do, and one with a port."""
    return share_gateway(JWT | {"ALLOWED_ORIGINS": "HTTPS://App.example.com:443, http://localhost:3000"}, ROUTES)


@pytest.fixture
def cookie(own_id: str) -> dict[str, str]:
    """What a browser sends along for a signed-in user."""
    return {"Cookie": f"natsgate_token={token(subscribe=[f'repo.{own_id}.>'])}"}


def own(gateway: Gateway) -> str:
    return gateway.url


# The cookie, by GET

READS: dict[str, tuple[dict[str, str], int]] = {
    "nothing said": ({}, 200),
    "same-origin": ({"Sec-Fetch-Site": "same-origin"}, 200),
    "same-site": ({"Sec-Fetch-Site": "same-site"}, 403),
    "cross-site": ({"Sec-Fetch-Site": "cross-site"}, 403),
    "typed into the address bar": ({"Sec-Fetch-Site": "none"}, 403),
    "a word of the future": ({"Sec-Fetch-Site": "same-planet"}, 403),
    "allowed": ({"Origin": APP}, 200),
    "allowed, cross-site": ({"Origin": APP, "Sec-Fetch-Site": "cross-site"}, 200),
    "allowed with a port": ({"Origin": "http://localhost:3000"}, 200),
    "another port": ({"Origin": "http://localhost:3001"}, 403),
    "the other scheme of an allowed one": ({"Origin": "http://app.example.com"}, 403),
    "a subdomain of an allowed one": ({"Origin": "https://x.app.example.com"}, 403),
    "an allowed one as a prefix": ({"Origin": "https://app.example.com.evil.example"}, 403),
    "foreign": ({"Origin": FOREIGN}, 403),
    "foreign, said to be same-origin": ({"Origin": FOREIGN, "Sec-Fetch-Site": "same-origin"}, 403),
    "null": ({"Origin": "null"}, 403),
    "null, said to be same-origin": ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, 403),
    "empty": ({"Origin": ""}, 403),
    "two of them": ({"Origin": f"{APP}, {APP}"}, 403),
    "with a login": ({"Origin": "https://app.example.com@evil.example"}, 403),
    "with a path": ({"Origin": f"{APP}/"}, 403),
}


@pytest.mark.parametrize(("headers", "status"), READS.values(), ids=READS.keys())
async def test_a_cookie_reads_for_pages_of_ours_only(
    paged: Gateway, own_id: str, cookie: dict[str, str], headers: dict[str, str], status: int
) -> None:
    """A GET with a cookie needs an own or allowed `Origin`; it may lack one where the browser says `same-origin` or
    says nothing about sites at all."""
    async with SseClient(paged.url, f"repo.{own_id}.>", headers=cookie | headers) as sse:
        assert sse.status == status, sse.reply
        if status == 200:
            await sse.ready()
        else:
            detail = sse.reply.problem()["detail"]
            assert ("ALLOWED_ORIGINS" if "Origin" in headers else "Authorization: Bearer") in detail


HOSTS: dict[str, tuple[str, str, int]] = {
    "the same": ("http://gate.example:8080", "gate.example:8080", 200),
    "in capitals": ("http://gate.example:8080", "Gate.Example:8080", 200),
    "port 80 left out by the browser": ("http://gate.example", "gate.example:80", 200),
    "port 80 left out by a proxy": ("http://gate.example:80", "gate.example", 200),
    "port 443 behind TLS": ("https://gate.example", "gate.example:443", 200),
    "TLS ended by a proxy": ("https://gate.example", "gate.example", 200),
    "IPv6": ("http://[::1]:8080", "[::1]:8080", 200),
    "another port": ("http://gate.example:8081", "gate.example:8080", 403),
    "port 443 without TLS": ("http://gate.example", "gate.example:443", 403),
    "another name": ("http://evil.example", "gate.example", 403),
    "no host": ("http://gate.example", "", 403),
    "another scheme": ("ftp://gate.example", "gate.example", 403),
}


@pytest.mark.parametrize(("origin", "host", "status"), HOSTS.values(), ids=HOSTS.keys())
async def test_the_own_origin_is_the_host_that_was_asked(
    paged: Gateway, own_id: str, cookie: dict[str, str], origin: str, host: str, status: int
) -> None:
    """The own origin is that of `Host`, whether the scheme's port stands there or not."""
    headers = cookie | {"Origin": origin, "Host": host}
    reply = await fetch_async(paged.host, paged.port, f"/events?subject=repo.{own_id}.%3E&until=head", headers=headers)
    assert reply.status == status, reply


# The cookie, by POST and WebSocket

STRICT: dict[str, tuple[Callable[[Gateway], dict[str, str]], bool]] = {
    "own": (lambda gateway: {"Origin": own(gateway)}, True),
    "allowed": (lambda gateway: {"Origin": APP}, True),
    "missing": (lambda gateway: {}, False),
    "missing, same-origin": (lambda gateway: {"Sec-Fetch-Site": "same-origin"}, False),
    "foreign": (lambda gateway: {"Origin": FOREIGN}, False),
    "null": (lambda gateway: {"Origin": "null"}, False),
}


@pytest.mark.parametrize(("headers", "allowed"), STRICT.values(), ids=STRICT.keys())
async def test_a_cookie_posts_for_pages_of_ours_only(
    paged: Gateway, cookie: dict[str, str], headers: Callable[[Gateway], dict[str, str]], allowed: bool
) -> None:
    """A POST with a cookie always needs an own or allowed `Origin`."""
    reply = await fetch_async(paged.host, paged.port, "/auth/ticket", method="POST", headers=cookie | headers(paged))
    assert reply.status == (200 if allowed else 403), reply


@pytest.mark.parametrize("path", ["/ws", "/boards/{id}"])
@pytest.mark.parametrize(("headers", "allowed"), STRICT.values(), ids=STRICT.keys())
async def test_a_cookie_opens_websockets_for_pages_of_ours_only(
    paged: Gateway, own_id: str, headers: Callable[[Gateway], dict[str, str]], allowed: bool, path: str
) -> None:
    """A WebSocket with a cookie always needs an own or allowed `Origin`: every page may open one to anywhere."""
    carried = {"Cookie": f"natsgate_token={token(subscribe=[f'project.{own_id}.>'])}"}
    subprotocol = "natsgate.v1" if path == "/ws" else None
    async with RawWebSocket(
        paged.url, path.format(id=own_id), subprotocol=subprotocol, headers=carried | headers(paged)
    ) as ws:
        assert ws.status == (101 if allowed else 403), ws.body
        if allowed and path == "/ws":
            assert (await ws.next_op("hello"))["authenticated"] is True


# Other carriers

CARRIERS: dict[str, Callable[[str], tuple[str, dict[str, str | None]]]] = {
    "authorization": lambda text: ("", {"Authorization": f"Bearer {text}"}),
    "subprotocol": lambda text: ("", {"Sec-WebSocket-Protocol": f"natsgate.v1, natsgate.bearer.{text}"}),
    "first frame": lambda text: ("", {}),
}


@pytest.mark.parametrize("carry", CARRIERS.values(), ids=CARRIERS.keys())
@pytest.mark.parametrize("origin", [FOREIGN, "null"])
async def test_a_foreign_page_opens_no_websocket_by_any_carrier(
    paged: Gateway, carry: Callable[[str], tuple[str, dict[str, str | None]]], origin: str
) -> None:
    """A handshake with an `Origin` that is neither own nor allowed is refused with 403, whatever carries its token."""
    query, headers = carry(token(subscribe=[">"]))
    async with RawWebSocket(paged.url, "/ws" + query, headers=headers | {"Origin": origin}) as ws:
        assert ws.status == 403
        assert "ALLOWED_ORIGINS" in ws.reply.problem()["detail"]


async def test_a_ticket_opens_no_websocket_for_a_foreign_page(paged: Gateway) -> None:
    """Nor does a ticket that leaked to a foreign page."""
    reply = await fetch_async(
        paged.host, paged.port, "/auth/ticket", method="POST", headers=bearer(token(subscribe=[">"]))
    )
    ticket = reply.json()["ticket"]
    async with RawWebSocket(paged.url, f"/ws?ticket={ticket}", headers={"Origin": FOREIGN}) as ws:
        assert ws.status == 403
    async with RawWebSocket(paged.url, f"/ws?ticket={ticket}", headers={"Origin": APP}) as ws:
        assert (await ws.next_op("hello"))["authenticated"] is True


async def test_programs_that_are_no_browser_need_no_origin(paged: Gateway, own_id: str) -> None:
    """With a token in a header, neither transport asks for an `Origin`, nor does a POST."""
    headers = bearer(token(subscribe=[f"repo.{own_id}.>"]))
    async with RawWebSocket(paged.url, headers={**headers}) as ws:
        assert (await ws.next_op("hello"))["authenticated"] is True
    async with SseClient(paged.url, f"repo.{own_id}.>", headers=headers | {"Origin": FOREIGN}) as sse:
        assert sse.status == 200
        assert "access-control-allow-origin" not in sse.headers
    reply = await fetch_async(paged.host, paged.port, "/auth/ticket", method="POST", headers=headers)
    assert reply.status == 200


@pytest.mark.parametrize(("origin", "status"), [(None, 101), ("own", 101), (FOREIGN, 403), ("null", 403)])
async def test_without_authentication_the_origin_still_counts(
    gateway: Gateway, origin: str | None, status: int
) -> None:
    """With AUTH=none a WebSocket of a foreign page is refused all the same: the place in the network is its user's."""
    headers = {"Origin": gateway.url if origin == "own" else origin}
    async with RawWebSocket(gateway.url, headers=headers) as ws:
        assert ws.status == status


# The order

NAMES = ("Authorization", "subprotocol", "Cookie", "ticket", "access_token")


def carry(texts: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Headers and query that carry a text by each of these carriers."""
    headers = {}
    if "Authorization" in texts:
        headers["Authorization"] = f"Bearer {texts['Authorization']}"
    if "subprotocol" in texts:
        headers["Sec-WebSocket-Protocol"] = f"natsgate.v1, natsgate.bearer.{texts['subprotocol']}"
    if "Cookie" in texts:
        headers["Cookie"] = f"natsgate_token={texts['Cookie']}"
    return headers, {name: text for name, text in texts.items() if name in ("ticket", "access_token")}


@pytest.fixture(scope="module")
def lenient(share_gateway: ShareGateway) -> Gateway:
    """A gateway that takes tokens by every carrier."""
    return share_gateway(JWT | {"ALLOW_ACCESS_TOKEN": "true"})


@pytest.mark.parametrize("first", NAMES)
@pytest.mark.parametrize("opens", [True, False], ids=["good before bad", "bad before good"])
async def test_the_first_carrier_there_decides(lenient: Gateway, own_id: str, first: str, opens: bool) -> None:
    """`Authorization`, subprotocol, cookie, `ticket`, `access_token`: in this order, and a bad token is not made up for
    by a good one behind it."""
    good = token(subscribe=[f"repo.{own_id}.>"])
    minted = await fetch_async(lenient.host, lenient.port, "/auth/ticket", method="POST", headers=bearer(good))
    right = dict.fromkeys(NAMES, good) | {"ticket": minted.json()["ticket"]}
    wrong = dict.fromkeys(NAMES, "no.token.at-all")
    behind = NAMES[NAMES.index(first) + 1 :]
    one, others = (right, wrong) if opens else (wrong, right)
    headers, query = carry({first: one[first]} | {name: others[name] for name in behind})
    target = "/ws?" + "&".join(f"{name}={value}" for name, value in query.items())
    async with RawWebSocket(lenient.url, target, headers={"Origin": lenient.url, **headers}) as ws:
        assert (await ws.next_op("hello"))["authenticated"] is opens
    if first != "subprotocol":  # which is for WebSocket alone
        async with SseClient(lenient.url, f"repo.{own_id}.>", query=query, headers=headers) as sse:
            assert sse.status == (200 if opens else 401)


# CORS


async def preflight(gateway: Gateway, origin: str, method: str = "GET", path: str = "/events") -> HttpReply:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,last-event-id",
    }
    return await fetch_async(gateway.host, gateway.port, path, method="OPTIONS", headers=headers)


def allows(reply: HttpReply, name: str) -> set[str]:
    return {each.strip().lower() for each in reply.headers[f"access-control-allow-{name}"].split(",")}


@pytest.mark.parametrize("path", ["/events", "/api/repositories/1/events", "/auth/ticket"])
async def test_preflights_of_allowed_origins(paged: Gateway, path: str) -> None:
    """A fetch client of an allowed origin may send `Authorization` and `Last-Event-ID`, with cookies."""
    method = "POST" if path == "/auth/ticket" else "GET"
    reply = await preflight(paged, APP, method, path)
    assert reply.status in (200, 204)
    assert reply.headers["access-control-allow-origin"] == APP
    assert reply.headers["access-control-allow-credentials"] == "true"
    assert {"authorization", "last-event-id"} <= allows(reply, "headers")
    assert method.lower() in allows(reply, "methods")
    assert "origin" in reply.headers["vary"].lower()


@pytest.mark.parametrize("origin", [FOREIGN, "null", "http://app.example.com", "https://app.example.com:444"])
async def test_preflights_of_other_origins(paged: Gateway, origin: str) -> None:
    """Any other origin is allowed nothing, in the form of every other error."""
    reply = await preflight(paged, origin)
    assert reply.status == 403
    assert not [name for name in reply.headers if name.startswith("access-control-")]
    assert "ALLOWED_ORIGINS" in reply.problem()["detail"]


async def test_without_allowed_origins_there_is_no_cors(guarded: Gateway) -> None:
    """A gateway that allows no other origin says nothing about any."""
    reply = await preflight(guarded, APP)
    assert reply.status in (403, 405)
    assert not [name for name in reply.headers if name.startswith("access-control-")]
    reply = await fetch_async(guarded.host, guarded.port, "/livez", headers={"Origin": APP})
    assert not [name for name in reply.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(("origin", "allowed"), [(APP, True), (FOREIGN, False), ("null", False), (None, False)])
async def test_answers_tell_allowed_origins_that_they_may_read_them(
    paged: Gateway, own_id: str, origin: str | None, allowed: bool
) -> None:
    """Streams and errors alike carry the CORS headers for allowed origins and for no other; `Vary` always."""
    headers = {} if origin is None else {"Origin": origin}
    good = headers | bearer(token(subscribe=[f"repo.{own_id}.>"]))
    async with SseClient(paged.url, f"repo.{own_id}.>", headers=good) as sse:
        assert sse.status == 200
        answers = [sse.headers]
    for path, more in (
        (f"/events?subject=repo.{own_id}.%3E", headers),  # 401
        ("/events?subject=repo.other.%3E", good),  # 403
        ("/events", good),  # 400
        ("/nowhere", headers),  # 404
        ("/auth/ticket", headers),  # 405
        ("/livez", headers),
    ):
        answers.append((await fetch_async(paged.host, paged.port, path, headers=more)).headers)
    for answer in answers:
        found = {name: value for name, value in answer.items() if name.startswith("access-control-allow")}
        expected = {"access-control-allow-origin": origin, "access-control-allow-credentials": "true"}
        assert found == (expected if allowed else {})
        assert "origin" in answer["vary"].lower()


# The setting

WRONG = [
    "*",
    "https://*",
    "https://*.example.com",
    "app.example.com",
    "https://",
    "https://app.example.com/",
    "https://app.example.com/path",
    "https://app.example.com?x=1",
    "https://user@app.example.com",
    "https://app.example.com:port",
    "https://app.example.com:99999",
    "https://app..example.com",
    "https://:443",
    "https://bücher.example",
    "https://[::1",
    "ws://app.example.com",
    "null",
    "https://good.example,*",
]


@pytest.mark.parametrize("value", WRONG)
def test_a_wrong_origin_is_a_wrong_setting(value: str) -> None:
    """What no browser would ever send as an `Origin` is refused in one line that shows a right one."""
    with pytest.raises(ConfigError) as refused:
        load_settings({"NATSGATE_JWT_SECRET": SECRET, "NATSGATE_ALLOWED_ORIGINS": value})
    line = str(refused.value)
    assert "\n" not in line
    assert line.startswith("NATSGATE_ALLOWED_ORIGINS")
    assert "https://app.example.com" in line


def test_a_wrong_origin_stops_the_start() -> None:
    """`serve` says that line and ends with 2 before anything opens."""
    settings = {"JWT_SECRET": SECRET, "LISTEN": "127.0.0.1:0", "NATS_URL": "nats://127.0.0.1:1"}
    done = natsgate("serve", settings=settings | {"ALLOWED_ORIGINS": "https://good.example,*"})
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "NATSGATE_ALLOWED_ORIGINS[1]" in done.stderr


RIGHT = {
    "https://app.example.com": "https://app.example.com",
    "HTTPS://App.Example.com:443": "https://app.example.com",
    "http://localhost:3000": "http://localhost:3000",
    "http://my_box:80": "http://my_box",
    "http://[::1]:8080": "http://[::1]:8080",
    "https://xn--bcher-kva.example": "https://xn--bcher-kva.example",
}


@pytest.mark.parametrize(("value", "origin"), RIGHT.items())
def test_right_origins_are_spelled_as_browsers_do(value: str, origin: str) -> None:
    """Case and the scheme's own port do not matter in the setting."""
    settings = load_settings({"NATSGATE_JWT_SECRET": SECRET, "NATSGATE_ALLOWED_ORIGINS": value})
    assert settings.allowed_origins == (origin,)

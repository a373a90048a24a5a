"""SIGHUP: what is written is taken over while everybody stays; what is wrong changes nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from nats.aio.client import Client

from gateway.reload import LIVE
from gateway.settings import Settings
from tests.conftest import StartGateway
from tests.support.eventually import eventually
from tests.support.gateway import Gateway, routes
from tests.support.http_reply import fetch_async
from tests.support.producer import publish
from tests.support.service import Service
from tests.support.sse import SseClient
from tests.support.tokens import SECRET, bearer, claims, sign
from tests.support.ws import ws_client


def route(name: str, path: str, subject: str) -> str:
    return routes((f'name = "{name}"', f'path = "{path}"', 'transports = ["sse"]', f'subjects = ["{subject}"]'))


async def reload(gateway: Gateway, config: str) -> dict[str, object]:
    """Write the file anew and send SIGHUP; the line that the log has for it."""
    gateway.config_file.write_text(config)
    return await asyncio.to_thread(gateway.reload)


def test_what_is_live_are_settings() -> None:
    """The settings that are said to be taken over exist."""
    assert set(Settings.model_fields) >= LIVE


async def test_routes_come_and_go_and_nobody_is_dropped(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """A new route is served, a changed one serves its new subjects, one that was taken out is 404; a client that came
    by it before stays and gets events."""
    one = route("one", "/one", f"repo.{own_id}.>")
    gateway = await start_gateway(config=one + route("two", "/two", f"task.{own_id}.>"))
    async with SseClient(gateway.url, target="/one") as before, ws_client(gateway.ws_url) as ws:
        await before.ready()
        await ws.subscribe(f"repo.{own_id}.>")
        said = await reload(
            gateway, route("two", "/two", f"ci.{own_id}.>") + route("three", "/three", f"repo.{own_id}.>")
        )
        assert (said["event"], said["changed"]) == ("reloaded", ["route"])
        assert (await fetch_async(gateway.host, gateway.port, "/one")).status == 404
        async with (
            SseClient(gateway.url, target="/two") as two,
            SseClient(gateway.url, target="/three") as three,
        ):
            await two.ready()
            await three.ready()
            await publish(nc, f"repo.{own_id}.x", '{"n":1}')
            await publish(nc, f"ci.{own_id}.x", '{"n":2}')
            assert (await before.next_message()).data == '{"n":1}'
            assert (await three.next_message()).data == '{"n":1}'
            assert (await two.next_message()).data == '{"n":2}'
            assert (await ws.event())["event"] == {"n": 1}
    metrics = await asyncio.to_thread(gateway.metrics)
    assert metrics.total("natsgate_connections_opened_total") == 4


async def test_limits_and_times_hold_from_then_on(start_gateway: StartGateway, own_id: str) -> None:
    """A lower limit refuses the next request; a shorter heartbeat reaches those that are there."""
    gateway = await start_gateway(config="heartbeat_s = 3600\nmax_filters = 2\n")
    two = f"/events?subject=repo.{own_id}.%3E&subject=task.{own_id}.%3E"
    async with SseClient(gateway.url, target=two) as page:
        await page.ready()
        said = await reload(gateway, "heartbeat_s = 0.2\nmax_filters = 1\n")
        assert said["changed"] == ["heartbeat_s", "max_filters"]
        await page.next_comment()
        assert (await fetch_async(gateway.host, gateway.port, two)).status == 400


async def test_larger_events_are_taken_from_then_on(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """A higher `MAX_EVENT_BYTES` holds for all ways by which an event comes: published ones, and those that a service
    shows first."""
    name = f"shows-{own_id}"
    shows = route(name, "/shows", f"repo.{own_id}.>") + 'authorize = "service"\n'
    gateway = await start_gateway(config="max_event_bytes = 100\n" + shows)
    event = {"text": "x" * 200}
    async with Service(nc, name, {"allow": True, "initial": [event]}):
        assert (await fetch_async(gateway.host, gateway.port, "/shows")).status == 503
        assert (await reload(gateway, "max_event_bytes = 1000\n" + shows))["changed"] == ["max_event_bytes"]
        async with SseClient(gateway.url, target="/shows") as page:
            assert page.status == 200, page.reply
            assert (await page.next_message()).json() == event
            await page.ready()
            await publish(nc, f"repo.{own_id}.x", json.dumps(event))
            assert (await page.next_message()).json() == event


async def test_a_bad_file_changes_nothing_and_is_named(start_gateway: StartGateway, own_id: str) -> None:
    """One line says what is wrong and where; all goes on by the old settings, and by the new ones once it is mended."""
    gateway = await start_gateway(config=route("one", "/one", f"repo.{own_id}.>"))
    async with SseClient(gateway.url, target="/one") as page:
        await page.ready()
        for wrong, named in {
            "max_filters = 1\nheartbeat = 3\n": "heartbeat",
            "max_filters = 1\nheartbeat_s = 'soon'\n": "heartbeat_s",
            "max_filters = 1\n[[route]]\nname = 'one'\n": "route",
            "max_filters = = 1\n": "TOML",
        }.items():
            said = await reload(gateway, wrong)
            assert said["event"] == "reload_failed"
            assert said["level"] == "error"
            assert str(gateway.config_file) in str(said["error"])
            assert named in str(said["error"])
        gateway.config_file.unlink()
        assert (await asyncio.to_thread(gateway.reload))["event"] == "reload_failed"
        async with SseClient(gateway.url, target="/one") as other:
            assert other.status == 200
        mended = route("one", "/one", f"repo.{own_id}.>") + route("two", "/two", f"repo.{own_id}.>")
        assert (await reload(gateway, mended))["event"] == "reloaded"
        async with SseClient(gateway.url, target="/two") as other:
            assert other.status == 200
        assert not page.ended


async def test_what_needs_a_restart_is_named(start_gateway: StartGateway, tmp_path: Path, own_id: str) -> None:
    """Settings that hold something open stay as they are and are named; the others are taken over. A secret is read
    anew from its file, and its value is in no line."""
    secret = tmp_path / "password"
    secret.write_text("open sesame")
    gateway = await start_gateway(
        config='replica = "one"\n', NATS_USER="nobody", NATS_PASSWORD_FILE=secret, LOG_LEVEL="info"
    )
    secret.write_text("open barley")
    said = await reload(gateway, 'replica = "two"\nroots = ["repo"]\nreplay_limit = 5\n')
    assert said["changed"] == ["replay_limit"]
    (needed,) = gateway.logs("restart_needed")
    assert set(needed["settings"]) == {"nats_password", "replica", "roots"}
    assert "sesame" not in gateway.log_text
    assert "barley" not in gateway.log_text
    async with SseClient(gateway.url, f"task.{own_id}.>") as page:
        assert (await page.ready()).json()["replica"] == "one"


async def test_a_key_is_read_anew_from_its_file(start_gateway: StartGateway, tmp_path: Path, own_id: str) -> None:
    """Where a key is in a file that the environment names, it can be changed while streams that the old one opened go
    on: from then on the new one's tokens are taken and no others."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    rights = claims(subscribe=[f"repo.{own_id}.>"])
    old, new = bearer(sign(rights)), bearer(sign(rights, key="another-secret-of-at-least-32-bytes"))
    gateway = await start_gateway(AUTH="jwt", JWT_SECRET_FILE=secret)
    async with SseClient(gateway.url, f"repo.{own_id}.>", headers=old) as before:
        await before.ready()
        secret.write_text("another-secret-of-at-least-32-bytes")
        assert (await asyncio.to_thread(gateway.reload))["changed"] == ["jwt_secret"]
        async with SseClient(gateway.url, f"repo.{own_id}.>", headers=new) as page:
            await page.ready()
        path = f"/events?subject=repo.{own_id}.x"
        assert (await fetch_async(gateway.host, gateway.port, path, headers=old)).status == 401
        assert not before.ended


async def test_the_environment_still_wins(start_gateway: StartGateway) -> None:
    """A setting of the environment is not overruled by what the file says meanwhile."""
    gateway = await start_gateway(config="", MAX_FILTERS=7)
    assert (await reload(gateway, "max_filters = 1\n"))["changed"] == []


async def test_routes_that_need_what_only_a_restart_brings_are_refused(start_gateway: StartGateway) -> None:
    """A route below a root that the running gateway does not serve would never get an event: nothing is changed."""
    gateway = await start_gateway(config="")
    said = await reload(gateway, 'roots = ["repo", "planet"]\n' + route("mars", "/mars", "planet.mars.>"))
    assert said["event"] == "reload_failed"
    assert "planet" in str(said["error"])
    assert "ROOTS" in str(said["error"])
    assert "restart" in str(said["error"])


async def test_the_log_can_be_made_louder(start_gateway: StartGateway, own_id: str) -> None:
    """`LOG_LEVEL` is taken over: what was too quiet to be logged is from then on."""
    gateway = await start_gateway(config="", LINGER_S=0)

    async def come_and_go() -> None:
        async with SseClient(gateway.url, f"repo.{own_id}.>") as page:
            await page.ready()

        async def closed() -> bool:
            return (await asyncio.to_thread(gateway.metrics)).total("natsgate_nats_subscriptions") == 0

        await eventually(closed, "the subscription is closed")

    await come_and_go()
    assert gateway.logs("tap_opened") == []
    await reload(gateway, 'log_level = "debug"\n')
    await come_and_go()
    assert len(gateway.logs("tap_opened")) == 1

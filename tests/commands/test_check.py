"""`natsgate check` finds what is wrong and says what mends it; the mend, run, mends it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.commands.own_stream import OwnStream
from tests.support.command import natsgate
from tests.support.nats_server import NatsServer

MINUTE_NS = 60 * 10**9


def problems(findings: list[dict[str, str]]) -> str:
    """The problems and their mends as one text."""
    return "\n".join(f"{each['text']}; {each['mend']}" for each in findings if each["level"] == "problem")


async def test_a_provisioned_stream_is_fine(own: OwnStream) -> None:
    """After `provision` everything is ok: a short list, exit code 0."""
    await own.ok("provision")
    shown = await own.ok("check")
    lines = shown.splitlines()
    assert 4 <= len(lines) <= 6
    assert not [line for line in lines if line.startswith("problem")]
    assert {line.split()[1] for line in lines if line.startswith("ok")} == {"settings", "nats", "permissions", "stream"}


async def test_a_missing_stream_is_mended_by_provision(own: OwnStream) -> None:
    """No stream: exit code 2 and the command that makes it."""
    code, found = await own.findings()
    assert code == 2
    assert f"there is no stream {own.name}" in problems(found)
    assert "natsgate provision" in problems(found)


WRONG: list[tuple[dict[str, Any], list[str]]] = [
    (
        {
            "republish": None,
            "allow_direct": False,
            "max_consumers": -1,
            "max_bytes": 1000,
            "subjects": ["{a}.>"],
            "duplicate_window": 10**9,
            "no_ack": True,
            "retention": "interest",
        },
        [
            "does not republish",
            "direct get",
            "max_consumers",
            "--max-bytes 1GiB",
            "does not store {b}.>",
            "duplicates for 1s",
            "acknowledges nothing",
            "retention interest",
        ],
    ),
    (
        {
            "republish": {"src": ">", "dest": "{live}.>", "headers_only": True},
            "max_age": 30 * 10**9,
            "duplicate_window": 30 * 10**9,
        },
        ["headers only", "--max-age 24h"],
    ),
]


@pytest.mark.parametrize(("config", "said"), WRONG, ids=["much", "headers and age"])
async def test_a_wrong_stream_is_named_and_its_mend_works(
    own: OwnStream, config: dict[str, Any], said: list[str]
) -> None:
    """Each thing that is wrong is one problem with a command; the commands run, check is content."""

    def own_names(text: str) -> str:
        for name, value in {"{a}": own.a, "{b}": own.b, "{live}": own.live}.items():
            text = text.replace(name, value)
        return text

    good = {
        "subjects": ["{a}.>", "{b}.>"],
        "allow_direct": True,
        "republish": {"src": ">", "dest": "{live}.>"},
        "max_consumers": 10,
        "duplicate_window": 2 * MINUTE_NS,
    }
    await own.api("CREATE", **json.loads(own_names(json.dumps({**good, **config}))))
    code, found = await own.findings()
    assert code == 2
    lines = problems(found).splitlines()
    assert len(lines) == len(said), lines
    options: list[str] = []
    for each in said:
        (line,) = [line for line in lines if own_names(each) in line]
        command = line.partition("run: ")[2].partition(" (")[0].split()
        assert command[:2] == ["natsgate", "provision"]
        options += command[2:]
    await own.ok("provision", *options, "--yes")
    assert (await own.findings())[0] == 0


async def test_another_stream_with_the_same_subjects_is_named(own: OwnStream) -> None:
    """A stream that holds one of the roots, or what is republished, is a problem with its name."""
    js = own.nc.jetstream()
    await js.add_stream(name=f"{own.name}-other", subjects=[f"{own.b}.special.>"])
    await js.add_stream(name=f"{own.name}-live", subjects=[f"{own.live}.>"])
    _, found = await own.findings()
    assert f"{own.name}-other stores subjects below {own.b}.>" in problems(found)
    assert f"{own.name}-live stores subjects below {own.live}.>" in problems(found)


async def test_a_foreign_stream_is_one_line_and_the_way_out_is_no_circle(own: OwnStream) -> None:
    """A stream that holds several roots is one problem with all of them, ahead of what `provision` mends; `provision`
    itself says the same; either way that they give leads to a stream that `check` is content with."""
    other = f"{own.name}-other"
    await own.nc.jetstream().add_stream(name=other, subjects=[f"{own.a}.>", f"{own.b}.special.>"])
    code, found = await own.findings()
    assert code == 2
    overlap, missing = problems(found).splitlines()
    assert overlap.startswith(f"stream {other} stores subjects below {own.a}.> {own.b}.>, which belong to {own.name}; ")
    assert f"set NATSGATE_STREAM={other} where" in overlap
    assert missing == f"there is no stream {own.name}; run: natsgate provision --nats-url {own.settings['NATS_URL']}"
    done = await own.run("provision")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert overlap.replace("; ", ": ", 1) in done.stderr
    assert "natsgate check" not in done.stderr

    await own.ok("provision", "--yes", STREAM=other)
    assert (await own.findings(STREAM=other))[0] == 0

    await own.nc.jetstream().update_stream(name=other, subjects=[f"{own.a}-elsewhere.>"])
    await own.ok("provision")
    assert (await own.findings())[0] == 0


async def test_of_several_foreign_streams_none_is_offered(own: OwnStream) -> None:
    """Where two hold our subjects, or our own stream is there, no other one can be the stream of events."""
    js = own.nc.jetstream()
    await js.add_stream(name=f"{own.name}-one", subjects=[f"{own.a}.1.>"])
    await js.add_stream(name=f"{own.name}-two", subjects=[f"{own.b}.>"])
    _, found = await own.findings()
    done = await own.run("provision")
    for told in (problems(found), done.stderr):
        assert f"stream {own.name}-one stores subjects below {own.a}.>," in told
        assert f"stream {own.name}-two stores subjects below {own.b}.>," in told
        assert "NATSGATE_STREAM=" not in told
    await js.delete_stream(f"{own.name}-one")
    await js.add_stream(name=own.name, subjects=[f"{own.a}.>"])
    _, found = await own.findings()
    done = await own.run("provision", "--yes")
    for told in (problems(found), done.stderr):
        assert f"stream {own.name}-two stores subjects below {own.b}.>," in told
        assert f"nats stream edit {own.name}-two --subjects" in told
        assert "NATSGATE_STREAM=" not in told


async def test_limits_set_by_hand_are_notes(own: OwnStream) -> None:
    """Memory, discarding new ones, a few per subject: worth knowing, no failure."""
    await own.api(
        "CREATE",
        subjects=[f"{own.a}.>", f"{own.b}.>"],
        allow_direct=True,
        republish={"src": ">", "dest": f"{own.live}.>"},
        max_consumers=10,
        storage="memory",
        discard="new",
        max_msgs_per_subject=3,
    )
    code, found = await own.findings()
    assert code == 0, found
    notes = " ".join(each["text"] for each in found if each["level"] == "note")
    for word in ("memory", "refuses new events", "keeps 3 events"):
        assert word in notes


def test_wrong_settings_are_one_line() -> None:
    """A wrong setting is told before anything is connected; exit code 2, in JSON too."""
    wrong = {"AUTH": "none", "HEARTBEAT_S": "soon", "NATS_URL": "nats://127.0.0.1:1"}
    done = natsgate("check", settings=wrong)
    assert done.returncode == 2
    assert "NATSGATE_HEARTBEAT_S" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = natsgate("check", "--json", settings=wrong)
    assert done.returncode == 2
    assert "NATSGATE_HEARTBEAT_S" in json.loads(done.stdout)["findings"][0]["text"]


def test_nats_that_is_not_there_is_exit_code_3() -> None:
    """Nothing listens: exit code 3 with the address, and never the password in it."""
    settings = {"AUTH": "none", "NATS_URL": "nats://gate:shibboleth@127.0.0.1:1", "START_TIMEOUT_S": "0.5"}
    done = natsgate("check", settings=settings)
    assert done.returncode == 3, done
    assert "127.0.0.1:1" in done.stdout
    assert "shibboleth" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


async def test_a_server_without_jetstream_is_told(tmp_path: Any) -> None:
    """An account without JetStream is a problem of its own, not a time-out."""
    config = tmp_path / "nats.conf"
    config.write_text('accounts { A { users: [ { user: "a", password: "b" } ] } }\n')
    async with NatsServer(tmp_path / "nats", arguments=["-c", str(config)]) as server:
        settings = {"NATS_URL": server.url, "NATS_USER": "a", "NATS_PASSWORD": "b", "AUTH": "none"}
        done = await asyncio.to_thread(natsgate, "check", settings=settings)
    assert done.returncode == 2, done
    assert "JetStream is not enabled" in done.stdout


async def test_without_keys_the_rest_is_looked_at_all_the_same(own: OwnStream) -> None:
    """AUTH=jwt and nothing to check tokens with: one problem among all that is found out about NATS and the stream,
    and exit code 2; a gateway does not start so."""
    await own.ok("provision")
    code, found = await own.findings(AUTH="jwt")
    assert code == 2
    (line,) = problems(found).splitlines()
    assert line.startswith("NATSGATE_AUTH: jwt needs something to check tokens with; give NATSGATE_JWT_SECRET_FILE, ")
    fine = {each["about"] for each in found if each["level"] == "ok"}
    assert fine >= {"settings", "nats", "permissions", "stream"}
    done = await own.run("serve", AUTH="jwt", LISTEN="127.0.0.1:0")
    assert done.returncode == 2
    assert done.stderr.startswith("natsgate: NATSGATE_AUTH: jwt needs something to check tokens with: NATSGATE_JWT_")


async def test_keys_that_cannot_be_used_are_named(own: OwnStream) -> None:
    """A key that is none, and an issuer that does not answer: problems with their mends, beside the rest."""
    await own.ok("provision")
    keys = {"AUTH": "jwt", "JWT_PUBLIC_KEY": "-----BEGIN PRIVATE KEY-----"}
    code, found = await own.findings(**keys)
    assert code == 2
    assert "NATSGATE_JWT_PUBLIC_KEY" in problems(found)
    assert "public" in problems(found)
    code, found = await own.findings(AUTH="jwt", JWKS_URL="http://127.0.0.1:9/keys")
    assert code == 2
    assert "http://127.0.0.1:9/keys" in problems(found)
    assert any(each["about"] == "stream" for each in found)
    code, found = await own.findings(AUTH="jwt", JWT_SECRET="x" * 32)
    assert code == 0, found
    assert any("JWT_SECRET" in each["text"] for each in found if each["about"] == "auth")

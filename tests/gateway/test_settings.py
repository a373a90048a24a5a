"""Settings: a wrong one is one clear line and exit code 2, before anything opens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from gateway.core.errors import ConfigError
from gateway.settings import Settings, load_settings
from tests.conftest import StartGateway, provision
from tests.support.command import natsgate
from tests.support.eventually import wait_until
from tests.support.nats_server import NatsServer
from tests.support.ports import taken_port
from tests.support.sse import SseClient

NONE = {"AUTH": "none", "LISTEN": "127.0.0.1:0"}
# Nothing listens there: whoever tries it before checking the settings would hang or complain about NATS.
NOWHERE = {**NONE, "NATS_URL": "nats://127.0.0.1:1"}
# There are file descriptors for so many everywhere, so that nothing is said of them.
FEW = {**NOWHERE, "MAX_CONNECTIONS": 100}


def refused(done: CompletedProcess[str], *names: str) -> None:
    """Exit code 2 and exactly one line on stderr, with all of `names` in it."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    for name in names:
        assert name in lines[0]
    assert "Traceback" not in done.stderr


WRONG: dict[str, dict[str, object]] = {
    "HEARTBEAT_S": {"HEARTBEAT_S": "soon"},
    "LINGER_S": {"LINGER_S": "-1"},
    "LISTEN": {"LISTEN": "here"},
    "LOG_FORMAT": {"LOG_FORMAT": "xml"},
    "LOG_LEVEL": {"LOG_LEVEL": "shout"},
    "AUTH": {"AUTH": "maybe"},
    "ROOTS": {"ROOTS": "repo,*"},
    "STREAM": {"STREAM": "two words"},
    "LIVE_PREFIX": {"LIVE_PREFIX": "live.>"},
    "NATS_URL": {"NATS_URL": "http://127.0.0.1:4222"},
    "SNAPSHOT_LIMIT": {"SNAPSHOT_LIMIT": "1025"},
    "MAX_EVENT_BYTES": {"MAX_EVENT_BYTES": "lots"},
    "WS_PING_S": {"WS_PING_S": "nan"},
    "INSECURE": {"INSECURE": "perhaps"},
    "WS_MAX_ERRORS": {"WS_MAX_ERRORS": "1.5"},
}


def wrong(settings: Mapping[str, object], config: Path | None = None) -> str:
    """The one line about settings that `load_settings` refuses; `serve` prints it and ends with 2."""
    with pytest.raises(ConfigError) as caught:
        load_settings({f"NATSGATE_{name}": str(value) for name, value in settings.items()}, config)
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize(
    ("name", "value", "first"),
    [
        ("LIVE_PREFIX", "natsgate.live", "natsgate"),
        ("ROOTS", "repo,natsgate", "natsgate"),
        ("ROOTS", "_INBOX", "_INBOX"),
    ],
)
def test_what_nats_and_natsgate_say_to_each_other_is_no_event(name: str, value: str, first: str) -> None:
    """Questions to services and answers are not to be stored: their first tokens are no roots and no prefixes."""
    line = wrong({**NOWHERE, name: value})
    assert f"NATSGATE_{name}" in line
    assert f"{first} is for what NATS and natsgate say to each other" in line


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_names_its_setting(name: str) -> None:
    """One line says which setting is wrong."""
    assert f"NATSGATE_{name}" in wrong({**NOWHERE, **WRONG[name]})


SAID = {
    "HEARTBEAT_S=soon": '"soon" is not a number of seconds; give one, such as 15',
    "HEARTBEAT_S=0": '"0" is too small; give a number of seconds above 0',
    "LINGER_S=-1": '"-1" is too small; give a number of seconds, 0 or more',
    "WS_PING_S=nan": '"nan" is not a number of seconds; give one, such as 25',
    "WARM_S=1e9": '"1e9" is too large; give a number of seconds, 604800 at most',
    "MAX_EVENT_BYTES=lots": '"lots" is not a number of bytes; give one, such as 65536 or 64MiB',
    "WS_MAX_ERRORS=1.5": '"1.5" is not a whole number; give one, such as 10',
    "INBOUND_RATE=fast": '"fast" is not a number; give one, such as 20',
    "INSECURE=perhaps": '"perhaps" is neither true nor false; give one of them',
    "LOG_LEVEL=shout": '"shout" is not known; give debug, info, warning or error',
    "DRAIN_S=": "it is empty; leave it out, or give a number of seconds, such as 30",
    "ROOTS=": "it is empty; leave it out, or give one or more, separated by commas",
    "LISTEN=here:99999": 'there is no port 99999; give one up to 65535, or 0 for any free one (it is "here:99999")',
    "STREAM=two words": 'give a name of at most 255 of the characters A-Z a-z 0-9 - _ (it is "two words")',
}


@pytest.mark.parametrize("given", SAID)
def test_a_wrong_value_is_shown_with_what_would_be_right(given: str) -> None:
    """The line shows the value, and says what would be right, with its unit."""
    name, _, value = given.partition("=")
    assert wrong({**NOWHERE, name: value}) == f"NATSGATE_{name}: {SAID[given]}"


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_nats_over_websocket_is_refused(scheme: str) -> None:
    """The line says so, with what is supported, and shows nothing of what may be a password."""
    line = wrong({**NOWHERE, "NATS_URL": f"nats://n1:4222,{scheme}://gate:shibboleth@n2:443"})
    assert "NATSGATE_NATS_URL" in line
    assert "NATS over WebSocket is not supported; give NATS servers as nats://host:4222 or tls://host:4222" in line
    assert "shibboleth" not in line


TOML_SAID = {
    "replica = 7": '"7" is no text; put it into quotes',
    "roots = 7": '"7" is no list; give one, in square brackets',
    "roots = []": "it is empty; give at least one",
    "jwt_issuer = [1]": "it is no text; put it into quotes",
    "nats_password = 1234": "it is no text; put it into quotes",
    "nats_url = 1234": "it is no list; give one, in square brackets",
    "route = 7": '"7" is no list; give one, in square brackets',
    '[[route]]\nname = "a"\npath = "/a"\nsubjects = "repo.1.>"': '"repo.1.>" is no list; give one, in square brackets',
    '[[route]]\nname = "a"\npath = "/a"\nsubjects = ["repo.1.>"]\nsnapshot = "x"': '"x" is neither true nor false; '
    "give one of them",
    "route = [7]": "it is no table; give one, such as [[route]]",
    "max_filters = true": '"true" is not a whole number; give one, such as 32',
    "heartbeat_s = true": '"true" is not a number of seconds; give one, such as 15',
    "inbound_rate = true": '"true" is not a number; give one, such as 20',
    "log_bytes = true": '"true" is not a number of bytes; give one, such as 65536 or 64MiB',
    "trusted_proxies = [false]": 'give an address or a network in quotes: 10.0.0.0/8, 192.0.2.7 or ::1 (it is "false")',
    "trusted_proxies = [5]": 'give an address or a network in quotes: 10.0.0.0/8, 192.0.2.7 or ::1 (it is "5")',
    "listen = 8080": "give host:port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080",
    "listen = true": 'give host:port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080 (it is "true")',
    'metrics_listen = {host = "::1", port = 9}': "give host:port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080",
}


@pytest.mark.parametrize("toml", TOML_SAID)
def test_a_value_of_another_kind_is_told_so(tmp_path: Path, toml: str) -> None:
    """Of a TOML file the key is named, and the value shown unless it may be a secret."""
    config = tmp_path / "natsgate.toml"
    config.write_text(toml + "\n")
    settings = {"LISTEN": NOWHERE["LISTEN"], "NATS_URL": NOWHERE["NATS_URL"]}
    line = wrong({"AUTH": "none", **{name: settings[name] for name in settings if name.lower() not in toml}}, config)
    assert line.startswith(f"{config}: {toml.split()[0].strip('[]')}")
    assert line.endswith(f": {TOML_SAID[toml]}")


NUMBERS = [
    name
    for name, field in Settings.model_fields.items()
    if isinstance(field.default, int | float) and not isinstance(field.default, bool)
]


@pytest.mark.parametrize("name", [*NUMBERS, "memory_limit_bytes"])
@pytest.mark.parametrize("value", ["true", "false"])
def test_true_is_no_number(tmp_path: Path, name: str, value: str) -> None:
    """Whatever is counted: true is not 1 of it, and false is not "no limit"."""
    config = tmp_path / "natsgate.toml"
    config.write_text(f"{name} = {value}\n")
    assert f'{config}: {name}: "{value}" is not a' in wrong(NOWHERE, config)


def test_a_wrong_value_ends_the_start() -> None:
    """`serve` prints that line alone and ends with 2."""
    refused(natsgate("serve", settings={**NOWHERE, "HEARTBEAT_S": "soon"}), wrong({**NOWHERE, "HEARTBEAT_S": "soon"}))


def test_several_wrong_values_are_still_clear() -> None:
    """Two mistakes: exit code 2, and the first line names at least one of them."""
    done = natsgate("serve", settings={**NOWHERE, "HEARTBEAT_S": "soon", "LOG_FORMAT": "xml"})
    assert done.returncode == 2
    assert "HEARTBEAT_S" in done.stderr or "LOG_FORMAT" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_names_every_wrong_setting(tmp_path: Path) -> None:
    """`serve` says the first, and how many more; `check` has a line, or a finding, for each of them."""
    config = tmp_path / "natsgate.toml"
    config.write_text('hartbeat_s = 5\n[[route]]\nname = "a"\n')
    (tmp_path / "absent").touch()
    settings = {**NOWHERE, "DRAIN_S": "y", "LOG_LEVEL": "z", "FOO": "1", "NATS_TOKEN_FILE": tmp_path / "absent"}
    named = [
        f"{config}: hartbeat_s",
        "NATSGATE_FOO",
        "NATSGATE_NATS_TOKEN_FILE",
        "NATSGATE_DRAIN_S",
        "NATSGATE_LOG_LEVEL",
    ]
    named += [f"{config}: route: a: path", f"{config}: route: a: subjects"]
    refused(natsgate("serve", "--config", str(config), settings=settings), "(and 6 more; natsgate check names all)")
    done = natsgate("check", "--config", str(config), settings=settings)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert [next(name for name in named if name in line) for line in lines] == named, lines
    done = natsgate("check", "--json", "--config", str(config), settings=settings)
    assert done.returncode == 2
    assert [each["text"] for each in json.loads(done.stdout)["findings"]] == [
        line.removeprefix("natsgate: ") for line in lines
    ]


def test_a_value_from_a_file_is_not_shown(tmp_path: Path) -> None:
    """A `_FILE` may name the wrong file, and what is in it may be a secret."""
    (tmp_path / "secret").write_text("shibboleth-shibboleth")
    said = wrong({**NOWHERE, "DRAIN_S_FILE": tmp_path / "secret"})
    assert "NATSGATE_DRAIN_S_FILE" in said
    assert "shibboleth" not in said


@pytest.mark.parametrize("other", ["/a/{id}/x", "/a/{other}/x"])
def test_two_routes_of_one_path_are_refused(tmp_path: Path, other: str) -> None:
    """Of two routes for the same transport with the same path, whatever its parameters are called, one would never be
    asked."""
    config = tmp_path / "natsgate.toml"
    tables = [("one", "/a/{id}/x", "sse"), ("two", other, "ws"), ("three", other, "sse")]
    config.write_text(
        "".join(
            f'[[route]]\nname = "{name}"\npath = "{path}"\ntransports = ["{transport}"]\nsubjects = ["repo.1.>"]\n'
            for name, path, transport in tables
        )
    )
    said = wrong(NOWHERE, config)
    assert "three and one have the same path" in said
    assert "for sse" in said


def test_an_unknown_variable_is_named() -> None:
    """A misspelt `NATSGATE_` variable is not ignored in silence."""
    refused(natsgate("serve", settings={**NOWHERE, "HARTBEAT_S": "5"}), "NATSGATE_HARTBEAT_S")


@pytest.mark.parametrize(
    ("toml", "named"),
    [
        ("hartbeat_s = 5\n", "hartbeat_s"),
        ('heartbeat_s = "soon"\n', "heartbeat_s"),
        ("heartbeat_s = \n", "natsgate.toml"),
        ('[[route]]\nname = "a"\npath = "/a"\ntransport = ["sse"]\nsubjects = ["repo.1.>"]\n', "transport"),
        ('[[route]]\nname = "a"\npath = "/a"\ntransports = ["tcp"]\nsubjects = ["repo.1.>"]\n', "transports"),
        ('[[route]]\nname = "a"\npath = "/a"\ntransports = ["sse"]\nsubjects = ["moon.1.>"]\n', "moon"),
        ('[[route]]\nname = "a"\npath = "/a"\ntransports = ["sse"]\nsubjects = ["repo.{x}.>"]\n', "{x}"),
        ('[[route]]\nname = "a"\npath = "/a"\ntransports = ["sse"]\nsubjects = ["repo.42"]\n', "'repo.42.>'"),
        ('[[route]]\nname = "a"\npath = "/a/{id}"\nsubjects = ["repo.{id}"]\n', "subjects: repo.{id} (with x"),
        ('[[route]]\nname = "a"\npath = "/a"\ntransports = ["sse"]\nsubjects = []\n', "subjects"),
        ('[[route]]\nname = "a"\npath = "a"\ntransports = ["sse"]\nsubjects = ["repo.1.>"]\n', "path"),
        ('[[route]]\nname = "events"\npath = "/a"\nsubjects = ["repo.1.>"]\n', "choose another"),
        (
            '[[route]]\nname="a"\npath="/a/{type}"\ntransports=["ws"]\nsubjects=["repo.1.>"]\nframing="raw"\n'
            'publish="inbox.a.{type}"\n',
            "type of the client's message",
        ),
        ('[[route]]\npath = "/a"\ntransports = ["sse"]\nsubjects = ["repo.1.>"]\n', "name"),
        ('[[route]]\nname = "a"\npath = "/a"\ntransports = ["sse"]\nsubjects = ["inbox.1.>"]\n', "inbox"),
        (
            '[[route]]\nname="a"\npath="/a"\ntransports=["sse"]\nsubjects=["repo.1.>"]\nframing="raw"\n',
            "framing",
        ),
    ],
)
def test_a_wrong_file_names_its_key(tmp_path: Path, toml: str, named: str) -> None:
    """Unknown keys, wrong values and impossible routes in the TOML file are named."""
    config = tmp_path / "natsgate.toml"
    config.write_text(toml)
    assert named.lower() in wrong(NOWHERE, config).lower()


def test_two_routes_of_one_name_are_refused(tmp_path: Path) -> None:
    """Route names are metric labels: each is given once."""
    config = tmp_path / "natsgate.toml"
    config.write_text(
        "".join(
            f'[[route]]\nname = "twin"\npath = "/{n}"\ntransports = ["sse"]\nsubjects = ["repo.1.>"]\n'
            for n in range(2)
        )
    )
    line = wrong(NOWHERE, config)
    assert "twin" in line
    refused(natsgate("serve", "--config", str(config), settings=NOWHERE), line)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """`--config` of a file that is not there: exit code 2 and its name."""
    done = natsgate("serve", "--config", str(tmp_path / "missing.toml"), settings=NOWHERE)
    assert done.returncode == 2
    assert "missing.toml" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_secret_file_is_named(tmp_path: Path) -> None:
    """A `_FILE` that can not be read: exit code 2 and the variable's name."""
    settings = {**NOWHERE, "NATS_PASSWORD_FILE": tmp_path / "missing"}
    refused(natsgate("serve", settings=settings), "NATS_PASSWORD_FILE")


@pytest.mark.parametrize("content", ["", "\n", " \r\n"])
@pytest.mark.parametrize("name", ["JWT_SECRET", "NATS_PASSWORD", "JWT_PUBLIC_KEY"])
def test_an_empty_secret_file_is_told_to_be_empty(tmp_path: Path, name: str, content: str) -> None:
    """A secret that was never written, or is being written anew: the line names the variable and the file."""
    secret = tmp_path / "secret"
    secret.write_text(content)
    line = wrong({**NOWHERE, f"{name}_FILE": secret})
    assert line.startswith(f"NATSGATE_{name}_FILE: the file {secret} is empty; ")


def test_a_port_in_use_is_one_clear_line() -> None:
    """Somebody else on the port: one line with the address, exit code 2."""
    with taken_port() as port:
        done = natsgate("serve", settings={**FEW, "LISTEN": f"127.0.0.1:{port}", "LOG_FORMAT": "console"})
    refused(done, f"NATSGATE_LISTEN: cannot listen on 127.0.0.1:{port}")


def test_an_address_that_cannot_be_had_is_named_as_it_was_given(tmp_path: Path) -> None:
    """The line names the option or the key of the file that the address is from."""
    config = tmp_path / "natsgate.toml"
    with taken_port() as port:
        address = f"127.0.0.1:{port}"
        done = natsgate("serve", "--listen", address, settings=FEW)
        refused(done, f"natsgate: --listen: cannot listen on {address}")
        config.write_text(f'metrics_listen = "{address}"\n')
        done = natsgate("serve", "--config", str(config), settings=FEW)
        refused(done, f"{config}: metrics_listen: cannot listen on {address}")


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_no_auth_beyond_loopback_is_refused(listen: str) -> None:
    """`AUTH=none` on another address than loopback needs `INSECURE=true`, and the line says so."""
    refused(natsgate("serve", settings={**NOWHERE, "LISTEN": listen}), "INSECURE")


async def test_insecure_allows_it(start_gateway: StartGateway) -> None:
    """With `INSECURE=true` it listens on every address."""
    gateway = await start_gateway(LISTEN="0.0.0.0:0", INSECURE="true")
    assert gateway.logs("listening")


async def test_variables_that_kubernetes_injects_are_ignored(start_gateway: StartGateway) -> None:
    """`NATSGATE_PORT…` and `NATSGATE_SERVICE_…` are Kubernetes' and change nothing."""
    await start_gateway(
        variables={
            "NATSGATE_PORT": "tcp://10.0.0.1:8080",
            "NATSGATE_PORT_8080_TCP": "tcp://10.0.0.1:8080",
            "NATSGATE_PORT_8080_TCP_PROTO": "tcp",
            "NATSGATE_SERVICE_HOST": "10.0.0.1",
            "NATSGATE_SERVICE_PORT": "8080",
            "NATSGATE_SERVICE_PORT_HTTP": "8080",
        }
    )


async def test_the_environment_wins_over_the_file(start_gateway: StartGateway, own_id: str) -> None:
    """The TOML file has the same names in lower case; the environment is stronger."""
    gateway = await start_gateway(config='replica = "file"\nheartbeat_s = 0.2\n', REPLICA="environment")
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        assert (await sse.ready()).json()["replica"] == "environment"
        await sse.next_comment()


@pytest.fixture
def locked_nats(tmp_path: Path) -> NatsServer:
    """A nats-server that wants a user and a password; not started."""
    return NatsServer(tmp_path / "locked", arguments=["--user", "gate", "--pass", "open sesame"])


async def test_a_secret_may_come_from_a_file(
    tmp_path: Path, start_gateway: StartGateway, locked_nats: NatsServer
) -> None:
    """`NATS_PASSWORD_FILE` is read, the newline at its end left out; the secret is in no log line."""
    secret = tmp_path / "password"
    secret.write_text("open sesame\n")
    login: dict[str, object] = {"NATS_USER": "gate", "NATS_PASSWORD_FILE": secret}
    async with locked_nats:
        await asyncio.to_thread(partial(provision, locked_nats.url, **login))
        gateway = await start_gateway(nats_url=locked_nats.url, settings=login)
        assert "open sesame" not in gateway.log_text
        await asyncio.to_thread(gateway.stop)


async def test_a_wrong_password_leaves_it_waiting_and_saying_so(
    start_gateway: StartGateway, locked_nats: NatsServer
) -> None:
    """A refused login does not end `serve`: it lives, is not ready, and logs why without the secret."""
    async with locked_nats:
        gateway = await start_gateway(
            nats_url=locked_nats.url, ready=False, NATS_USER="gate", NATS_PASSWORD="shibboleth"
        )

        def said() -> bool:
            return "authoriz" in gateway.log_text.lower()

        await asyncio.to_thread(wait_until, said, "the log tells of the refused login")
        assert gateway.get("/livez").status == 200
        assert gateway.get("/readyz").status == 503
        assert "shibboleth" not in gateway.log_text + gateway.get("/readyz").body.decode()
        await asyncio.to_thread(gateway.stop)


def test_start_timeout_is_exit_code_3() -> None:
    """NATS not reached within `START_TIMEOUT_S`: exit code 3."""
    done = natsgate("serve", settings={**NOWHERE, "START_TIMEOUT_S": "0.5"})
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["--version"]])
def test_help_and_version(arguments: list[str]) -> None:
    """The command explains itself."""
    done = natsgate(*arguments, settings={})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()

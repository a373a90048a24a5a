"""Settings from any environment and any file: valid ones, or one line that says which is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.errors import ConfigError
from gateway.given import PREFIX
from gateway.settings import Settings, load_settings

FIELDS = sorted(set(Settings.model_fields) - {"route"})
SECRET = "hunter2-hunter2"
SECRETS = ("NATS_PASSWORD", "NATS_TOKEN", "NATS_NKEY", "JWT_SECRET", "NATS_URL")

# The kernel allows every character but NUL; bytes that are no UTF-8 arrive as lone surrogates.
characters = st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from("\udc80\udcff")
values = st.sampled_from(
    [
        *("", "0", "1", "-1", "1.5", "nan", "inf", "1e400", "9" * 40, "64MiB", "1 kb", " 7 ", "true", "none", "jwt"),
        *("127.0.0.1:8080", "[::1]:0", "0.0.0.0:1", ":1", "host:99999", "nats://h:1", "a,b", ",", "json"),
        *("x", "\u00e9", "\udcff", "a\nb"),
    ]
)


OF_PYDANTIC = re.compile(
    r"Input should|(String|Tuple|List) should|valid (tuple|string|number|integer)|Field required|Extra "
)


def refused(error: ConfigError) -> None:
    """One line, short enough to be read, of characters that a terminal shows, without any secret, and in our words."""
    text = str(error)
    assert text.isprintable(), ascii(text)
    assert 0 < len(text) < 1000
    assert SECRET not in text
    assert not OF_PYDANTIC.search(text), text


def usable(read: Settings) -> None:
    """What was taken can be written down: for clients, in logs."""
    json.dumps(read.model_dump(mode="json")).encode()
    read.replica.encode()


@given(
    st.dictionaries(st.sampled_from(FIELDS).map(lambda name: PREFIX + name.upper()), values | st.text(characters)),
    st.dictionaries(st.text(characters, max_size=8).map(lambda name: PREFIX + name), values, max_size=1),
    st.sampled_from([{}, {"NATSGATE_AUTH": "none"}]),
)
def test_any_environment_is_settings_or_one_line(
    environ: dict[str, str], foreign: dict[str, str], base: dict[str, str]
) -> None:
    """Any values, and names that are none, end as settings or as a ConfigError of one line."""
    try:
        usable(load_settings({**base, **environ, **foreign}))
    except ConfigError as error:
        refused(error)


@given(st.sampled_from(SECRETS), st.text(characters, max_size=5), st.sampled_from(["jwt", "none", "wrong"]))
def test_no_error_shows_a_secret(name: str, around: str, auth: str) -> None:
    """A secret that is wrong, or stands beside what is wrong, is never part of the line."""
    try:
        load_settings({f"NATSGATE_{name}": around + SECRET, "NATSGATE_AUTH": auth, "NATSGATE_HEARTBEAT_S": "soon"})
    except ConfigError as error:
        refused(error)
    else:
        pytest.fail("heartbeat_s is wrong")


paths = st.text(characters, max_size=6) | st.sampled_from(["/", "/dev/null", "/proc/self/mem", "a\nb", "x" * 300])


@given(st.sampled_from(FIELDS), paths)
def test_any_secret_file_is_read_or_named(name: str, path: str) -> None:
    """A file that cannot be read is one line that names the variable."""
    variable = f"{PREFIX}{name.upper()}_FILE"
    try:
        usable(load_settings({variable: path, "NATSGATE_AUTH": "none"} if name != "auth" else {variable: path}))
    except ConfigError as error:
        refused(error)


leaves = st.booleans() | st.integers() | st.floats() | values | st.text(st.characters(exclude_categories=["Cs"]))
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
)
route_keys = ["name", "path", "transports", "subjects", "snapshot", "framing", "publish", "authorize"]
good = {"name": "r", "path": "/r/{id}", "subjects": ["repo.{id}.>"]}
routes = st.fixed_dictionaries({}, optional={key: trees | st.just(good.get(key, "x")) for key in route_keys})
files = st.dictionaries(st.sampled_from(FIELDS), trees, max_size=3).flatmap(
    lambda top: st.builds(
        lambda each: {"auth": "none", **top, **({"route": each} if each is not None else {})},
        st.none() | st.lists(routes.map(lambda route: {**good, **route}), max_size=2) | trees,
    )
)


def toml(value: Any) -> str:
    """A value as TOML; tables inline."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    return str(value).lower()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files.map(lambda tree: "\n".join(f"{key} = {toml(each)}" for key, each in tree.items())).map(str.encode)
    | st.binary(max_size=40)
    | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace"))
)
def test_any_file_is_settings_or_one_line(tmp_path: Path, content: bytes) -> None:
    """Any TOML, and what is none, ends as settings or as a ConfigError of one line."""
    path = tmp_path / "natsgate.toml"
    path.write_bytes(content)
    try:
        usable(load_settings({}, path))
    except ConfigError as error:
        refused(error)


@pytest.mark.parametrize("number", [b"9" * 5000, b"0x" + b"f" * 5000], ids=["decimal", "hexadecimal"])
@pytest.mark.parametrize("key", [b"max_connections", b"listen", b"heartbeat_s", b"route"])
def test_a_number_of_thousands_of_digits_is_refused(tmp_path: Path, key: bytes, number: bytes) -> None:
    """A number that Python does not turn into text is one line like any other wrong value."""
    path = tmp_path / "natsgate.toml"
    path.write_bytes(key + b" = " + number)
    with pytest.raises(ConfigError) as error:
        usable(load_settings({}, path))
    refused(error.value)


@pytest.mark.parametrize("opening", [b"[", b"{a="], ids=["arrays", "tables"])
def test_endless_nesting_is_refused(tmp_path: Path, opening: bytes) -> None:
    """A file whose values are nested without end is one line like any other bad file."""
    path = tmp_path / "natsgate.toml"
    path.write_bytes(b"heartbeat_s = " + opening * 5000)
    with pytest.raises(ConfigError, match="nested too deep") as error:
        load_settings({}, path)
    refused(error.value)

"""Settings: from the environment, a TOML file and secret files, validated before anything opens.

This is the only module that reads the environment. A setting `heartbeat_s` is `NATSGATE_HEARTBEAT_S` in the
environment, `heartbeat_s` in the file, and `NATSGATE_HEARTBEAT_S_FILE` names a file that holds its value.
The environment wins over the file. 0 means "no limit" unless a description says otherwise.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import socket
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from gateway.core.errors import ConfigError
from gateway.core.routes import RouteSpec
from publishers.wire import DEFAULT_ROOTS

PREFIX = "NATSGATE_"
_IGNORED = re.compile(r"(PORT|SERVICE_|TOKEN$)")
"""Kubernetes puts NATSGATE_PORT, NATSGATE_PORT_80_TCP, NATSGATE_SERVICE_HOST… into every pod beside a Service
called natsgate. They are none of ours. NATSGATE_TOKEN is what `natsgate tail` shows to a gateway."""

_SECRET = ("nats_url", "nats_nkey", "nats_password", "nats_token", "jwt_secret")
"""Settings whose values are never shown. A NATS URL may hold a password."""

_UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def _bytes(value: object) -> object:
    shape = re.fullmatch(r"\s*(\d+)\s*([kmg]?i?b?)\s*", value, re.IGNORECASE) if isinstance(value, str) else None
    if shape is None or shape[2].lower() not in _UNITS:
        return value
    return int(shape[1]) * _UNITS[shape[2].lower()]


def _words(value: object) -> object:
    return tuple(re.split(r"[,\s]+", value.strip(", \t\n"))) if isinstance(value, str) and value.strip() else value


Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Count = Annotated[int, Field(ge=0)]


class Address(BaseModel):
    """Where to listen."""

    model_config = ConfigDict(frozen=True)
    host: str
    port: int = Field(ge=0, le=65535)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def _address(value: object) -> object:
    shape = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]\s]*)):(\d{1,5})", value) if isinstance(value, str) else None
    if shape is None:
        if isinstance(value, str):
            raise ValueError("give host:port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080")
        return value
    return Address(host=shape[1] or shape[2] or "0.0.0.0", port=int(shape[3]))  # noqa: S104 - asked for by an empty host


def _nats_url(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"(nats|tls|ws|wss)://[^\s/]+/?", value):
        raise ValueError("give NATS servers as nats://host:4222, tls://host:4222 or ws://host:443")
    return value


NatsUrl = Annotated[str, BeforeValidator(_nats_url)]
Listen = Annotated[Address, BeforeValidator(_address)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=255)]
Root = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=64)]
Prefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length=255)]


class Settings(BaseModel):
    """All settings, frozen. Descriptions give unit, meaning and what 0 means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: Listen = Field(
        default=Address(host="127.0.0.1", port=8080),
        description="Where to serve, host:port. Port 0: any free one, logged.",
    )
    metrics_listen: Listen | None = Field(
        default=None, description="Where to serve /metrics (and only there); absent: on LISTEN."
    )
    nats_url: Annotated[tuple[NatsUrl, ...], BeforeValidator(_words), Field(min_length=1)] = Field(
        default=("nats://127.0.0.1:4222",), description="NATS servers, comma-separated."
    )
    nats_creds: str | None = Field(default=None, description="Path of a NATS credentials file.")
    nats_nkey: SecretStr | None = Field(default=None, description="NKey seed (give it as NATSGATE_NATS_NKEY_FILE).")
    nats_user: str | None = Field(default=None, description="NATS user name.")
    nats_password: SecretStr | None = Field(default=None, description="NATS password.")
    nats_token: SecretStr | None = Field(default=None, description="NATS token.")
    nats_ca: str | None = Field(default=None, description="Path of the CA certificates that sign the NATS servers'.")
    nats_cert: str | None = Field(default=None, description="Path of the client certificate for NATS.")
    nats_key: str | None = Field(default=None, description="Path of the key of NATS_CERT.")
    stream: Name = Field(default="EVENTS", description="The JetStream stream that stores all events.")
    roots: Annotated[tuple[Root, ...], BeforeValidator(_words), Field(min_length=1)] = Field(
        default=DEFAULT_ROOTS, description="First tokens of the subjects that the stream stores."
    )
    live_prefix: Prefix = Field(default="live", description="Prefix under which the stream republishes what it stored.")
    auth: Literal["jwt", "none"] = Field(
        default="jwt",
        description="Who clients are. `jwt` is not built yet: set `none`, on a loopback address (or with INSECURE).",
    )
    jwt_secret: SecretStr | None = Field(
        default=None, description="Secret of HS256 tokens, at least 32 bytes (give it as NATSGATE_JWT_SECRET_FILE)."
    )
    insecure: bool = Field(default=False, description="Allow AUTH=none on an address that other machines can reach.")
    heartbeat_s: PositiveSeconds = Field(
        default=15, description="Silence after which an SSE client gets a comment, seconds."
    )
    ws_ping_s: PositiveSeconds = Field(default=25, description="Seconds between protocol pings to a WebSocket client.")
    ws_pong_timeout_s: PositiveSeconds = Field(
        default=10, description="Seconds a WebSocket client has to answer a ping before it is closed."
    )
    write_timeout_s: Seconds = Field(
        default=20, description="Seconds without one byte accepted after which a client is closed. 0: never."
    )
    linger_s: Seconds = Field(
        default=30,
        description="Seconds the NATS subscription stays open after the last client left. 0: none.",
    )
    log_bytes: Annotated[Bytes, Field(ge=1)] = Field(
        default=64 * 2**20, description="Size of the shared event log, bytes (units such as MiB are taken)."
    )
    max_event_bytes: Bytes = Field(default=256 * 2**10, description="Larger events are dropped and counted, bytes.")
    max_filters: Count = Field(default=32, description="Filters in one feed.")
    max_subscriptions: Count = Field(default=128, description="Feeds of one WebSocket connection.")
    replay_limit: Count = Field(default=10000, description="Matching events a client may replay when it connects.")
    snapshot_limit: Annotated[int, Field(ge=1, le=1024)] = Field(default=1000, description="Subjects in one snapshot.")
    warm_s: Annotated[float, Field(ge=0, le=7 * 86400, allow_inf_nan=False)] = Field(
        default=60, description="Seconds of the stream that are read into the log when the subscription opens. 0: none."
    )
    ws_max_message_bytes: Bytes = Field(
        default=64 * 2**10, description="Largest WebSocket message taken, its fragments together, bytes."
    )
    ws_max_errors: Count = Field(default=10, description="Errors after which a WebSocket connection is closed.")
    request_timeout_s: Seconds = Field(
        default=10, description="Seconds a client has to send a whole request. 0: no limit."
    )
    max_header_bytes: Bytes = Field(default=16 * 2**10, description="Largest request line and headers, bytes.")
    start_timeout_s: Seconds = Field(
        default=0,
        description="Seconds to wait for NATS and the stream at start before exit code 3. 0: for ever.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="What is logged.")
    log_format: Literal["console", "json"] | None = Field(
        default=None, description="How it is logged; absent: console on a terminal, else json."
    )
    replica: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        max_length=255,
        description="This replica's name for clients and logs.",
    )
    route: tuple[RouteSpec, ...] = Field(default=(), description="Configured routes (file only).")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.auth == "jwt":
            raise ValueError(
                "auth: jwt is not built yet; until it is, set NATSGATE_AUTH=none and listen on a loopback address"
            )
        if not self.listen.loopback and not self.insecure:
            raise ValueError(
                f"auth: none on {self.listen} would show every event to everybody who can reach it; "
                "listen on 127.0.0.1, or set NATSGATE_INSECURE=true if that is what you want"
            )
        if self.live_prefix.split(".")[0] in self.roots:
            raise ValueError(
                "live_prefix: it begins with a root, so the stream would store what it republishes; choose another"
            )
        if len(set(self.roots)) != len(self.roots):
            raise ValueError("roots: one is named twice")
        if (self.nats_cert is None) != (self.nats_key is None):
            raise ValueError("nats_cert: NATS_CERT and NATS_KEY belong together; give both or none")
        names = set()
        for route in self.route:
            if route.name in names:
                raise ValueError(f"route: two routes have the name {route.name}")
            names.add(route.name)
            route.check_roots(self.roots)
        return self


def load_settings(
    environ: Mapping[str, str] | None = None, config: Path | None = None, given: Mapping[str, object] | None = None
) -> Settings:
    """Read and validate all settings.

    Args:
        environ: the environment; absent: this process's.
        config: a TOML file.
        given: settings from the command line; they win over everything.

    Raises:
        ConfigError: one line that names the setting as its author wrote it, and what would be right.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    if config is not None:
        for key, value in _file(config).items():
            values[key] = value
            spelled[key] = f"{config}: {key}"
    for key, (value, name) in _environment(environ).items():
        values[key] = value
        spelled[key] = name
    for key, value in (given or {}).items():
        if value is not None:
            values[key] = value
            spelled[key] = "--" + key.replace("_", "-")
    try:
        return Settings(**values)
    except ValidationError as error:
        raise ConfigError(_one_line(error, spelled)) from None


def _file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is no valid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: is no valid TOML: its values are nested too deep") from None
    for key in content:
        if key not in Settings.model_fields:
            raise ConfigError(f"{path}: {key}: there is no such setting{_meant(key)}")
    return content


def _environment(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for name, value in environ.items():
        if not name.startswith(PREFIX) or _IGNORED.match(name, len(PREFIX)):
            continue
        key = name.removeprefix(PREFIX).lower()
        if key.endswith("_file") and key not in Settings.model_fields:
            key = key.removesuffix("_file")
            value = _secret(name, value)
        if key not in Settings.model_fields or key == "route" or name != name.upper():
            raise ConfigError(f"{name}: there is no such setting{_meant(key, PREFIX)}")
        if key in found:
            raise ConfigError(f"{found[key][1]} and {name} are both set; give one of them")
        found[key] = (value, name)
    return found


def _secret(name: str, path: str) -> str:
    try:
        return Path(path).read_text("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"{name}: the file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: the file {path} is not UTF-8") from None


def _meant(key: str, prefix: str = "") -> str:
    close = difflib.get_close_matches(key.lower(), Settings.model_fields, n=1)
    return f"; did you mean {prefix}{close[0].upper() if prefix else close[0]}?" if close else ""


def _one_line(error: ValidationError, spelled: Mapping[str, str]) -> str:
    first = error.errors(include_url=False)[0]
    text = re.sub(r"\s+", " ", first["msg"].removeprefix("Value error, "))
    if isinstance(first["input"], str | int | float) and first["loc"] and first["loc"][0] not in _SECRET:
        text += f" (it is {str(first['input'])[:60]!r})"
    location = [str(part) for part in first["loc"]]
    if not location:
        location, _, text = ([text.partition(": ")[0]], "", text.partition(": ")[2])
    key = location[0]
    name = spelled.get(key, PREFIX + key.upper())
    rest = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in location[1:])
    more = len(error.errors()) - 1
    return f"{name}{rest}: {text}" + (f" (and {more} more)" if more else "")


def log_format(settings: Settings) -> str:
    """The log format in force: console on a terminal, else JSON, unless set."""
    return settings.log_format or ("console" if sys.stderr.isatty() else "json")

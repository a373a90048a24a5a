"""Settings: from the environment, a TOML file and secret files, validated before anything opens.

A setting `heartbeat_s` is `NATSGATE_HEARTBEAT_S` in the environment, `heartbeat_s` in the file, and
`NATSGATE_HEARTBEAT_S_FILE` names a file that holds its value. The environment wins over the file. 0 means "no limit"
unless a description says otherwise.

No other module of the gateway takes settings from the environment; `gateway.dev` hands it on to what it starts, and
publishers have settings of their own.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)

from gateway.complaint import line, named
from gateway.core.errors import ConfigError
from gateway.core.routes import RouteSpec
from gateway.core.subjects import OWN_SUBJECTS
from gateway.given import from_environment, from_file
from gateway.values import (
    NUMBER,
    WHOLE,
    Address,
    Bytes,
    Count,
    HttpUrl,
    Listen,
    Name,
    NatsUrl,
    Origin,
    PositiveSeconds,
    Prefix,
    Proxy,
    Root,
    Seconds,
    Secret,
    words,
)
from publishers.wire import DEFAULT_ROOTS

_SECRET = ("nats_url", "nats_nkey", "nats_password", "nats_token", "jwt_secret", "ticket_secret", "jwks_url")
"""Settings whose values are never shown. A NATS URL may hold a password."""

NO_KEYS = "jwt needs something to check tokens with"
KEYS = (
    "NATSGATE_JWT_SECRET_FILE, NATSGATE_JWT_PUBLIC_KEY_FILE or NATSGATE_JWKS_URL "
    "(or AUTH=none on a loopback address: no tokens)"
)
"""What is wrong with settings that lack keys, and what would be right."""


class Settings(BaseModel):
    """All settings, frozen. Descriptions give unit, meaning and what 0 means."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    _spelled: Mapping[str, str] = PrivateAttr(default_factory=dict)
    _config: Path | None = PrivateAttr(default=None)

    listen: Listen = Field(
        default=Address(host="127.0.0.1", port=8080),
        description="Where to serve, host:port. Port 0: any free one, logged.",
    )
    metrics_listen: Listen | None = Field(
        default=None, description="Where to serve /metrics (and only there); absent, or the same: on LISTEN."
    )
    nats_url: Annotated[tuple[NatsUrl, ...], BeforeValidator(words), Field(min_length=1)] = Field(
        default=("nats://127.0.0.1:4222",), description="NATS servers, nats:// or tls://, comma-separated."
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
    roots: Annotated[tuple[Root, ...], BeforeValidator(words), Field(min_length=1)] = Field(
        default=DEFAULT_ROOTS, description="First tokens of the subjects that the stream stores."
    )
    live_prefix: Prefix = Field(default="live", description="Prefix under which the stream republishes what it stored.")
    auth: Literal["jwt", "none"] = Field(
        default="jwt",
        description="Who clients are: `jwt`, what their token says; `none`, anybody, who may see everything.",
    )
    jwt_secret: Secret | None = Field(
        default=None, description="Secret of HS256 tokens, at least 32 bytes (give it as NATSGATE_JWT_SECRET_FILE)."
    )
    jwt_public_key: str | None = Field(
        default=None,
        description="Public key of RS256, ES256 or EdDSA tokens, PEM (give it as NATSGATE_JWT_PUBLIC_KEY_FILE).",
    )
    jwks_url: HttpUrl | None = Field(
        default=None, description="URL of the issuer's keys, a JSON Web Key Set; fetched every 5 minutes."
    )
    jwt_issuer: str | None = Field(
        default=None, min_length=1, description="What a token's `iss` has to be; absent: anything."
    )
    jwt_audience: Annotated[tuple[str, ...], BeforeValidator(words)] = Field(
        default=(), description="What a token's `aud` has to hold one of, comma-separated; absent: anything."
    )
    jwt_leeway_s: Annotated[float, Field(ge=0, le=600, allow_inf_nan=False), NUMBER] = Field(
        default=5, description="Seconds that clocks may differ when `exp`, `nbf` and `iat` are checked."
    )
    ticket_secret: Secret | None = Field(
        default=None,
        description="Secret of tickets, at least 32 bytes, the same on all replicas. Absent: made from JWT_SECRET.",
    )
    ticket_ttl_s: Seconds = Field(
        default=3600, description="Seconds a ticket lives at most. 0: as long as the token that it was got with."
    )
    allow_access_token: bool = Field(
        default=False, description="Take tokens from `?access_token=`, where they end up in proxies' logs."
    )
    allowed_origins: Annotated[tuple[Origin, ...], BeforeValidator(words)] = Field(
        default=(), description="Origins beside the own one whose pages may use this gateway, comma-separated."
    )
    auth_timeout_s: Seconds = Field(
        default=10,
        description="Seconds a WebSocket client without a token has to send its `auth` message. 0: no limit.",
    )
    insecure: bool = Field(default=False, description="Allow AUTH=none on an address that other machines can reach.")
    trusted_proxies: Annotated[tuple[Proxy, ...], BeforeValidator(words)] = Field(
        default=(),
        description="Addresses or networks of proxies whose X-Forwarded-For is believed, comma-separated.",
    )
    max_connections: Count = Field(default=20000, description="Connections that this replica takes.")
    max_connections_per_sub: Count = Field(default=50, description="Connections of one user (`sub`), on this replica.")
    max_connections_per_ip: Count = Field(
        default=0, description="Connections of one address (of one /64 for IPv6), on this replica. See TRUSTED_PROXIES."
    )
    inbound_rate: Annotated[float, Field(ge=0, allow_inf_nan=False), NUMBER] = Field(
        default=20,
        description="Messages per second that a WebSocket client may send, as an average over 10 s; more end it.",
    )
    memory_limit_bytes: Bytes | None = Field(
        default=None,
        description="Memory above 90 % of which new connections are turned away, bytes. Absent: the cgroup's. 0: none.",
    )
    heartbeat_s: PositiveSeconds = Field(
        default=15, description="Silence after which an SSE client gets a comment, seconds. Not 0."
    )
    ws_ping_s: PositiveSeconds = Field(
        default=25, description="Seconds between protocol pings to a WebSocket client. Not 0."
    )
    ws_pong_timeout_s: PositiveSeconds = Field(
        default=10, description="Seconds a WebSocket client has to answer a ping before it is closed. Not 0."
    )
    write_timeout_s: Seconds = Field(
        default=20, description="Seconds without one byte accepted after which a client is closed. 0: never."
    )
    max_age_s: Seconds = Field(
        default=0,
        description="Seconds after which a client is asked to connect anew, 80-100 % of it at random. 0: never.",
    )
    drain_delay_s: Seconds = Field(
        default=5,
        description="Seconds between SIGTERM, which makes /readyz fail, and the first connection that is ended: "
        "what load balancers need to notice. New clients are served meanwhile. 0: none.",
    )
    drain_s: Seconds = Field(
        default=30, description="Seconds over which connections are then ended, at random moments. 0: all at once."
    )
    linger_s: Seconds = Field(
        default=30,
        description="Seconds the NATS subscription stays open after the last client left. 0: none.",
    )
    log_bytes: Annotated[Bytes, Field(ge=1)] = Field(
        default=64 * 2**20, description="Size of the shared event log, bytes (units such as MiB are taken). Not 0."
    )
    max_event_bytes: Bytes = Field(default=256 * 2**10, description="Larger events are dropped and counted, bytes.")
    max_filters: Count = Field(default=32, description="Filters in one feed.")
    max_subscriptions: Count = Field(default=128, description="Feeds of one WebSocket connection.")
    replay_limit: Count = Field(default=10000, description="Matching events a client may replay when it connects.")
    snapshot_limit: Annotated[int, Field(ge=1, le=1024), WHOLE] = Field(
        default=1000, description="Subjects in one snapshot. Not 0."
    )
    warm_s: Annotated[float, Field(ge=0, le=7 * 86400, allow_inf_nan=False), NUMBER] = Field(
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

    def name_of(self, setting: str) -> str:
        """A setting as its author named it: `--listen`, `natsgate.toml: listen`, else `NATSGATE_LISTEN`."""
        return named(setting, self._spelled)

    @property
    def config_file(self) -> Path | None:
        """The TOML file that they were read with."""
        return self._config

    def is_given(self, setting: str) -> bool:
        """Whether a setting was given beside the TOML file: in the environment, or on the command line."""
        spelled = self._spelled.get(setting)
        return spelled is not None and spelled != f"{self._config}: {setting}"

    @property
    def lacks_keys(self) -> bool:
        """Whether tokens are asked for, and nothing is there to check them with."""
        return self.auth == "jwt" and not (self.jwt_secret or self.jwt_public_key or self.jwks_url)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.auth == "none" and not self.listen.loopback and not self.insecure:
            raise ValueError(
                f"auth: none on {self.listen} would show every event to everybody who can reach it; "
                "listen on 127.0.0.1, or set NATSGATE_INSECURE=true if that is what you want"
            )
        for setting, first in (
            ("live_prefix", self.live_prefix.split(".")[0]),
            *(("roots", each) for each in self.roots),
        ):
            if first in OWN_SUBJECTS:
                raise ValueError(
                    f"{setting}: {first} is for what NATS and natsgate say to each other; choose another name"
                )
        if self.live_prefix.split(".")[0] in self.roots:
            raise ValueError(
                "live_prefix: it begins with a root, so the stream would store what it republishes; choose another"
            )
        if len(set(self.roots)) != len(self.roots):
            raise ValueError("roots: one is named twice")
        if (self.nats_cert is None) != (self.nats_key is None):
            raise ValueError("nats_cert: NATS_CERT and NATS_KEY belong together; give both or none")
        names: set[str] = set()
        paths: dict[str, str] = {}
        for route in self.route:
            if route.name in names:
                raise ValueError(f"route: two routes have the name {route.name}")
            names.add(route.name)
            for transport in route.transports:
                path = f"{transport} {re.sub(r'{[^}]*}', '{}', route.path)}"
                if path in paths:
                    raise ValueError(
                        f"route: {route.name} and {paths[path]} have the same path {route.path} for {transport}; "
                        "the second one would never be asked"
                    )
                paths[path] = route.name
            route.check_roots(self.roots)
        return self


def load_settings(
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
    given: Mapping[str, object] | None = None,
    *,
    keyless: bool = False,
) -> Settings:
    """Read and validate all settings.

    Args:
        environ: the environment; absent: this process's.
        config: a TOML file.
        given: settings from the command line; they win over everything.
        keyless: take settings that lack keys, too: for whoever serves nobody.

    Raises:
        ConfigError: one line that names the setting as its author wrote it, and what would be right.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    wrong: list[str] = []
    fields = Settings.model_fields.keys()
    if config is not None:
        for key, value in from_file(config, fields, wrong).items():
            values[key] = value
            spelled[key] = f"{config}: {key}"
    for key, (value, name) in from_environment(environ, fields, wrong).items():
        values[key] = value
        spelled[key] = name
    for key, value in (given or {}).items():
        if value is not None:
            values[key] = value
            spelled[key] = "--" + key.replace("_", "-")
    settings = _settings(values, spelled, wrong, keyless=keyless)
    settings._config = config
    return settings


def adopt(running: Settings, changes: Mapping[str, object]) -> Settings:
    """The running settings with some of them changed, as valid as a whole.

    Raises:
        ConfigError: they do not go together.
    """
    return _settings({name: getattr(running, name) for name in Settings.model_fields} | dict(changes), {})


def _settings(
    values: Mapping[str, Any], spelled: Mapping[str, str], wrong: Sequence[str] = (), *, keyless: bool = False
) -> Settings:
    try:
        settings = Settings(**values)
    except ValidationError as error:
        fields = {name: field.default for name, field in Settings.model_fields.items()}
        lines = [line(each, spelled, values, fields, secrets=_SECRET) for each in error.errors(include_url=False)]
        raise ConfigError(*wrong, *lines) from None
    if settings.lacks_keys and not keyless:
        wrong = [*wrong, f"{named('auth', spelled)}: {NO_KEYS}: {KEYS}"]
    if wrong:
        raise ConfigError(*wrong)
    settings._spelled = spelled
    return settings


def log_format(settings: Settings) -> str:
    """The log format in force: console on a terminal, else JSON, unless set."""
    return settings.log_format or ("console" if sys.stderr.isatty() else "json")

"""Settings of a publisher: where NATS is, how to log in, and every limit, with units in the names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from urllib.parse import urlsplit

from publishers.errors import SettingsError
from publishers.wire import MAX_EVENT_BYTES

_PLACE = re.compile(r"[^\[\]]+|\[[^\[\]]+\](:[^\[\]]*)?")
_NO_HOST = "its host is missing or cannot be read (brackets are for IPv6: nats://[::1]:4222)"
_MAY_BE_ZERO = frozenset({"max_event_bytes"})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of `Publisher` and `SyncPublisher`; wrong ones raise `SettingsError` at once.

    Args:
        servers: NATS URLs, comma-separated: `nats://a:4222,nats://b:4222`; `tls://` asks for TLS.
        creds: path of a `.creds` file (JWT and seed).
        nkey_seed: the seed itself (`SU...`).
        user, password, token: plain logins.
        tls_ca, tls_cert, tls_key: paths of PEM files; any of them turns TLS on.
        name: the connection's name in NATS's monitoring.
        inbox_prefix: where acknowledgements come; change it when permissions ask for an own prefix.
        buffer_bytes: memory for events that are not acknowledged yet, 2 KiB of overhead each included.
        max_event_bytes: biggest event; 0 for no limit but the server's.
        max_in_flight: events on the wire without acknowledgement.
        max_in_flight_per_subject: 1 keeps the order of a subject whatever happens. More raises the rate of a
            single subject, but a stream that refuses one event and then stores the next (a leader change, a
            disk that is full for a moment) swaps the two.
        timeout_s: how long `publish` waits for the acknowledgement.
        ack_wait_s: silence after which an event is sent again (with the same `Nats-Msg-Id`).
        retry_for_s: how long a NATS that is reachable may refuse one event or leave it unanswered before the
            event fails. Time without NATS does not count.
        duplicate_window_s: the stream's duplicate window. An event that may be stored is not sent again when
            nine tenths of it are over.
        backoff_min_s, backoff_max_s: pause before a retry or a new connection, doubling, with jitter.
        connect_timeout_s, ping_interval_s: three unanswered pings end a connection.
        close_timeout_s: how long `close` flushes unless told otherwise.
    """

    servers: str = "nats://127.0.0.1:4222"
    creds: str | None = None
    nkey_seed: str | None = field(default=None, repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    name: str = "natsgate-publisher"
    inbox_prefix: str = "_INBOX"
    buffer_bytes: int = 16 * 1024 * 1024
    max_event_bytes: int = MAX_EVENT_BYTES
    max_in_flight: int = 1024
    max_in_flight_per_subject: int = 1
    timeout_s: float = 30.0
    ack_wait_s: float = 5.0
    retry_for_s: float = 30.0
    duplicate_window_s: float = 120.0
    backoff_min_s: float = 0.05
    backoff_max_s: float = 2.0
    connect_timeout_s: float = 5.0
    ping_interval_s: float = 5.0
    close_timeout_s: float = 5.0

    def __post_init__(self) -> None:
        if not self.server_urls:
            raise SettingsError("setting 'servers' names no server: e.g. nats://127.0.0.1:4222")
        for position, url in enumerate(self.server_urls, start=1):
            problem = _server_problem(url)
            if problem:
                raise SettingsError(f"setting 'servers', server {position}: {problem}: give nats://… or tls://…")
        for name in ("creds", "tls_ca", "tls_cert", "tls_key"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                raise SettingsError(f"setting {name!r}: there is no file {str(path)!r}; give the path of a file")
        if self.tls_key is not None and self.tls_cert is None:
            raise SettingsError("setting 'tls_key' is given without 'tls_cert': give both")
        if self.password is not None and self.user is None:
            raise SettingsError("setting 'password' is given without 'user': give both")
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, int | float) and (value < 0 or (not value and item.name not in _MAY_BE_ZERO)):
                raise SettingsError(f"setting {item.name!r} is {value}: it must be more than 0")

    def __repr__(self) -> str:
        shown = {item.name: getattr(self, item.name) for item in fields(self) if item.repr}
        shown["servers"] = ",".join(map(without_login, self.server_urls))
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def server_urls(self) -> list[str]:
        """The servers as a list."""
        return [url.strip() for url in self.servers.split(",") if url.strip()]

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Settings from the variables that natsgate itself uses.

        `NATSGATE_NATS_URL` (several, comma), `NATSGATE_NATS_CREDS`, `_NKEY`, `_USER`, `_PASSWORD`, `_TOKEN`,
        `_CA`, `_CERT`, `_KEY`; the secret ones (`NKEY`, `PASSWORD`, `TOKEN`) also as files, e.g.
        `NATSGATE_NATS_TOKEN_FILE`. Everything else keeps its default.
        """
        env = os.environ if environ is None else environ
        return cls(
            servers=env.get("NATSGATE_NATS_URL") or cls.servers,
            creds=env.get("NATSGATE_NATS_CREDS") or None,
            nkey_seed=_secret(env, "NATSGATE_NATS_NKEY"),
            user=env.get("NATSGATE_NATS_USER") or None,
            password=_secret(env, "NATSGATE_NATS_PASSWORD"),
            token=_secret(env, "NATSGATE_NATS_TOKEN"),
            tls_ca=env.get("NATSGATE_NATS_CA") or None,
            tls_cert=env.get("NATSGATE_NATS_CERT") or None,
            tls_key=env.get("NATSGATE_NATS_KEY") or None,
        )


def without_login(url: str) -> str:
    """The URL as it may be shown: user, password or token in it left out."""
    before, mark, rest = url.partition("://")
    return f"{before}://{rest.rpartition('@')[2]}" if mark else url.rpartition("@")[2]


def _server_problem(url: str) -> str:
    """What is wrong with a server's URL, empty: nothing. It says nothing of the URL itself: any part may be one of a
    password."""
    scheme, mark, _ = url.partition("://")
    if scheme in ("ws", "wss") and mark:
        return "NATS over WebSocket is not supported"
    if (mark and scheme not in ("nats", "tls")) or re.search(r"\s", url):
        return "it is no URL of a NATS server (several are separated by commas)"
    try:
        parts = urlsplit(url if mark else f"nats://{url}")
    except ValueError:  # a bracket without its other
        return _NO_HOST
    if parts.path not in ("", "/") or "?" in url or "#" in url:
        return "something stands behind its port (a login with / ? or # goes into 'user' and 'password')"
    if parts.hostname in (None, "none") or not _PLACE.fullmatch(parts.netloc.rpartition("@")[2]):
        return _NO_HOST
    try:
        return "its port is none from 1 to 65535" if parts.port == 0 else ""
    except ValueError:
        return "its port is none from 1 to 65535"


def _secret(env: Mapping[str, str], name: str) -> str | None:
    path = env.get(f"{name}_FILE")
    if not path:
        return env.get(name) or None
    if env.get(name):
        raise SettingsError(f"both {name} and {name}_FILE are set: unset one")
    try:
        secret = Path(path).read_text("utf-8").strip()
    except OSError as err:
        raise SettingsError(f"{name}_FILE: cannot read {path!r} ({err.strerror}); mend the path or its rights") from err
    except UnicodeDecodeError:
        raise SettingsError(f"{name}_FILE: the file {path!r} is not UTF-8; write the secret as text") from None
    if not secret:
        raise SettingsError(f"{name}_FILE: the file {path!r} is empty; put the secret into it, or unset {name}_FILE")
    return secret

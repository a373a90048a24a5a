"""Reloading: which settings SIGHUP takes over, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gateway.core.errors import ConfigError
from gateway.logs import Logger
from gateway.settings import Settings, adopt

KEPT = "everything stays as it was; mend it and reload"
LIVE = frozenset(
    {
        "allow_access_token",
        "allowed_origins",
        "auth_timeout_s",
        "drain_delay_s",
        "drain_s",
        "heartbeat_s",
        "jwt_audience",
        "jwt_issuer",
        "jwt_leeway_s",
        "jwt_public_key",
        "jwt_secret",
        "inbound_rate",
        "linger_s",
        "log_bytes",
        "log_level",
        "max_age_s",
        "max_connections",
        "max_connections_per_ip",
        "max_connections_per_sub",
        "max_event_bytes",
        "max_filters",
        "max_header_bytes",
        "max_subscriptions",
        "memory_limit_bytes",
        "replay_limit",
        "request_timeout_s",
        "route",
        "snapshot_limit",
        "ticket_secret",
        "ticket_ttl_s",
        "trusted_proxies",
        "warm_s",
        "ws_max_errors",
        "ws_max_message_bytes",
        "ws_ping_s",
        "ws_pong_timeout_s",
    }
)
"""The settings that can change while the gateway runs. The others hold what is open already: sockets, NATS, the log."""


class Changes(NamedTuple):
    """What a reload brings.

    Attributes:
        settings: those that hold from now on.
        live: the names of those that are other than before.
        restart: the names of those that would be, after a restart.
    """

    settings: Settings
    live: list[str]
    restart: list[str]


def changes(running: Settings, fresh: Settings) -> Changes:
    """What of these settings can be had without a restart.

    Args:
        running: those in force.
        fresh: as they are written now.

    Raises:
        ConfigError: what could be had does not go with what only a restart would change.
    """
    different = [name for name in Settings.model_fields if getattr(fresh, name) != getattr(running, name)]
    live = [name for name in different if name in LIVE]
    restart = [name for name in different if name not in LIVE]
    try:
        settings = adopt(running, {name: getattr(fresh, name) for name in live})
    except ConfigError as error:
        needed = ", ".join(name.upper() for name in restart)
        raise ConfigError(f"{error}; with {needed} as it is now that needs a restart") from None
    return Changes(settings, live, restart)


class Reload:
    """What SIGHUP does: nobody is dropped by it, and what is wrong changes nothing.

    Args:
        running: the settings in force.
        load: reads them anew from where they came from. Raises `ConfigError`.
        take: goes on by settings. Raises `ConfigError` when they cannot be had; then it has changed nothing.
        log: for what became of it.
    """

    def __init__(
        self,
        running: Callable[[], Settings],
        load: Callable[[], Settings],
        take: Callable[[Settings], None],
        log: Logger,
    ) -> None:
        self._running = running
        self._load = load
        self._take = take
        self._log = log

    def run(self) -> None:
        """Reload."""
        try:
            found = changes(self._running(), self._load())
            self._take(found.settings)
        except ConfigError as error:
            self._log.error("reload_failed", error=str(error), kept=KEPT)
            return
        except Exception as error:  # a fault of ours; whoever asked for it is to hear of it
            self._log.error("reload_failed", exc_info=error, mend="some of it may hold already: restart this replica")
            return
        self._log.info("reloaded", changed=found.live)
        if found.restart:
            self._log.warning("restart_needed", settings=found.restart)

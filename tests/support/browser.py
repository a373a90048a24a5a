"""Real browsers without a window: each with a profile of its own, and no way out of this machine.

Cookies of third parties are switched on. Browsers differ in whether they send them by themselves; with them, a gateway
has more to withstand.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

NOWHERE = "127.0.0.1:9"
"""The proxy for every host but this machine. Nobody listens there: what a browser wants to tell its maker ends here."""


class NotInstalled(Exception):
    """The browser is not on this machine. The text says how to get it."""


class Browser:
    """One browser process and its children, showing one page.

    Args:
        directory: profile, home and log go there; made if missing.

    Attributes:
        name: its Debian package.
        programs: what it is called on other systems too; the first one found is taken.
        variables: of its environment.
    """

    name: ClassVar[str]
    programs: ClassVar[tuple[str, ...]]
    variables: ClassVar[dict[str, str]] = {}

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def profile(self) -> Path:
        return self.directory / "profile"

    def arguments(self) -> list[str]:
        """The command line, without program and URL."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Write what the profile has to hold before the start."""

    @classmethod
    def program(cls) -> str:
        """Where it is.

        Raises:
            NotInstalled: nowhere on PATH.
        """
        found = next(filter(None, map(shutil.which, cls.programs)), None)
        if found is None:
            raise NotInstalled(f"{cls.name} is not installed. On Debian: apt-get install {cls.name}")
        return found

    def start(self, url: str) -> None:
        """Open the page. It is there when the page says so to whoever serves it."""
        assert self._process is None, "the browser is running already"
        program = self.program()
        self.profile.mkdir(parents=True)
        self.prepare()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DBUS_", "XDG_"))}
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [program, *self.arguments(), url],
                # Whatever it keeps beside its profile is thrown away with it.
                env=kept | {"HOME": str(self.directory)} | self.variables,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a group: its children end with it
            )

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def _log_file(self) -> Path:
        return self.directory / "browser.log"

    @property
    def log_text(self) -> str:
        """What it has printed so far."""
        return self._log_file.read_text(errors="replace")

    def stop(self) -> None:
        """End it and its children at once; nothing of the profile is wanted any more."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and its children with it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Chromium(Browser):
    """Chromium, and what is built from it: Chrome, Edge, Opera."""

    name = "chromium"
    programs = ("chromium", "chromium-browser", "google-chrome")

    def arguments(self) -> list[str]:
        as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
        return [
            *("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", *as_root),
            *("--no-first-run", "--no-default-browser-check", "--password-store=basic"),
            f"--user-data-dir={self.profile}",
            f"--proxy-server={NOWHERE}",
            *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-pings"),
            *("--disable-default-apps", "--disable-extensions", "--disable-domain-reliability"),
            *("--disable-breakpad", "--disable-client-side-phishing-detection", "--metrics-recording-only"),
            "--disable-component-extensions-with-background-pages",
            "--disable-features=MediaRouter,OptimizationHints,Translate",
        ]

    def prepare(self) -> None:
        (self.profile / "Default").mkdir()
        (self.profile / "Default" / "Preferences").write_text(_PREFERENCES)


class Firefox(Browser):
    """Firefox, in its release with extended support or any other."""

    name = "firefox-esr"
    programs = ("firefox-esr", "firefox")
    # The second one lets the server of its settings be set, which releases take from nobody else.
    variables: ClassVar[dict[str, str]] = {"MOZ_CRASHREPORTER_DISABLE": "1", "MOZ_REMOTE_SETTINGS_DEVTOOLS": "1"}

    def arguments(self) -> list[str]:
        return ["--headless", "--no-remote", "--profile", str(self.profile)]

    def prepare(self) -> None:
        (self.profile / "user.js").write_text(_USER_JS)


_PREFERENCES = '{"profile":{"cookie_controls_mode":0}}'
"""Chromium's. 0: no cookies are held back."""

_host, _port = NOWHERE.split(":")
_USER_JS = f"""
user_pref("network.proxy.type", 1);
user_pref("network.proxy.http", "{_host}");
user_pref("network.proxy.http_port", {_port});
user_pref("network.proxy.ssl", "{_host}");
user_pref("network.proxy.ssl_port", {_port});
user_pref("network.proxy.allow_bypass", false);
user_pref("network.proxy.failover_direct", false);
user_pref("network.trr.mode", 5);
user_pref("network.cookie.cookieBehavior", 0);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("network.prefetch-next", false);
user_pref("app.normandy.enabled", false);
user_pref("app.update.enabled", false);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("browser.newtabpage.enabled", false);
user_pref("browser.region.network.url", "");
user_pref("browser.safebrowsing.downloads.remote.enabled", false);
user_pref("browser.safebrowsing.malware.enabled", false);
user_pref("browser.safebrowsing.phishing.enabled", false);
user_pref("browser.search.update", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.homepage_override.mstone", "ignore");
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("dom.push.connection.enabled", false);
user_pref("extensions.getAddons.cache.enabled", false);
user_pref("extensions.systemAddon.update.enabled", false);
user_pref("extensions.update.enabled", false);
user_pref("media.gmp-manager.updateEnabled", false);
user_pref("messaging-system.rsexperimentloader.enabled", false);
user_pref("services.settings.server", "data:,#remote-settings-dummy/v1");
user_pref("toolkit.telemetry.enabled", false);
user_pref("toolkit.telemetry.server", "");
"""

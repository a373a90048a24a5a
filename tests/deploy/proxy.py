"""nginx and HAProxy with the very files of deploy/; only addresses, ports and the certificate's path are the test's."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from tests.deploy.files import DEPLOY, program, substituted
from tests.deploy.program import Program
from tests.support.lifetime import Running
from tests.support.ports import free_port

HOST = "localhost"
"""The name in the certificate."""


class Certificate:
    """What deploy/make-secrets.sh makes: a key and a certificate for localhost."""

    def __init__(self, directory: Path) -> None:
        subprocess.run(["sh", str(DEPLOY / "make-secrets.sh"), str(directory)], check=True, capture_output=True)
        self.directory = directory

    @property
    def authority(self) -> Path:
        """What to trust to trust it."""
        return self.directory / "tls.crt"


class Proxy(Running):
    """One reverse proxy before two replicas.

    Args:
        directory: for its files and its output; made if missing.
        certificate: what it shows to browsers.
        replicas: the ports of both.
        timeout_s: instead of the files' 60 s; None leaves them.

    Attributes:
        name: as a test calls it.
        port: HTTPS. plain_port: HTTP.
    """

    name = ""

    def __init__(
        self, directory: Path, certificate: Certificate, replicas: Sequence[int], *, timeout_s: int | None = None
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.plain_port = free_port()
        one, two = replicas
        self._process = Program(
            self._command(
                {"/etc/natsgate/": f"{certificate.directory}/"},
                {"gateway-1:8080": f"127.0.0.1:{one}", "gateway-2:8080": f"127.0.0.1:{two}"},
                {} if timeout_s is None else {"60s": f"{timeout_s}s"},
            ),
            directory,
            self.port,
        )

    def _command(
        self, certificate: Mapping[str, str], replicas: Mapping[str, str], timeouts: Mapping[str, str]
    ) -> list[str]:
        """Write the files; the command that reads them."""
        raise NotImplementedError

    @property
    def origin(self) -> str:
        """As a browser calls it."""
        return f"https://{HOST}:{self.port}"

    @property
    def output(self) -> str:
        """Its log."""
        return self._process.output

    def start(self) -> None:
        self._process.start()

    def stop(self) -> None:
        self._process.stop()


class Nginx(Proxy):
    name = "nginx"
    connections: ClassVar[Mapping[str, str]] = {}
    """Another number of connections than the file's."""

    def _command(
        self, certificate: Mapping[str, str], replicas: Mapping[str, str], timeouts: Mapping[str, str]
    ) -> list[str]:
        changes: dict[str, Mapping[str, str]] = {
            # What only one nginx of a machine can have.
            "nginx.conf": {"/tmp/": f"{self.directory}/", **self.connections},
            "natsgate/listen.conf": {"listen 443": f"listen 127.0.0.1:{self.port}", **certificate},
            "natsgate/redirect.conf": {"listen 80": f"listen 127.0.0.1:{self.plain_port}"},
            "natsgate/replicas.conf": replicas,
            "natsgate/http.conf": timeouts,
        }
        assert {f"{path.relative_to(DEPLOY / 'nginx')}" for path in DEPLOY.glob("nginx/**/*.conf")} == set(changes)
        for file, replacements in changes.items():
            path = self.directory / file
            path.parent.mkdir(exist_ok=True)
            path.write_text(substituted((DEPLOY / "nginx" / file).read_text("utf-8"), replacements), "utf-8")
        return [
            program("nginx", "apt-get install nginx"),
            *("-e", "stderr", "-c", str(self.directory / "nginx.conf"), "-g", "daemon off;"),
        ]


class Haproxy(Proxy):
    name = "haproxy"

    def _command(
        self, certificate: Mapping[str, str], replicas: Mapping[str, str], timeouts: Mapping[str, str]
    ) -> list[str]:
        listen = {"bind :443": f"bind 127.0.0.1:{self.port}", "bind :80": f"bind 127.0.0.1:{self.plain_port}"}
        text = (DEPLOY / "haproxy" / "haproxy.cfg").read_text("utf-8")
        file = self.directory / "haproxy.cfg"
        # HAProxy does not start where it may not open two descriptors for each: few machines of developers let it.
        few = {"maxconn 30000": "maxconn 1000"}
        file.write_text(substituted(text, {**listen, **certificate, **replicas, **timeouts, **few}), "utf-8")
        return [program("haproxy", "apt-get install haproxy"), "-f", str(file)]


PROXIES: Mapping[str, type[Proxy]] = {each.name: each for each in (Nginx, Haproxy)}

"""Debian's nginx in front of replicas, as plain as may be: it asks them in turn, and knows nothing of their health."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.eventually import wait_until
from tests.support.lifetime import Running
from tests.support.ports import free_port

_CONFIG = """\
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
    upstream replicas {{
{servers}
    }}
    server {{
        listen 127.0.0.1:{port} backlog=1024 sndbuf=64k;
        location / {{
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""


class Nginx(Running):
    """One nginx on a free port of 127.0.0.1.

    Args:
        directory: for its configuration and its log; made if missing.
        upstreams: the replicas' ports.
    """

    def __init__(self, directory: Path, upstreams: Sequence[int]) -> None:
        self.directory = directory
        self.port = free_port()
        self._upstreams = upstreams
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        binary = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        if binary is None:
            raise RuntimeError("nginx is missing: apt-get install nginx-light")
        self.directory.mkdir(parents=True, exist_ok=True)
        servers = "\n".join(f"        server 127.0.0.1:{port} max_fails=0;" for port in self._upstreams)
        config = self.directory / "nginx.conf"
        config.write_text(_CONFIG.format(directory=self.directory, servers=servers, port=self.port))
        log = str(self.directory / "nginx.log")
        self._process = subprocess.Popen([binary, "-p", str(self.directory), "-c", str(config), "-e", log])
        wait_until(self._accepts, f"nginx accepts connections; see {log}")

    def _accepts(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"nginx ended: {(self.directory / 'nginx.log').read_text()}")
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(timeout=10)

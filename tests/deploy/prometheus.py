"""Prometheus with the very files of deploy/prometheus; only targets, intervals and ports are the test's."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.deploy.files import DEPLOY, program, substituted
from tests.deploy.program import Program
from tests.support.eventually import wait_until
from tests.support.lifetime import Running
from tests.support.ports import free_port

FILES = DEPLOY / "prometheus"


class Prometheus(Running):
    """One Prometheus that scrapes every second.

    Args:
        directory: for its files, its store and its output; made if missing.
        targets: the ports of the replicas' metrics.
    """

    def __init__(self, directory: Path, targets: Sequence[int]) -> None:
        shutil.copytree(FILES, directory)
        changes = {
            "prometheus.yml": {
                "scrape_interval: 15s": "scrape_interval: 1s",
                "scrape_timeout: 5s": "scrape_timeout: 1s",
                "evaluation_interval: 15s": "evaluation_interval: 1s",
            },
            "targets.yml": {
                "[gateway-1:9090, gateway-2:9090]": str([f"127.0.0.1:{port}" for port in targets]),
            },
        }
        for name, replacements in changes.items():
            file = directory / name
            file.write_text(substituted(file.read_text("utf-8"), replacements), "utf-8")
        port = free_port()
        self._process = Program(
            [
                program("prometheus", "apt-get install prometheus"),
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'store'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            directory,
            port,
        )
        self._api = httpx.Client(base_url=f"http://127.0.0.1:{port}")

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an API call."""
        answer = self._api.get("/api/v1" + path, params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression comes to."""
        series: list[dict[str, Any]] = self.ask("/query", query=expression)["result"]
        return series

    def start(self) -> None:
        self._process.start()
        wait_until(lambda: self._api.get("/-/ready").status_code == 200, "Prometheus is ready")

    def stop(self) -> None:
        self._api.close()
        self._process.stop()

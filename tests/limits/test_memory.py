"""The memory limit: the setting, or the cgroup's, as both versions of cgroups say it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway import memory
from gateway.memory import Memory

MIB = 2**20


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def cgroup(folder: Path, **files: object) -> None:
    """A cgroup's folder; `_` in a name stands for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{text}\n")


def memory_of(root: Path, own: str, limit_bytes: int | None = None) -> Memory:
    (root.parent / "own").write_text(own)
    return Memory(limit_bytes, Clock(), root=root, own=root.parent / "own")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where cgroups are mounted."""
    (tmp_path / "cgroup").mkdir()
    return tmp_path / "cgroup"


def test_version_2_has_one_line(root: Path) -> None:
    """Its limit is `memory.max`, what counts against it `memory.current` without what the kernel would drop."""
    gigantic = 2**40
    cgroup(
        root / "pod/natsgate", memory_max=512 * MIB, memory_current=gigantic, memory_stat=f"anon 1\ninactive_file {MIB}"
    )
    found = memory_of(root, "0::/pod/natsgate\n")
    assert found.limit_bytes == 512 * MIB
    assert found.used_bytes == gigantic - MIB


def test_version_1_has_a_line_per_controller(root: Path) -> None:
    """The memory controller's is looked for; its files have other names."""
    cgroup(root / "cpu/x", memory_limit_in_bytes=1)
    folder = root / "memory/docker/abc"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(f"{256 * MIB}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{2**40}\n")
    (folder / "memory.stat").write_text(f"cache 5\ntotal_inactive_file {3 * MIB}\n")
    found = memory_of(root, "9:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n")
    assert found.limit_bytes == 256 * MIB
    assert found.used_bytes == 2**40 - 3 * MIB


def test_in_a_container_ours_is_the_root(root: Path) -> None:
    """Without a namespace of its own a container is named as outside, where it sees only itself."""
    cgroup(root, memory_max=64 * MIB, memory_current=MIB)
    assert memory_of(root, "0::/kubepods/pod1/abc\n").limit_bytes == 64 * MIB


def test_the_innermost_limit_counts(root: Path) -> None:
    """A unit within a limited slice has the slice's limit, and what the slice uses."""
    cgroup(root / "slice", memory_max=128 * MIB, memory_current=2**41)
    cgroup(root / "slice/unit", memory_max="max", memory_current=1)
    found = memory_of(root, "0::/slice/unit\n")
    assert (found.limit_bytes, found.used_bytes) == (128 * MIB, 2**41)


@pytest.mark.parametrize("own", ["0::/x\n", "4:memory:/x\n", "", "7:cpu:/x\n"])
def test_without_a_limit_there_is_none(root: Path, own: str) -> None:
    """`max`, what version 1 says instead of it, and no cgroup at all: memory is never full."""
    cgroup(root / "x", memory_max="max", memory_current=2**41)
    (root / "memory/x").mkdir(parents=True)
    (root / "memory/x/memory.limit_in_bytes").write_text("9223372036854771712\n")
    found = memory_of(root, own)
    assert found.limit_bytes == 0
    assert not found.full
    assert 5 * MIB < found.used_bytes < 2**40, "the process's own"


def test_no_cgroups_at_all(tmp_path: Path) -> None:
    """Where the system has none there is no limit, and what the process itself uses is known all the same."""
    found = Memory(None, Clock(), root=tmp_path / "none", own=tmp_path / "nothing")
    assert found.limit_bytes == 0
    assert found.used_bytes > 5 * MIB


def test_the_setting_wins(root: Path) -> None:
    """A limit that is set, 0 too, is the one in force; a reload may change it, and have the cgroup's again."""
    cgroup(root, memory_max=64 * MIB, memory_current=2**41)
    found = memory_of(root, "0::/\n", 2**50)
    assert found.limit_bytes == 2**50
    assert not found.full
    assert found.used_bytes < 2**40, "the process's own: only that is what the setting is about"
    found.set_limit(0)
    assert not found.full
    found.set_limit(None)
    assert found.limit_bytes == 64 * MIB
    assert found.full


def test_a_reading_is_kept_for_a_moment(root: Path) -> None:
    """A herd does not read the same file thousands of times."""
    cgroup(root, memory_max=2**42, memory_current=2**41)
    clock = Clock()
    (root.parent / "own").write_text("0::/\n")
    found = Memory(None, clock, root=root, own=root.parent / "own")
    assert not found.full
    cgroup(root, memory_current=2**42)
    assert not found.full
    clock.s += memory.LOOK_S
    assert found.full


def test_above_the_watermark_what_is_free_is_given_back() -> None:
    """Memory that the process holds without using it does not keep clients out."""
    clock = Clock()
    small = [bytes(1000) for _ in range(200_000)]
    kept = small[::500]  # pieces between free ones: nothing at the heap's end goes by itself
    found = Memory(0, clock)
    del small
    held = found.used_bytes
    found.set_limit(int((held - 50 * MIB) / memory.WATERMARK))
    assert not found.full
    assert found.used_bytes < held - 50 * MIB
    assert len(kept) == 400


def test_it_is_not_given_back_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collecting garbage holds up the loop: above the watermark at most every few seconds."""
    times: list[float] = []
    clock = Clock()
    monkeypatch.setattr(memory, "_give_back", lambda: times.append(clock.s))
    found = Memory(os.sysconf("SC_PAGE_SIZE"), clock)
    while clock.s < 3 * memory.GIVE_BACK_S:
        assert found.full
        clock.s += 1.0
    assert times == [0.0, memory.GIVE_BACK_S, 2 * memory.GIVE_BACK_S]

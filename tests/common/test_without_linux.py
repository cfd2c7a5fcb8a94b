"""What only Linux has has a way round: each is taken away here. Nothing of this was run on a Mac."""

from __future__ import annotations

import ctypes
import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import p2p_dist
from p2p_dist.checks.drill import here
from p2p_dist.common import linux
from p2p_dist.data import samples, staging
from p2p_dist.jobs import estimate
from p2p_dist.run import lock


@pytest.fixture
def without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "PROC", Path("/nowhere"))
    monkeypatch.setattr(lock, "MOUNTS", Path("/nowhere"))


def test_reading_in_place_without_preadv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(range(100)))

    def read(offset: int) -> tuple[int, bytearray, bytearray]:
        one, two = bytearray(7), bytearray(5)
        with path.open("rb") as file:
            return linux.read_at(file.fileno(), [memoryview(one), memoryview(two)], offset), one, two

    offsets = (3, 88, 91, 95, 100)  # the last three end within the second, within the first, before both
    with_it = [read(offset) for offset in offsets]
    assert [got for got, *_ in with_it] == [12, 12, 9, 5, 0] and with_it[0][2] == bytes(range(10, 15))
    monkeypatch.delattr(os, "preadv")
    assert [read(offset) for offset in offsets] == with_it


def test_forgetting_a_file_without_posix_fadvise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "posix_fadvise")
    with (tmp_path / "a").open("wb") as file:
        linux.forget(file.fileno())


def test_cores_without_affinity_are_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert linux.usable_cores() == 12


def test_a_child_without_prctl_ends_soon_after_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    linux.keep_memory()
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        mine = os.getpid()
        if os.fork() == 0:
            linux.die_with_parent(parent=mine)
            os.write(write, b"x")
            time.sleep(60)
        time.sleep(60)
    os.close(write)
    assert os.read(read, 1) == b"x"
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    begin = time.monotonic()
    assert os.read(read, 1) == b"" and time.monotonic() - begin < 20, "it has ended, since nobody can write any more"
    os.close(read)


def test_memory_and_processors_without_proc(without_proc: None) -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert linux.free_memory() == total and 0 < estimate.free_memory() <= total and linux.cpuinfo() == ""


def test_a_folder_has_one_owner_without_proc(without_proc: None, tmp_path: Path) -> None:
    owner = lock.Owner(tmp_path, "it is used", "look there")
    with pytest.raises(ValueError, match=f"it is used already: process {os.getpid()} on .*; look there"):
        lock.Owner(tmp_path, "it is used", "look there")
    owner.close()
    assert lock.owner_of(tmp_path) is None


@pytest.mark.skipif(shutil.which("pgrep") is None, reason="pgrep, which every Mac has")
def test_the_drill_finds_the_ranks_without_proc(without_proc: None) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            assert child.pid in here._children(os.getpid())
        finally:
            child.kill()


def test_without_memory_as_a_file_system_the_index_is_read_and_staging_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(samples, "MEMORY", tmp_path / "none" / "shm")
    with pytest.raises(OSError):
        samples.private_memory()  # and `read` reads it from its file, see test_samples.py
    monkeypatch.setattr(staging, "MEMORY", tmp_path / "none")
    monkeypatch.setattr(staging.manifest, "read", lambda _: {"splits": {"train": {"shards": [], "audio": []}}})
    with pytest.raises(OSError, match=r"no folder in memory: use --data\.stage disk, device or none"):
        staging.copy_to_node(tmp_path, "train", staging.MEMORY)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["lo", "lo0"])
def test_the_interface_to_itself(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "en0"), (2, name)])
    assert linux.loopback() == name


@pytest.mark.parametrize(("system", "wanted"), [("darwin", "1"), ("linux", None)])
def test_on_a_mac_what_the_gpu_lacks_is_computed_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, system: str, wanted: str | None
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    importlib.reload(p2p_dist)
    assert os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK") == wanted

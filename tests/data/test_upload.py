"""A finished dataset sent to a server on the loopback, to commands and to a folder."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from p2p_dist.data import manifest as manifests
from p2p_dist.data import remote
from p2p_dist.data.upload import send, upload
from p2p_dist.data.verify import verify_dataset
from tests.data.server import Server

BYTES = np.random.default_rng(0).bytes(700_001)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server with an empty folder."""
    (tmp_path / "there").mkdir()
    with Server(tmp_path / "there") as server:
        yield server


@pytest.mark.parametrize("way", ["http", "pipe", "folder", "home", "file", "file of localhost"])
def test_a_file_is_sent(way: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b").write_bytes(BYTES)
    there = str(server.folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    folders = {"folder": there, "home": "~/there", "file": f"file://{there}", "file of localhost": f"file://localhost{there}"}
    address = {"http": server.url, "pipe": f"pipe:cat >{there}/{{name}}", **folders}[way]
    with (tmp_path / "b").open("rb") as source:
        send(address, "b.tar", source, len(BYTES))
    assert (server.folder / "b.tar").read_bytes() == BYTES


def test_a_file_that_is_not_taken_is_an_error(server: Server, tmp_path: Path) -> None:
    server.faults["b.tar"] = ["507"]
    (tmp_path / "b").write_bytes(BYTES)
    for address, said in (
        (server.url, "507"),
        ("pipe:exit 7 # {name}", "7"),
        ("pipe:head -c 9 >/dev/null; exit 1 # {name}", "1"),
    ):
        with (tmp_path / "b").open("rb") as source, pytest.raises(OSError, match=said) as error:
            send(address, "b.tar", source, len(BYTES))
        assert "b.tar" in error.value.filename


def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TIMEOUT", 0.2)
    (tmp_path / "b").write_bytes(b"content")
    with socket.create_server(("127.0.0.1", 0)) as silent, (tmp_path / "b").open("rb") as source:
        hung_up = threading.Timer(3, silent.close)
        hung_up.start()
        with pytest.raises(OSError, match=r"no answer for 0\.2 seconds"):
            send(f"http://127.0.0.1:{silent.getsockname()[1]}", "b.tar", source, 7)
        hung_up.cancel()


def test_a_command_is_ended_where_the_file_can_not_be_read() -> None:
    begun = time.monotonic()
    with Path("/proc/self/mem").open("rb") as source, pytest.raises(OSError, match="Input/output error"):
        send("pipe:sleep 3 # {name}", "b.tar", source, 9)
    assert time.monotonic() - begun < 2


def test_a_command_that_takes_long_to_end_is_waited_for_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(remote, "TIMEOUT", 0.2)
    (tmp_path / "b").write_bytes(BYTES)
    with (tmp_path / "b").open("rb") as source:
        send(f"pipe:cat >{tmp_path}/{{name}}; sleep 0.7", "b.tar", source, len(BYTES))
    assert (tmp_path / "b.tar").read_bytes() == BYTES
    told = capsys.readouterr().out.splitlines()
    assert 1 <= len(told) <= 4 and {*told} == {"note: all of b.tar was passed to the command; waiting for the command to end"}


@pytest.mark.parametrize("way", ["http", "pipe", "folder"])
def test_a_dataset_is_uploaded_with_its_manifest_last(way: str, dataset: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    (there / "audio").mkdir(parents=True)
    with Server(there) as server:
        address = {"http": server.url, "pipe": f"pipe:cat >{there}/{{name}}", "folder": str(there)}[way]
        sent: list[str] = []
        upload(dataset, address, lambda _, __, name: sent.append(name))
    content = manifests.read(there)
    assert len(sent) == len(set(sent)), "the index of a split belongs to its pairs and to its audio"
    assert sent[-1] == "manifest.json" and set(sent) == {
        *(path.relative_to(there).as_posix() for path in manifests.files_of(there, content)),
        "DATASET.md",
        "README.md",
        "manifest.json",
    }
    assert content == manifests.read(dataset) and verify_dataset(there) == verify_dataset(dataset)


def test_what_is_damaged_or_not_taken_is_not_published(copy: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    (there / "audio").mkdir(parents=True)
    with pytest.raises(OSError, match="the command ended with 9"):
        upload(copy, f"pipe:test {{name}} != DATASET.md || exit 9; cat >{there}/{{name}}")
    assert list(there.glob("*.tar")) and not (there / "manifest.json").exists()
    harmed = sorted(copy.glob("*.tar"))[-1]
    harmed.write_bytes(harmed.read_bytes()[:-1] + b"?")
    shutil.rmtree(there)
    with pytest.raises(ValueError, match=f"{harmed.name} is missing or differs from its manifest"):
        upload(copy, str(there))
    assert not there.exists()
    (copy / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="preprocessing has not finished"):
        upload(copy, str(there))


def test_a_dataset_without_its_cards_is_one(copy: Path, tmp_path: Path) -> None:
    for name in ("DATASET.md", "README.md"):
        (copy / name).unlink(missing_ok=True)
    upload(copy, str(tmp_path / "there"))
    assert manifests.read(tmp_path / "there") == manifests.read(copy)

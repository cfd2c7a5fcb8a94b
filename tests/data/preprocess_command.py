"""Songs, and the preprocess command over them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from p2p_dist.cli import preprocess
from p2p_dist.common import console
from tests.data.conftest import write_song
from tests.once import once

LAUNCH = Path(__file__).parents[2] / "launch" / "preprocess.py"
TINY = ["--preset", "tiny", "--data.shard-size", "0.25"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(LAUNCH), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight short songs."""
    return once("many songs", lambda: _many(tmp_path_factory))


def _many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("many")
    for number in range(8):
        write_song(root / ("test" if number > 5 else "train") / f"Song {number}", seconds=2 + number % 3, seed=number)
    return root


@pytest.fixture(scope="module")
def undisturbed(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their shards."""
    return once("undisturbed shards", lambda: _undisturbed(many, tmp_path_factory))


def _undisturbed(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert preprocess.main([*TINY, "--data", str(many), "--out", str(out), "--workers", "1"]) == console.DONE
    return out


def damaged(out: Path, where: int, number: int = 1) -> Path:
    shard = sorted(out.glob("train-*.tar"))[number]
    content = bytearray(shard.read_bytes())
    content[where] ^= 1
    shard.write_bytes(content)
    return shard

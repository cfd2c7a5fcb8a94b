"""A run of two checkpoints that are evaluated, and its songs."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from p2p_dist.common import files
from p2p_dist.data import shards
from p2p_dist.evaluate import checkpoints
from p2p_dist.model.generator import Generator
from p2p_dist.run import rundir
from p2p_dist.settings import presets
from p2p_dist.settings.config import Config
from tests.conftest import write_songs
from tests.evaluate import on_ranks
from tests.once import once

SONGS = {"train/one": 4.6, "train/two": 5.0, "train/four": 4.2, "test/five": 4.0, "test/six": 4.4}
"""By the hash of its title, `four` is a validation song."""


def add_checkpoint(run: rundir.RunDir, step: int, settings: Config) -> None:
    """A generator that was never trained: another for every step."""
    torch.manual_seed(step)
    folder = run.checkpoints / rundir.step_name(step)
    folder.mkdir(parents=True)
    path = folder / "generator.safetensors"
    safetensors.torch.save_file(Generator(settings.model).state_dict(), path)
    record = {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)}
    files.write_json(folder / "meta.json", {"step": step, "settings": "", "files": {path.name: record}})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    """A folder with runs/run of two checkpoints that are evaluated, and the songs."""
    return once("evaluated place", lambda: _made(tmp_path_factory))


def _made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    place = tmp_path_factory.mktemp("place")
    write_songs(place / "songs", SONGS)
    settings = presets.PRESETS["tiny"]
    settings = dataclasses.replace(settings, evaluate=dataclasses.replace(settings.evaluate, seeds=2, seconds=3.9))
    assert shards.preprocess(place / "songs", place / "shards" / "tiny", settings.data, 1) == []
    run = rundir.RunDir(place / "runs" / "run")
    files.write_json(run.dataset, {"name": "tiny"})
    files.write_text(run.config, presets.to_yaml(settings))
    for step in (5, 10):
        add_checkpoint(run, step, settings)
    with pytest.MonkeyPatch.context() as patch:
        on_ranks.draw_nothing(patch.setattr)
        assert checkpoints.evaluate(run, settings) == 2
    return place, settings


@pytest.fixture
def copied(place: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[rundir.RunDir, Config]:
    """A copy of it. Nothing is drawn: that takes longer than to measure."""
    on_ranks.draw_nothing(monkeypatch.setattr)
    shutil.copytree(place[0], tmp_path / "place")
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "place" / "runs"))
    return rundir.RunDir(tmp_path / "place" / "runs" / "run"), place[1]

"""The measures over epochs, for TensorBoard."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from p2p_dist.evaluate.report import page
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings.config import Config
from tests.evaluate.finished_run import HOSTILE, make
from tests.evaluate.read_page import Page


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Config]:
    folder = tmp_path_factory.mktemp("machine-name") / "runs" / "drums-demo"
    songs = {"dawn": HOSTILE, "falcon-69": "Falcon 69"}
    run, settings = make(folder, songs, seconds=1.0, root="/home/someone/songs/falcon69")
    page.write(run, settings)
    return run, settings


@pytest.fixture
def shown(finished: tuple[RunDir, Config]) -> Page:
    return Page(finished[0].page.read_text(encoding="utf-8"))


def test_tensorboard_shows_the_measures_with_the_baselines_as_lines(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {"a": "A"}, (5, 10), seconds=0.5)
    page.write(run, settings)
    assert not (run.path / "tensorboard").exists()
    settings = dataclasses.replace(settings, train=dataclasses.replace(settings.train, tensorboard=True))
    for _ in range(2):  # a second page writes no point twice
        page.write(run, settings)
    shown = {}
    for folder in (run.path / "tensorboard" / "evaluation").iterdir():
        found = EventAccumulator(str(folder))
        found.Reload()
        shown[folder.name] = [(event.step, round(event.value, 2)) for event in found.Scalars("evaluation/lock8")]
    assert shown == {
        "generated": [(5, 0.15), (10, 0.6)],
        "copy-the-input": [(5, 0.31), (10, 0.31)],
        "silence": [(5, 0.0), (10, 0.0)],
        "ceiling": [(5, 0.98), (10, 0.98)],
    }

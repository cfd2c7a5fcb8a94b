"""A finished run and its page."""

from __future__ import annotations

import pytest

from p2p_dist.evaluate.report import page
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings.config import Config
from tests.evaluate.finished_run import HOSTILE, make
from tests.evaluate.read_page import Page


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Config]:
    """A run of three checkpoints and two songs that has its page; to be read only."""
    folder = tmp_path_factory.mktemp("machine-name") / "runs" / "drums-demo"
    songs = {"dawn": HOSTILE, "falcon-69": "Falcon 69"}
    run, settings = make(folder, songs, seconds=1.0, root="/home/someone/songs/falcon69")
    page.write(run, settings)
    return run, settings


@pytest.fixture
def shown(finished: tuple[RunDir, Config]) -> Page:
    """The page of it."""
    return Page(finished[0].page.read_text(encoding="utf-8"))

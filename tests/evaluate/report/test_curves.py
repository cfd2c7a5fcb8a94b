"""The measures over epochs, for TensorBoard."""

from __future__ import annotations

import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from p2p_dist.evaluate.report import page
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings.config import Config
from tests.evaluate.finished_run import HOSTILE, make


class Page(HTMLParser):
    """What a page says and what it asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.titles: list[str] = []
        self.words = ""
        self.scripts: list[str] = []
        self.open = ""
        self.feed(text)
        self.made: dict[str, Any] = json.loads(self.scripts[2])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open = tag
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data", "poster", "srcset")]
        if tag == "script":
            self.scripts.append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.titles += [value or "" for name, value in attrs if name == "title"]

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open == "script":
            self.scripts[-1] += data
        elif self.open != "style":
            self.words += data
        if self.open in ("td", "th"):
            self.rows[-1][-1] += data.strip()


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

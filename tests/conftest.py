"""What tests share: ranks in processes of their own, a small data set, a run directory to train in."""

from __future__ import annotations

import dataclasses
import functools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import soundfile

from p2p_dist.common import files
from p2p_dist.data import shards
from p2p_dist.jobs import child
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import config, presets
from tests import collector, forked_stages
from tests.rank_processes import run_on_ranks

# An example that takes long on a busy machine is no failure.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

# A shell's background jobs ignore Ctrl-C and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """The files of tests are imported, and with them nearly all that will be."""
    collector.resume()


STEMS = {"drums": 0.3, "bass": 0.2, "other": 0.1, "vocals": 0.1}
"""Stems of the synthetic songs and their loudness."""


@pytest.fixture
def ranks() -> Callable[..., list[Any]]:
    """`ranks(world_size, function, *arguments, seconds=60)`: see tests/rank_processes.py."""
    return run_on_ranks


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Commands that run in this process handle requests to stop; the next test's processes would inherit that."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def stages_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages on this machine start without imports: see tests/forked_stages.py."""
    monkeypatch.setattr(child, "start", forked_stages.start)


def write_songs(root: Path, seconds: dict[str, float], rate: int = 22050) -> None:
    """Synthetic songs laid out like MUSDB18-HQ; `seconds` by name as `train/title`."""
    for number, (name, length) in enumerate(seconds.items()):
        random = np.random.default_rng(number)
        time = np.arange(round(length * rate)) / rate
        beat = np.exp(-20 * (time % 0.25))
        for stem, loudness in STEMS.items():
            if stem == "drums":
                sound = beat * random.standard_normal(len(time))
            else:
                sound = np.sin(2 * np.pi * (110 * (number + 2)) * time) + 0.1 * random.standard_normal(len(time))
            path = root / name / f"{stem}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, loudness * np.column_stack([sound, sound]).astype(np.float32), rate, subtype="FLOAT")


@pytest.fixture(scope="session")
def tiny_songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four short training songs and one to test on."""
    root = tmp_path_factory.mktemp("songs")
    write_songs(root, {"train/one": 1.6, "train/two": 2.6, "train/three": 1.9, "train/four": 2.2, "test/five": 1.5})
    return root


@pytest.fixture(scope="session")
def tiny_shards(tiny_songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of `tiny_songs` under the preset `tiny`: a number of training windows that no batch divides."""
    out = tmp_path_factory.mktemp("shards") / "tiny"
    assert shards.preprocess(tiny_songs, out, presets.PRESETS["tiny"].data, workers=1) == []
    return out


def lay_out_run(place: Path, tiny_shards: Path, name: str = "run", **changed: dict[str, Any]) -> tuple[RunDir, config.Config]:
    """A run directory in `place` over `tiny_shards` as the launcher lays it out; `changed`: train={...}, model={...}."""
    base = presets.PRESETS["tiny"]
    parts = {part: dataclasses.replace(getattr(base, part), **values) for part, values in changed.items()}
    settings = dataclasses.replace(base, **parts)
    run = RunDir(place / "runs" / name)
    files.write_json(run.dataset, {"name": "tiny"})
    files.write_text(run.config, presets.to_yaml(settings))
    link = place / "shards" / "tiny"
    link.parent.mkdir(exist_ok=True)
    if not link.exists():  # a test may have put other shards there
        link.symlink_to(tiny_shards)
    return run, settings


@pytest.fixture
def new_run(tiny_shards: Path, tmp_path: Path) -> Callable[..., tuple[RunDir, config.Config]]:
    """`new_run(name, train={...}, model={...})`: see `lay_out_run`."""
    return functools.partial(lay_out_run, tmp_path, tiny_shards)

"""The table of quality: trained for real on tiny songs, made again only where something is missing, with right figures."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import quality
import quality_cell
from quality_cell import System

from p2p_dist.evaluate.measures import averages
from p2p_dist.evaluate.measures.measure import Measured
from p2p_dist.evaluate.measures.table import MEASURES
from p2p_dist.run.rundir import RunDir


def test_a_cell_is_trained_within_its_time_measured_and_not_made_again(
    tiny_songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two systems of one training. The time is over before it begins, so it is stopped at its first checkpoint."""
    endless = ("--preset", "tiny", "--workers", "1", "--train.checkpoint-every", "1")
    systems = System("tiny", endless), System("tiny, other phases", endless, {"evaluate.iterations": 1})
    monkeypatch.setattr(quality, "SYSTEMS", systems)
    trained: list[Any] = []
    train = quality_cell.train
    monkeypatch.setattr(quality_cell, "train", lambda *given: trained.append(given) or train(*given))  # type: ignore[func-returns-value]
    words = ["--data", str(tiny_songs), "--songs", "five", "--minutes", "0.001", "--seeds", "1", "--out", str(tmp_path)]
    with monkeypatch.context() as broken:
        broken.delattr(quality.Maker, "measure")
        assert quality.main(words) == 1
    assert "has no attribute 'measure'" in capsys.readouterr().err and len(trained) == 1
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a job of the background
    try:
        assert quality.main(words) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert not [*(tmp_path / "runs").iterdir()], "they are large"
    shown = capsys.readouterr().out
    cells = {path: json.loads(path.read_text()) for path in (tmp_path / "cells").iterdir()}
    assert len(trained) == 1 and len(cells) == 2
    assert {cell["system"] for cell in cells.values()} == {system.name for system in systems}
    for cell in cells.values():
        assert [*cell["songs"]] == ["five"] and 1 <= cell["step"] < 1000 and cell["fold"] == "without-five"
    rows = [cell["songs"]["five"]["output"]["row"]["flux_ratio"] for cell in cells.values()]
    assert rows[0] != rows[1]
    for name in ("copy the input", "silence", "ceiling", "**tiny**", "**tiny, other phases**"):
        assert f"| {name} |" in shown
    assert "every training 0.001 min of 1 core" in shown

    assert "other code" not in shown
    path = next(iter(cells))
    path.write_text(json.dumps({**cells[path], "code": "earlier"}))
    assert quality.main([*words, "--json", str(tmp_path / "table.json")]) == 0
    assert json.loads((tmp_path / "table.json").read_text())[quality.LEFT_OUT]["tiny"]["lock8"] is not None
    assert "1 of 2 cells were made by other code" in capsys.readouterr().out
    assert quality.main(words) == 0 and capsys.readouterr().err == "", "nothing was missing"


def test_with_steps_trainings_at_once_share_the_stage_pattern(
    tiny_songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--preset", "tiny", "--model.sketch", "--train.pattern-steps", "1", "--workers", "1")
    systems = (
        System("one", flags),
        System("strokes", flags, strokes=True),
        System("other", (*flags, "--train.flux-weight", "1")),
    )
    monkeypatch.setattr(quality, "SYSTEMS", systems)
    monkeypatch.setattr(quality.linux, "usable_cores", lambda: 1)  # of the processes that measure each imports torch
    found: list[set[str]] = []
    train = quality_cell.train

    def noted(run: RunDir, *given: Any) -> float:
        found.append({path.name for path in run.pattern.glob("networks/*")})
        return train(run, *given)

    monkeypatch.setattr(quality_cell, "train", noted)
    words = ["--data", str(tiny_songs), "--songs", "five", "--steps", "2", "--jobs", "2", "--seeds", "1"]
    assert quality.main([*words, "--out", str(tmp_path)]) == 0
    made = {path.name for path in tmp_path.glob("patterns/networks/*")}
    assert found == [set(), made] and len(made) == 1
    cells = [json.loads(path.read_text()) for path in (tmp_path / "cells").iterdir()]
    assert {cell["system"]: cell["step"] for cell in cells} == {"one": 2, "strokes": 2, "other": 2}
    density = {cell["system"]: cell["songs"]["five"]["output"]["row"]["density_ratio"] for cell in cells}
    assert density["strokes"] < 1 < density["one"], "after two steps the generator paints noise, and strokes are few"
    shown = capsys.readouterr().out
    assert f"every training 2 steps of its preset's batch; {cells[0]['machine']}.\n" in shown
    assert "| **one** | 1 x 1 |" in shown and "| **other** | 1 x 1 |" in shown


def test_kits_are_named_to_the_systems_that_have_a_sketch(tmp_path: Path) -> None:
    drums = quality.Arguments(data=tmp_path, kits="E*").systems_known
    with_kits = {name for name, system in drums.items() if system.flags[-2:] == ("--train.kits", "E*")}
    assert with_kits == {name for name in drums if "sketch" in name or name == "default"} and len(with_kits) > 3
    assert drums.keys() - with_kits == {"plain, small", "plain", "thesis"}
    assert not any("--train.kits" in system.flags for system in quality.Arguments(data=tmp_path).systems_known.values())
    assert quality.Arguments(data=tmp_path, task="bass").systems_known.keys() == drums.keys() - with_kits


def test_a_request_to_stop_ends_all_trainings_at_once(
    tiny_songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train, calls, how = quality_cell.train, itertools.count(), list[type[BaseException]]()

    def with_request(*given: Any) -> float:
        if next(calls) == 1:  # both have begun, so no thread is being started when the request comes
            os.kill(os.getpid(), signal.SIGTERM)
        try:
            return train(*given)
        except BaseException as error:
            how.append(type(error))
            raise

    monkeypatch.setattr(quality, "SYSTEMS", (System("tiny", ("--preset", "tiny")),))
    monkeypatch.setattr(quality_cell, "train", with_request)
    before = signal.getsignal(signal.SIGTERM)
    assert quality.main(["--data", str(tiny_songs), "--jobs", "2", "--out", str(tmp_path)]) == 75
    for thread in threading.enumerate():  # the executor does not know one that was just starting, and does not wait for it
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join(60)
    assert how == [quality_cell.Stopped] * 2
    shown = capsys.readouterr()
    assert "stopped; the same command goes on" in shown.err
    assert "no cell is finished" in shown.err and not shown.out
    assert signal.getsignal(signal.SIGTERM) == before
    assert not [*(tmp_path / "runs").glob("*/checkpoints/*")], "they had hardly begun"


def test_every_song_is_left_out_once_and_held_out_songs_are_never_trained_on(tiny_songs: Path, tmp_path: Path) -> None:
    asked = quality.Arguments(tiny_songs, more=tiny_songs, held_out=tiny_songs, out=tmp_path)
    *left_out, held_out = quality.folds(asked)
    assert [[song.name for song in fold.test] for fold in left_out] == [[n] for n in ("four", "one", "three", "two", "five")]
    for fold in left_out:
        assert not {song.name for song in fold.test} & {song.name for song in fold.train} and len(fold.train) >= 4
    assert [song.name for song in held_out.test] == ["five"] and len(held_out.train) == 4
    root = left_out[0].lay_out(tmp_path)
    assert {path.name for path in (root / "test").iterdir()} == {"four"} and (root / "test" / "four" / "drums.wav").is_file()
    there = (root / "test" / "four").lstat().st_ctime_ns
    (left_out[0].lay_out(tmp_path) / "train" / "six").symlink_to(root)
    assert (root / "test" / "four").lstat().st_ctime_ns == there, "others read it"
    left_out[0].lay_out(tmp_path)
    assert not (root / "train" / "six").is_symlink()

    def named(**changed: Any) -> Path:
        return quality.cell_path(dataclasses.replace(asked, **changed), quality.SYSTEMS[0], held_out, 0)

    assert named(jobs=4) == named() != named(minutes=4.0)
    assert named(steps=4) == named(steps=4, minutes=4.0, cores=2) != named(steps=5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--systems", "tinny"], "no system 'tinny'"),
        (["--systems", "sketch", "--task", "bass"], "no system 'sketch' for bass: there are plain, small,"),
        (["--songs", "six"], "has no song 'six'"),
        (["--cores", "4000"], "--cores 4000: this process may use"),
        (["--steps", "0"], "--steps 0: must be at least 1"),
        (["--jobs", "0"], "--jobs 0: must be at least 1"),
    ],
)
def test_a_mistake_costs_no_training(words: list[str], said: str, tiny_songs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        quality.main(["--data", str(tiny_songs), "--out", str(tmp_path), *words])
    assert not [*tmp_path.iterdir()]


def cell(system: str, fold: str, seed: int, level: float, random: np.random.Generator) -> dict[str, Any]:
    """A finished cell of one song of 120 windows, of which only level and descriptors are known."""
    described = random.standard_normal((120, 41))
    row = dict.fromkeys(MEASURES) | {"level_error": level}
    one = quality_cell.plain(Measured(row, {}, [], list(described)))
    silent = quality_cell.plain(Measured(dict.fromkeys(MEASURES), {}, [], [None] * 120))
    song = {"real": described.tolist(), "output": one, "baselines": {"silence": silent, "copy the input": one}}
    return {"system": system, "fold": fold, "seed": seed, "step": 10 * (seed + 1), "seconds": 90.0, "songs": {fold: song}}


def test_the_time_of_a_process_is_that_of_its_descendants_too() -> None:
    """A shell starts a child that computes for .4 s, waits for it, and starts another, which goes on."""
    busy = "import time; t = time.process_time() + .4\nwhile time.process_time() < t: pass"
    python = f"{shlex.quote(sys.executable)} -S -c '{busy}'"
    process = subprocess.Popen(["sh", "-c", f"{python}; {python}; sleep 60"])
    try:
        before = time.monotonic()
        while (used := quality_cell.processor_seconds(process.pid)) < 0.75 and time.monotonic() < before + 60:
            time.sleep(0.05)
        assert 0.75 <= used < 2
        assert process.poll() is None and quality_cell.processor_seconds(os.getpid()) > used
    finally:
        process.kill()
        process.wait()


def test_figures_are_of_all_songs_together_and_spread_over_the_seeds() -> None:
    """Medians of two songs: 2 and 4 of seed 0, 6 and 8 of seed 1; seed 2 has one song and is not shown."""
    random = np.random.default_rng(0)
    levels = {("a", 0): 2.0, ("b", 0): 4.0, ("a", 1): 6.0, ("b", 1): 8.0, ("a", 2): 100.0}
    cells = [cell("x", fold, seed, level, random) for (fold, seed), level in levels.items()]
    lines, figures = quality.table({"x": cells}, ["level_error", "mmd"])
    assert figures["x"]["level_error"] == [3.0, 7.0]
    assert lines[-3].startswith("| **x** | 2 x 2, 1 not finished | 1.5 | 10 to 30 | 5.00 ± 2.83 | ")
    assert lines[0] == "|  | folds x seeds | minutes | steps | level dB | distance |"
    first = [one for one in cells if one["seed"] == 0]
    songs = [song for one in first for song in one["songs"].values()]
    made = [[quality_cell.restored(song["output"])] for song in songs]
    expected = averages.average(made, [np.array(song["real"]) for song in songs]).mean["mmd"]
    assert figures["x"]["mmd"][0] == pytest.approx(expected)
    assert "compares 240 windows" in lines[-1] and "≈" not in "".join(lines), "of two songs there are enough"
    assert [line.split(" | ")[:3] for line in lines[2:4]] == [["| copy the input", "", ""], ["| silence", "", ""]]


def test_what_some_cells_lack_is_said() -> None:
    """System y failed in fold a, and x in b, where the baseline cannot be made."""
    random = np.random.default_rng(0)
    x, y = cell("x", "a", 0, 2.0, random), cell("y", "b", 0, 4.0, random)
    del y["songs"]["b"]["baselines"]["silence"]
    lines, figures = quality.table({"x": [x], "y": [y]}, ["level_error"])
    assert figures["x"]["level_error"] == figures["y"]["level_error"] == []
    assert [line.split(" | ")[:4] for line in lines[2:6]] == [
        ["| copy the input", "", "", "1 of 2 songs"],
        ["| silence", "", "", "1 of 2 songs"],
        ["| **x**", "2 x 0, 1 not finished", "1.5", "10"],
        ["| **y**", "2 x 0, 1 not finished", "1.5", "10"],
    ]

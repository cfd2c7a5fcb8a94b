"""One cell of tests/benchmarks/quality.py: a system trained under a budget, and its stems of unseen songs measured."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from p2p_dist.audio.invert import stem_for
from p2p_dist.audio.layouts import Source
from p2p_dist.common import console, files, linux, records
from p2p_dist.evaluate import held_out_songs
from p2p_dist.evaluate.baselines import baseline_stems, results
from p2p_dist.evaluate.measures.measure import Measured, measure
from p2p_dist.evaluate.measures.table import columns
from p2p_dist.evaluate.measures.truth import Truth
from p2p_dist.generate import drummer, inference
from p2p_dist.jobs import stages
from p2p_dist.run import checkpoints as saved
from p2p_dist.run import rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import presets
from p2p_dist.train import checkpoint

CHECKOUT = Path(__file__).resolve().parents[2]

ALL = 1_000_000
"""More songs, or steps, than there are."""

WHOLE = {"evaluate.seconds": 0.0, "evaluate.songs": ALL, "evaluate.seeds": 1}
"""Whole songs, all of them, one generation of each: further seeds are further trainings."""


@dataclass(frozen=True)
class System:
    """A row of the table. Systems with the same flags share their trainings.

    flags: of launch/submit.py. measured: values of settings with which its songs are made, such as `evaluate.iterations`.
    known_beats: its songs are made with the beats of the true drums. strokes: its stems are the strokes of its sketches, not
    what the generator paints from them. task: the only one that it is for.
    """

    name: str
    flags: tuple[str, ...]
    measured: dict[str, Any] = field(default_factory=dict)
    known_beats: bool = False
    strokes: bool = False
    task: str | None = None

    @property
    def sketches(self) -> bool:
        """Whether its model has a sketch."""
        return any("sketch" in flag or flag == "default" for flag in self.flags)


@dataclass(frozen=True)
class Fold:
    """Songs to train on and songs to measure, which the training does not see."""

    name: str
    train: tuple[Source, ...]
    test: tuple[Source, ...]

    def lay_out(self, folder: Path) -> Path:
        """Make a folder of links to the songs, with train/ and test/. If it is there, it stays: others may be reading it."""
        root = folder / self.name
        parts = ("train", self.train), ("test", self.test)
        wanted = {root / split / song.path.name: song.path.absolute() for split, songs in parts for song in songs}
        if {path: path.readlink() for path in root.glob("*/*")} != wanted:
            shutil.rmtree(root, ignore_errors=True)
            for link, song in wanted.items():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(song)
        return root


@dataclass(frozen=True)
class Budget:
    """Of every training: so many steps, else so many minutes of so many cores. The processes have so many threads."""

    steps: int | None
    minutes: float
    cores: int

    def said(self) -> list[Any]:
        """What the name of a cell depends on."""
        return [self.minutes, self.cores] if self.steps is None else ["steps", self.steps]


class TrainingFailed(Exception):
    """A training that did not end by itself or at the end of its time, or left no checkpoint."""


class Stopped(Exception):
    """A training that was given up, because the whole table is."""


def train(
    run: RunDir,
    songs: Path,
    system: System,
    seed: int,
    budget: Budget,
    on_stage: Callable[[str], None] = lambda _: None,
    give_up: threading.Event | None = None,
) -> float:
    """Train with the launcher, in a process of its own, for so many steps; or until its stages but preprocessing have used so
    many minutes of so many cores, and at least to the first checkpoint.

    With minutes the processor's time counts, not that of the clock, so that the table is the same on a machine that others use
    too. Steps are the budget where trainings share a GPU.

    Args:
        on_stage: called when the stage `preprocess` is done, and then when `pattern` is, or there is none.
        give_up: set to end the training at once.

    Returns:
        the seconds that it took, of the processor, or with steps of the clock; with the time to start, but not that to save and
        stop.

    Raises:
        TrainingFailed, Stopped: see there.
    """
    run.path.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, str(CHECKOUT / "launch" / "submit.py"), "--cluster", "local", "--run", run.path.name]
    words += ["--data", str(songs), "--evaluate", "never", "--train.seed", str(seed), *system.flags]
    if not {"--train.steps", "--train.epochs"} & {*system.flags}:  # the last generator is measured
        steps = str(budget.steps or ALL)
        words += ["--train.steps", steps, "--train.keep-every", str(ALL)]
        if budget.steps is not None:  # none is resumed
            words += ["--train.checkpoint-every", steps]
    if (run.pattern / "networks").is_dir():  # nothing is left for workers, which take seconds to start
        words += ["--workers", "1"]
    log = run.path.with_suffix(".log")
    environment = os.environ | {"P2P_RUNS": str(run.path.parent), "OMP_NUM_THREADS": str(budget.cores)}
    waiting = ["preprocess", "pattern"]
    before, began, used, asked = None, time.monotonic(), 0.0, False
    with log.open("wb") as output:
        # In its own session: a Ctrl-C reaches this process alone, which then ends it.
        process = subprocess.Popen(words, stdout=output, stderr=output, env=environment, start_new_session=True)
        try:
            while process.poll() is None:
                if give_up is not None and give_up.is_set():
                    raise Stopped
                begun = run.dataset.is_file() and run.config.is_file()  # they are written one after the other
                while waiting and begun and stages.is_done(waiting[0], run) is not None:
                    if before is None:
                        before, began = processor_seconds(process.pid), time.monotonic()
                    on_stage(waiting.pop(0))
                if budget.steps is None and before is not None and not asked:
                    used = processor_seconds(process.pid) - before
                    if used > 60 * budget.minutes * budget.cores and saved.with_generator(run.checkpoints):
                        process.send_signal(signal.SIGTERM)  # in a job of the background SIGINT is ignored
                        asked = True
                time.sleep(0.2)
        finally:
            if process.poll() is None:
                process.kill()  # its stages end with it
                process.wait()
    if budget.steps is not None:
        used = time.monotonic() - began
    if process.returncode not in (console.DONE, console.STOPPED) or not saved.with_generator(run.checkpoints):
        raise TrainingFailed(f"{' '.join(words)} ended with {process.returncode}; see {log}")
    log.unlink()
    return used


def link(source: Path, target: Path) -> None:
    """Add hard links to the files of a folder that the target lacks."""
    for path in source.rglob("*") if source.is_dir() else ():
        to = target / path.relative_to(source)
        if path.is_file() and not to.exists():
            to.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # another thread was faster
                to.hardlink_to(path)


def processor_seconds(root: int) -> float:
    """The processor time of a process and all its descendants, seconds; of those that have ended too (man 5 proc_pid_stat)."""
    parents, ticks = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            fields = path.read_text().rpartition(")")[2].split()
            number = int(path.parent.name)
            parents[number], ticks[number] = int(fields[1]), sum(map(int, fields[11:15]))
    family, more = set(), {root}
    while more:
        family |= more
        more = {number for number, parent in parents.items() if parent in more}
    return sum(ticks.get(number, 0) for number in family) / os.sysconf("SC_CLK_TCK")


def measure_baselines(run: RunDir, kept: Path) -> dict[str, dict[str, Any]]:
    """Make and measure the baselines of the test songs of a run's dataset: title -> baseline -> its measures.

    Args:
        kept: a file with the result, if it is there; otherwise it is written.
    """
    if kept.is_file():
        stored: dict[str, dict[str, Any]] = records.read(kept)
        return stored
    settings = presets.with_values(rundir.read_settings(run), WHOLE)
    found: dict[str, dict[str, Any]] = {}
    for song in held_out_songs.from_shards(run.shards, "test", ALL):
        excerpt = held_out_songs.read_excerpt(song, settings.data, settings.evaluate.seconds)
        known = baseline_stems.training(run.shards, settings.data, {song.name})
        stems = results.stems_of(excerpt, known, settings.data, settings.evaluate.iterations, gpu())
        found[song.name] = {name: shown(stem, excerpt.truth) for name, stem in stems if not isinstance(stem, str)}
    kept.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(kept, found)
    return found


def measure_songs(run: RunDir, system: System) -> dict[str, Any]:
    """Make and measure the stems of the test songs with the newest checkpoint, as the product evaluates it."""
    settings = presets.with_values(rundir.read_settings(run), WHOLE | system.measured)
    data, newest = settings.data, saved.with_generator(run.checkpoints)[-1]
    weights, device = checkpoint.load_generator(newest), gpu()
    generator = inference.build_generator(weights, settings.model, data.picture_channels, device or torch.device("cpu"))
    drums = drummer.load(run.pattern, data, settings.model) if settings.model.sketch else None
    found = {}
    for song in held_out_songs.from_shards(run.shards, "test", ALL):
        excerpt = held_out_songs.read_excerpt(song, data, settings.evaluate.seconds, drums, known_beats=system.known_beats)
        performance = excerpt.performance
        if system.strokes:
            assert performance is not None and not settings.evaluate.seconds, "a sketch begins with the song"
            samples = -(-len(excerpt.input) * data.sample_rate // excerpt.rate)
            stem = stem_for(excerpt.input, excerpt.rate, performance.sketch(0).part(0, samples), data.sample_rate)
        else:
            guide = None if performance is None else performance.guide(0)
            outputs = inference.generate(generator, excerpt.pictures, data, song.key, 0, guide)
            stem = inference.to_stem(
                outputs, excerpt.pictures, excerpt.input, excerpt.rate, data, settings.evaluate.iterations, device
            )
        found[song.name] = {"real": excerpt.real.tolist(), "output": shown(stem, excerpt.truth)}
    return {"step": newest.step, "songs": found, "machine": machine()}


def shown(stem: np.ndarray, truth: Truth) -> dict[str, Any]:
    """The measures of a stem that the table has columns for, for JSON. The others take most of the time."""
    return plain(measure(stem, truth, columns(pitched=True)[0]))


def gpu() -> torch.device | None:
    """The GPU, if there is one."""
    return torch.device("cuda") if torch.cuda.is_available() else None


def machine() -> str:
    """The card, else the processor, and torch's version."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    names = [line.split(":", 1)[1].strip() for line in linux.cpuinfo().splitlines() if line.startswith("model name")]
    return f"{[*names, platform.machine()][0]}, torch {torch.__version__}"


def plain(one: Measured) -> dict[str, Any]:
    """For JSON, see `restored`."""
    described = [None if d is None else d.tolist() for d in one.described]
    return {"row": one.row, "absent": one.absent, "windows": list(one.windows), "described": described}


def restored(one: dict[str, Any]) -> Measured:
    """The measures that `plain` stored."""
    return Measured(one["row"], one["absent"], one["windows"], [None if d is None else np.array(d) for d in one["described"]])

"""How good are the stems on songs that were never seen? Every system under one budget of time, beside all baselines.

python tests/benchmarks/quality.py --data DIR [--held-out DIR] [--minutes 5] [--cores 1] [--seeds 2] [--out DIR]
python tests/benchmarks/quality.py --data DIR --steps 600 --jobs 20 [--seeds 1] [--out DIR]

DIR is laid out like MUSDB18. Each of its songs is left out once: a system is trained on the others and makes the stem of that
one; the measures are then those of all songs together, so the distance is of all their windows. With --held-out a system is
trained on all songs of DIR as well, and makes the stems of the test songs of that folder. Of the training songs some may be
taken for validation, as in every run; nothing is chosen by them.

The budget is the processor time from the end of the preprocessing to the request to stop, for all stages between; a system that
ends earlier by its own flags is not prolonged, and one whose first checkpoint comes later is waited for: the table says what
each took. All drum systems on five songs are 13 different trainings x 5 songs x 2 seeds x 5 minutes, and 20 systems that take
about a minute each to measure: 14 hours of an idle core.

With a GPU the budget is --steps, each of the batch of the system's preset. Then --jobs trainings at once share it, while the
processor measures others; the stage `pattern` is made once for all trainings on the same songs. The table does not depend on
--jobs.

A system is one line of `SYSTEMS`. Each finished cell (system, fold, seed) is a JSON file in --out: the same command goes on
where it stopped, after a Ctrl-C or TERM as well (`timeout 270 python ...`), which costs the cells that were being made. Other
systems or seeds only add cells.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import traceback
from collections import defaultdict
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
import tyro

sys.path.insert(0, str(Path(__file__).parent))
import quality_cell
from quality_cell import Budget, Fold, Stopped, System, TrainingFailed

from p2p_dist.audio import layouts
from p2p_dist.common import console, files, linux, records
from p2p_dist.data.song_record import slug
from p2p_dist.evaluate.baselines.baseline_stems import BASELINES
from p2p_dist.evaluate.measures import averages, descriptors
from p2p_dist.evaluate.measures.kinds import Row
from p2p_dist.evaluate.measures.measure import Measured
from p2p_dist.evaluate.measures.table import MEASURES, columns, is_pitched
from p2p_dist.run.rundir import RunDir

SKETCH = ("--preset", "sketch")

SYSTEMS = (
    System("plain, small", ("--preset", "small")),
    # The tables were made with these averages of the weights. With the warm-up, 0.999 is the same for the first 890 updates.
    System("plain", ("--preset", "plain", "--train.ema", "0.99")),
    System("thesis", ("--preset", "thesis")),
    System("default", ("--preset", "default", "--train.ema", "0.99"), task="drums"),
    System("sketch", SKETCH, task="drums"),
    System("sketch, known beats", SKETCH, known_beats=True, task="drums"),
    System("strokes of sketch", SKETCH, strokes=True, task="drums"),
    System("strokes of sketch, known beats", SKETCH, known_beats=True, strokes=True, task="drums"),
    System("sketch, without residual", (*SKETCH, "--model.no-residual"), task="drums"),
    System("sketch, at the generator's own level", (*SKETCH, "--model.no-keep-level"), task="drums"),
    # Which strokes are predicted matters to no training: generators learn from true ones.
    System("sketch, strokes at any time", SKETCH, {"model.on_steps": False}, task="drums"),
    System("sketch, classes uneven", SKETCH, {"model.even_classes": False}, task="drums"),
    System("sketch, patterns not repeated", SKETCH, {"model.repeat_pattern": False}, task="drums"),
    System("sketch, without soft hats", SKETCH, {"model.soft_hats": False}, task="drums"),
    System("sketch, strokes of any strength", (*SKETCH, "--train.no-loud-strokes"), task="drums"),
    System("sketch, without the place in the beat", (*SKETCH, "--model.no-beat-phase"), task="drums"),
    System("sketch, learning from predicted strokes too", (*SKETCH, "--train.predicted-strokes"), task="drums"),
    System("sketch, with compressed magnitudes", (*SKETCH, "--train.compressed-weight", "100"), task="drums"),
    System("sketch, without flux", (*SKETCH, "--train.flux-weight", "0"), task="drums"),
    System("sketch, without differences", (*SKETCH, "--train.difference-weight", "0"), task="drums"),
)
"""The rows of the table. To add one: its name, the flags of its training, and other settings for its evaluation, if any."""

LEFT_OUT, HELD_OUT = "each song left out once", "held-out songs"


@dataclass
class Arguments:
    """Train every system on some songs and measure it on others."""

    data: Path
    """folder of songs, each of which is left out once"""
    more: Path | None = None
    """folder whose training songs are added to every training"""
    kits: str = "*"
    """names of the songs whose strokes are played, see --train.kits: the others give patterns alone"""
    held_out: Path | None = None
    """folder whose test songs are made by systems that are trained on all songs of --data"""
    task: str = "drums"
    """the task of all systems"""
    minutes: float = 5.0
    """of every training, of so many cores: processor time"""
    cores: int = 1
    """of every training"""
    steps: int | None = None
    """of every training, in place of minutes: for a GPU"""
    jobs: int = 1
    """trainings at once; with --steps all cores measure beside them"""
    seeds: int = 2
    """trainings of every system on the same songs"""
    systems: tuple[str, ...] = ()
    """names of those to train (default: all)"""
    songs: tuple[str, ...] = ()
    """titles in --data to leave out (default: each)"""
    out: Path = Path("runs/quality")
    """folder of the finished cells"""
    json: Path | None = None
    """also write the table here"""

    @property
    def budget(self) -> Budget:
        """Of every training."""
        return Budget(self.steps, self.minutes, self.cores)

    @property
    def systems_known(self) -> dict[str, System]:
        """Those for the task, by name; all with a sketch play the same kits."""
        found = [system for system in SYSTEMS if system.task in (None, self.task)]
        with_kits = ("--train.kits", self.kits) if self.kits != "*" else ()
        return {one.name: dataclasses.replace(one, flags=(*one.flags, *with_kits * one.sketches)) for one in found}


def folds(arguments: Arguments) -> list[Fold]:
    """List what is trained on and what is measured.

    Raises:
        ValueError: there is no such song, or too few to leave one out.
    """
    songs = list({song.name: song for song in layouts.list_songs(arguments.data.absolute())}.values())
    titles = [song.name for song in songs]
    more = layouts.list_songs(arguments.more.absolute()) if arguments.more else []
    more = [song for song in more if song.split == "train" and song.name not in titles]
    if missing := set(arguments.songs) - set(titles):
        raise ValueError(f"{arguments.data} has no song {sorted(missing)[0]!r}: it has {', '.join(titles)}")
    if not arguments.held_out and len(songs) + len(more) < 2:
        raise ValueError(f"{arguments.data} has one song: to leave it out, the training needs others (--more)")
    found = []
    for song in songs if len(songs) + len(more) > 1 else []:
        if not arguments.songs or song.name in arguments.songs:
            others = tuple(other for other in (*songs, *more) if other.name != song.name)
            found.append(Fold(f"without-{slug(song.name)}", others, (song,)))
    if arguments.held_out:
        tests = [song for song in layouts.list_songs(arguments.held_out.absolute()) if song.split == "test"]
        if not tests:
            raise ValueError(f"{arguments.held_out} has no songs in test/")
        unseen = {song.name for song in tests}
        others = tuple(song for song in (*songs, *more) if song.name not in unseen)
        found.append(Fold(HELD_OUT.replace(" ", "-"), others, tuple(tests)))
    return found


def cell_path(arguments: Arguments, system: System, fold: Fold, seed: int) -> Path:
    """Name a cell by all that it depends on, but for the code."""
    said = [system.flags, system.measured, system.known_beats, system.strokes, arguments.task, *arguments.budget.said()]
    said += [[song.stamp() for song in part] for part in (fold.train, fold.test)]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:10]
    return arguments.out / "cells" / f"{slug(system.name)}-{fold.name}-seed{seed}-{digest}.json"


@functools.cache
def code() -> str:
    """A digest of the library's sources: what other code has made is told apart."""
    package = quality_cell.CHECKOUT / "p2p_dist"
    sources = sorted(package.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:10]


@dataclass(frozen=True)
class Job:
    """A training, and the systems whose cells are made of it: those with the same flags."""

    fold: Fold
    seed: int
    cells: list[tuple[System, Path]]


class Maker:
    """Makes the missing cells: several trainings at once, each a process of its own, and beside them processes that measure."""

    def __init__(self, arguments: Arguments) -> None:
        self.arguments, self.out = arguments, arguments.out.absolute()
        workers = min(arguments.jobs, linux.usable_cores()) if arguments.steps is None else linux.usable_cores()
        threads = linux.usable_cores() // workers
        spawn = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(workers, spawn, initializer=begin_worker, initargs=(os.getpid(), threads))
        self.give_up = threading.Event()
        self.locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self.baselines: dict[str, Future[dict[str, Any]]] = {}

    def make(self, jobs: list[Job]) -> list[Job]:
        """Make all; return those that failed. A Ctrl-C ends all at once."""
        failed = []
        trainers, measurers = ThreadPoolExecutor(self.arguments.jobs), ThreadPoolExecutor(len(jobs) or 1)
        try:
            making: dict[Future[Any], Job] = {trainers.submit(self.train, job): job for job in jobs}
            while making:
                # Not for ever: a signal that comes just before the thread sleeps does not wake it.
                done, _ = wait(making, timeout=1, return_when=FIRST_COMPLETED)
                for future in done:
                    job = making.pop(future)
                    what = f"{', '.join(system.name for system, _ in job.cells)}, {job.fold.name}, seed {job.seed}"
                    try:
                        run = future.result()
                        if run is not None:  # it is trained
                            making[measurers.submit(self.measure, job, run)] = job
                        print(f"{'measured' if run is None else 'trained'}: {what}", file=sys.stderr, flush=True)
                    except TrainingFailed as error:
                        console.complain(f"error: {error}")
                        failed.append(job)
                    except Exception:  # hours of other cells are not lost with this one
                        console.complain(f"error: {what}:\n{traceback.format_exc()}")
                        failed.append(job)
        finally:
            self.give_up.set()
            for worker in multiprocessing.active_children():  # nobody needs what they do now, if anything
                worker.kill()
            self.pool.shutdown(cancel_futures=True)  # first: a process ends with the thread that started it
            trainers.shutdown(cancel_futures=True)
            measurers.shutdown(cancel_futures=True)
        return failed

    def train(self, job: Job) -> RunDir:
        """Train, unless that was done and the measuring was stopped. Of several trainings with a sketch on the same songs one
        makes the stage `pattern`, for which the others wait."""
        if self.give_up.is_set():
            raise Stopped
        arguments, (system, _) = self.arguments, job.cells[0]
        system = dataclasses.replace(system, flags=(*system.flags, "--task", arguments.task))
        stamps = [song.stamp() for part in (job.fold.train, job.fold.test) for song in part]
        digest = files.digest([code(), system.flags, stamps, job.seed, arguments.budget.said()])
        run = RunDir(self.out / "runs" / f"{job.fold.name[:60]}-{digest[:12]}")
        trained = run.path / "trained.json"
        if trained.is_file():
            return run
        shutil.rmtree(run.path, ignore_errors=True)
        with self.locks["songs"]:
            songs = job.fold.lay_out(self.out / "songs")
        shared = self.out / "patterns"  # its files are named by all that they depend on
        with contextlib.ExitStack() as waiting:
            shares = system.sketches and arguments.steps is not None  # else its time is part of the budget
            if shares:
                waiting.enter_context(self.locks[f"{job.fold.name}-seed{job.seed}"])
                quality_cell.link(shared, run.pattern)

            def on_stage(stage: str) -> None:
                if stage == "preprocess" and arguments.steps is not None:
                    self.baselines_of(run)
                if stage == "pattern" and shares:
                    for folder in ("songs", "networks"):
                        quality_cell.link(run.pattern / folder, shared / folder)
                    waiting.close()

            seconds = quality_cell.train(run, songs, system, job.seed, arguments.budget, on_stage, self.give_up)
        files.write_json(trained, {"seconds": seconds})
        return run

    def baselines_of(self, run: RunDir) -> Future[dict[str, Any]]:
        """Have the baselines of a run's songs measured, once for all runs with these, of earlier commands as well."""
        with self.locks["baselines"]:
            if (name := run.read_dataset()) not in self.baselines:
                kept = self.out / "baselines" / f"{name}-{code()}.json"
                self.baselines[name] = self.pool.submit(quality_cell.measure_baselines, run, kept)
            return self.baselines[name]

    def measure(self, job: Job, run: RunDir) -> None:
        """Measure the songs of a training for each of its cells."""
        baselines = self.baselines_of(run)
        seconds = records.read(run.path / "trained.json")["seconds"]
        for system, path in job.cells:
            found = self.pool.submit(quality_cell.measure_songs, run, system).result()
            for title, song in found["songs"].items():
                song["baselines"] = baselines.result()[title]
            about = {"code": code(), "system": system.name, "fold": job.fold.name, "seed": job.seed, "seconds": seconds}
            files.write_json(path, {**about, **found})
        shutil.rmtree(run.path)


def begin_worker(parent: int, threads: int) -> None:
    """Prepare a process that measures. Requests to stop are for its parent, with which it ends."""
    linux.die_with_parent(parent=parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(threads)
    os.nice(5)  # a GPU that waits for its trainings' processes costs more
    sys.stdout = sys.stderr  # the progress; the tables are the output


def pooled(cells: list[dict[str, Any]], which: str | None = None) -> tuple[Row, int]:
    """Average one training of each fold, or a baseline, over all songs of these cells together.

    Args:
        which: the baseline; None for the system.

    Returns:
        the averages, and of how many songs: a baseline can't be made for every song.
    """
    songs = [song for cell in cells for song in cell["songs"].values()]
    made = [(one, song) for song in songs if (one := song["baselines"].get(which) if which else song["output"]) is not None]
    measured: list[list[Measured]] = [[quality_cell.restored(one)] for one, _ in made]
    return averages.average(measured, [real_of(song) for _, song in made]).mean, len(made)


def real_of(song: dict[str, Any]) -> np.ndarray:
    """The descriptors of the whole true stem of a song in a cell, (windows, 41)."""
    return np.array(song["real"]).reshape(-1, descriptors.SIZE)


def table(cells: dict[str, list[dict[str, Any]]], names: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the lines of a table, and its figures.

    Args:
        cells: system -> its finished cells of some folds. names: of the measures.
    """
    every = [cell for of in cells.values() for cell in of]
    most = len({cell["fold"] for cell in every})
    head = ["", "folds x seeds", "minutes", "steps", *(MEASURES[name].label for name in names)]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    figures: dict[str, Any] = {}

    def add(name: str, count: str, minutes: str, steps: str, rows: list[Row]) -> None:
        texts, figures[name] = [], {}
        for measure in names:
            values = [value for row in rows if (value := row[measure]) is not None]
            figures[name][measure] = values
            text = MEASURES[measure].text
            spread = f" ± {text(float(np.std(values, ddof=1)))}" if len(values) > 1 else ""
            texts.append(f"{text(float(np.mean(values)), certain=certain)}{spread}" if values else "–")
        lines.append("| " + " | ".join([f"**{name}**" if count else name, count, minutes, steps, *texts]) + " |")

    once = list({cell["fold"]: cell for cell in every}.values())
    real = [real_of(song) for cell in once for song in cell["songs"].values()]
    about = descriptors.about_songs(real, real)
    certain = descriptors.is_certain(about)
    for name in BASELINES:
        # Of the system that has it of the most songs, the first of these: the pictures of the thesis leave some out.
        found = [pooled(list({cell["fold"]: cell for cell in of}.values()), name) for of in cells.values()]
        row, songs = max(found, key=lambda one: one[1])
        if songs:
            add(name, "", "", "" if songs == len(real) else f"{songs} of {len(real)} songs", [row])
    for system, of in cells.items():
        seeds = sorted({cell["seed"] for cell in of})
        by_seed = [[cell for cell in of if cell["seed"] == seed] for seed in seeds]
        whole = [one for one in by_seed if len(one) == most]
        steps = sorted(cell["step"] for cell in of)
        shown = f"{steps[0]} to {steps[-1]}" if len(steps) > 1 else str(steps[0])
        rows = [pooled(one)[0] for one in whole]
        missing = "" if len(whole) == len(by_seed) else f", {len(by_seed) - len(whole)} not finished"
        minutes = float(np.mean([cell["seconds"] for cell in of])) / 60
        add(system, f"{most} x {len(whole)}{missing}", f"{minutes:.1f}", shown, rows)
    return [*lines, "", descriptors.in_words(about)], figures


def show(arguments: Arguments, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Print the tables of all finished cells; return their figures."""
    if not cells:
        console.complain("no cell is finished")
        return {}
    names = columns(pitched=is_pitched(arguments.task))[0]
    budget = f"{arguments.minutes:g} min of {arguments.cores} {'core' if arguments.cores == 1 else 'cores'}"
    if arguments.steps is not None:
        budget = f"{arguments.steps} steps of its preset's batch"
    machines = sorted({cell.get("machine", "an earlier version did not say where") for cell in cells})
    print(f"\nTask {arguments.task}; every training {budget}; {' and '.join(machines)}.")
    print("Mean and standard deviation over the seeds.")
    if old := sum(cell["code"] != code() for cell in cells):
        print(
            f"{old} of {len(cells)} cells were made by other code than this: remove them in {arguments.out} to make them again."
        )
    found = {}
    for title, held_out in ((LEFT_OUT, False), (HELD_OUT, True)):
        here = [cell for cell in cells if (cell["fold"] == HELD_OUT.replace(" ", "-")) == held_out]
        systems = {system: [cell for cell in here if cell["system"] == system] for system in {c["system"]: 0 for c in here}}
        if systems:
            lines, found[title] = table(systems, names)
            print(f"\n## {title[0].upper()}{title[1:]}\n\n" + "\n".join(lines), flush=True)
    return found


def as_ctrl_c(number: int, _: FrameType | None) -> None:
    """Treat TERM as a Ctrl-C. timeout(1) sends it twice."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(words: list[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, description=__doc__, args=words)
    known = arguments.systems_known
    if unknown := [name for name in arguments.systems if name not in known]:
        hint = console.did_you_mean(unknown[0], known)
        raise ValueError(f"no system {unknown[0]!r} for {arguments.task}: there are {', '.join(known)}{hint}")
    if arguments.cores > linux.usable_cores():
        raise ValueError(f"--cores {arguments.cores}: this process may use {linux.usable_cores()}")
    for name in ("steps", "jobs", "seeds"):
        if (asked := getattr(arguments, name)) is not None and asked < 1:
            raise ValueError(f"--{name} {asked}: must be at least 1")
    systems = [known[name] for name in arguments.systems or known]
    wanted = [
        (system, fold, seed, cell_path(arguments, system, fold, seed))
        for seed in range(arguments.seeds)  # the first seed of all systems first
        for system in systems  # whole rows of the table first
        for fold in folds(arguments)
    ]
    jobs: dict[Any, Job] = {}
    for system, fold, seed, path in wanted:
        if not path.is_file():
            jobs.setdefault((system.flags, fold.name, seed), Job(fold, seed, [])).cells.append((system, path))
    failed: list[Job] = []
    before = signal.signal(signal.SIGTERM, as_ctrl_c)
    try:
        failed = Maker(arguments).make(list(jobs.values()))
    except KeyboardInterrupt:
        console.complain("stopped; the same command goes on with the cells that were being made")
        return console.STOPPED
    finally:
        signal.signal(signal.SIGTERM, before)
        order = [system.name for system in systems]
        cells = [records.read(path) for *_, path in wanted if path.is_file()]
        cells.sort(key=lambda cell: order.index(cell["system"]))
        found = show(arguments, cells)
        if arguments.json:
            files.write_json(arguments.json, found)
    return console.FAILED if failed else console.DONE


if __name__ == "__main__":
    console.exit_with(main)

"""One cell of tests/benchmarks/quality.py: a system trained for some minutes, and its stems of unseen songs measured."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from p2p_dist.audio.layouts import Source
from p2p_dist.common import console, records
from p2p_dist.evaluate import checkpoints, held_out_songs
from p2p_dist.evaluate.baselines import results
from p2p_dist.evaluate.measures.measure import Measured, measure
from p2p_dist.jobs import stages
from p2p_dist.run import checkpoints as saved
from p2p_dist.run import rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import presets

CHECKOUT = Path(__file__).resolve().parents[2]

ALL = 1_000_000
"""More songs, or steps, than there are."""

WHOLE = {"evaluate.seconds": 0.0, "evaluate.songs": ALL, "evaluate.seeds": 1}
"""Whole songs, all of them, one generation of each: further seeds are further trainings."""


@dataclass(frozen=True)
class System:
    """A row of the table. Systems with the same flags share their trainings.

    flags: of launch/submit.py. measured: values of settings with which its songs are made, such as `evaluate.iterations`.
    known_beats: its songs are made with the beats of the true drums. task: the only one that it is for.
    """

    name: str
    flags: tuple[str, ...]
    measured: dict[str, Any] = field(default_factory=dict)
    known_beats: bool = False
    task: str | None = None


@dataclass(frozen=True)
class Fold:
    """Songs to train on and songs to measure, which the training does not see."""

    name: str
    train: tuple[Source, ...]
    test: tuple[Source, ...]

    def lay_out(self, folder: Path) -> Path:
        """Make a folder of links to the songs, with train/ and test/."""
        root = folder / self.name
        shutil.rmtree(root, ignore_errors=True)
        for split, songs in (("train", self.train), ("test", self.test)):
            (root / split).mkdir(parents=True)
            for song in songs:
                (root / split / song.path.name).symlink_to(song.path.absolute())
        return root


class TrainingFailed(Exception):
    """A training that did not end by itself or at the end of its time, or left no checkpoint."""


def train(run: RunDir, songs: Path, system: System, seed: int, minutes: float, cores: int) -> float:
    """Train with the launcher, in a process of its own, until its stages but preprocessing have used so many minutes of so many
    cores, and at least to the first checkpoint.

    The processor's time counts, not that of the clock, so that the table is the same on a machine that others use too.

    Returns:
        the seconds of processor time that it took, with the time to start, but not that to save and stop.

    Raises:
        TrainingFailed: see there.
    """
    shutil.rmtree(run.path, ignore_errors=True)
    run.path.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, str(CHECKOUT / "launch" / "submit.py"), "--cluster", "local", "--run", run.path.name]
    words += ["--data", str(songs), "--evaluate", "never", "--train.seed", str(seed), *system.flags]
    if not {"--train.steps", "--train.epochs"} & {*system.flags}:  # until the time is over; the last generator is measured
        words += ["--train.steps", str(ALL), "--train.keep-every", str(ALL)]
    log = run.path.with_suffix(".log")
    environment = os.environ | {"P2P_RUNS": str(run.path.parent), "OMP_NUM_THREADS": str(cores)}
    before, used, asked = None, 0.0, False
    with log.open("wb") as output:
        # In its own session: a Ctrl-C reaches this process alone, which then ends it.
        process = subprocess.Popen(words, stdout=output, stderr=output, env=environment, start_new_session=True)
        try:
            while process.poll() is None:
                begun = run.dataset.is_file() and run.config.is_file()  # they are written one after the other
                if before is None and begun and stages.is_done("preprocess", run) is not None:
                    before = processor_seconds(process.pid)
                if before is not None and not asked:
                    used = processor_seconds(process.pid) - before
                if used > 60 * minutes * cores and not asked and saved.with_generator(run.checkpoints):
                    process.send_signal(signal.SIGTERM)  # in a job of the background SIGINT is ignored
                    asked = True
                time.sleep(0.2)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode not in (console.DONE, console.STOPPED) or not saved.with_generator(run.checkpoints):
        raise TrainingFailed(f"{' '.join(words)} ended with {process.returncode}; see {log}")
    log.unlink()
    return used


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


def measure_songs(run: RunDir, system: System, references: Path) -> dict[str, Any]:
    """Make and measure the stems of the test songs with the newest checkpoint, as the product evaluates it.

    Args:
        references: folder for the baselines of each dataset, which are the same for all trainings with it.
    """
    settings = presets.with_values(rundir.read_settings(run), WHOLE | system.measured)
    step = saved.with_generator(run.checkpoints)[-1].step
    songs = held_out_songs.from_shards(run.shards, "test", ALL)
    out, known = run.path / "measured", references / run.shards.name
    shutil.rmtree(out, ignore_errors=True)
    if known.is_dir():
        shutil.copytree(known, out / "references", copy_function=os.link)
    checkpoints.evaluate(run, settings, [step], songs, out, known_beats=system.known_beats)
    if not known.is_dir():
        references.mkdir(parents=True, exist_ok=True)
        shutil.copytree(out / "references", known.with_name(".tmp"), copy_function=os.link, dirs_exist_ok=True)
        known.with_name(".tmp").rename(known)
    evaluated = out / rundir.step_name(step)
    gains = {song["key"]: song["gain"] for song in records.read(evaluated / "metrics.json")["songs"]}
    found = {}
    for song in songs:
        excerpt = held_out_songs.read_excerpt(song, settings.data, settings.evaluate.seconds)
        stem, _ = soundfile.read(evaluated / "audio" / f"{song.key}-stem.flac", dtype="float32", always_2d=True)
        reference = results.read_reference(out / "references" / f"{song.key}.json", excerpt)
        found[song.name] = {
            "real": excerpt.real.tolist(),
            "output": plain(measure(stem / np.float32(gains[song.key]), excerpt.truth)),
            "baselines": {name: plain(one) for name, one in reference.measured.items()},
        }
    shutil.rmtree(out)
    return {"step": step, "songs": found}


def plain(one: Measured) -> dict[str, Any]:
    """For JSON, see `restored`."""
    described = [None if d is None else d.tolist() for d in one.described]
    return {"row": one.row, "absent": one.absent, "windows": list(one.windows), "described": described}


def restored(one: dict[str, Any]) -> Measured:
    """The measures that `plain` stored."""
    return Measured(one["row"], one["absent"], one["windows"], [None if d is None else np.array(d) for d in one["described"]])

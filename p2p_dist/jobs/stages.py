"""The four stages of a run, and what happens in the process that runs one.

    python -m p2p_dist.jobs.stages train RUN_DIRECTORY

A stage always ends through `_leave`: outcome.json says how (unless it crashed), then `os._exit`, because no thread or
exit handler of a library may keep a process that has finished.
"""

from __future__ import annotations

import signal

if __name__ == "__main__":  # before the imports, which take a moment: a request to stop that comes now is kept, not died of
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2))

import contextlib
import faulthandler
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from p2p_dist import config, console, files, manifest, processes, rundir, saved
from p2p_dist.rundir import RunDir

ASKED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that ask a stage to stop; the launcher on one machine keeps Ctrl-C for itself."""

STAGES = ("preprocess", "train", "evaluate", "page")

CHECKS = ("preflight", "scaling")
"""Jobs of launch/check.py, which start as a training does."""

SOUNDLESS = "left out: the songs came as pictures (npz) without their sound, so there is nothing to measure or to hear"
"""Why there is no evaluation and no page of a run whose held-out songs are ready-made pairs."""


NOT_ASKED = "left out as --evaluate never asks (later: --evaluate after)"
"""Why there is no evaluation and no page where none is asked for."""


def is_soundless(content: dict[str, Any]) -> bool:
    """Whether the held-out songs of a manifest are pictures without sound."""
    held_out = [part for split, part in content["splits"].items() if split != "train"]
    return bool(held_out) and not any(part["audio"] for part in held_out)


@dataclass(frozen=True)
class Shards:
    """What a folder of shards holds: its manifest, and whether all is there that the manifest names."""

    content: dict[str, Any]
    whole: bool

    def windows(self) -> dict[str, int]:
        """Split -> windows."""
        return {split: len(part["samples"]) for split, part in self.content["splits"].items()}


def look(shards: Path) -> Shards | None:
    """Look at a folder of shards; None where no manifest is.

    Raises:
        ValueError: the manifest is damaged or of another version.
    """
    try:
        content = manifest.read(shards)
        with os.scandir(shards) as entries:
            sizes = {entry.name: entry.stat().st_size for entry in entries if entry.name.endswith(".tar")}
    except FileNotFoundError:
        return None
    named = [s for part in content["splits"].values() for s in (*part["shards"], *part["audio"])]
    return Shards(content, bool(named) and all(sizes.get(s["name"]) == s["bytes"] for s in named))


def is_preprocessed(shards: Path | Shards, trained: bool) -> str | None:
    """What there is already in a folder of shards, in words; None where there is something to do.

    Args:
        trained: whether something has been learnt from it.
    """
    try:
        found = look(shards) if isinstance(shards, Path) else shards
    except ValueError:  # damaged, or of another version: it is made anew
        return None
    if found is None or not found.whole or (found.content["left_out"] and not trained):
        return None  # a song that could not be read may be readable now, as long as nothing has been learnt
    counts = [
        f"{len(part['songs'])} {split} songs in {len(part['samples'])} windows"
        for split, part in found.content["splits"].items()
    ]
    return ", ".join(counts)


def windows(shards: Path) -> dict[str, int]:
    """Split -> windows of a folder of shards; empty where it has no manifest, or one that is to be made anew."""
    try:
        found = look(shards)
    except ValueError:
        return {}
    return found.windows() if found else {}


def is_done(stage: str, run: RunDir, shards: Shards | None = None, *, content: bool = True) -> str | None:
    """What there is already of a stage, in words; None where there is something to do.

    Args:
        shards: those of the run, where they have been looked at. content: read the newest checkpoint to the last byte, as
            a training does that goes on from it; else its names and sizes tell.
    """
    try:
        shards = look(run.shards) if shards is None else shards
    except ValueError:
        shards = None
    trained = saved.find(run.checkpoints)
    if stage == "preprocess":
        return is_preprocessed(shards, bool(trained)) if shards is not None else None
    if stage == "train":
        # Those before have the same training songs, and are there while those of now are still made.
        there = shards.windows() if shards is not None else {}
        before = run.shards_before
        count = there.get("train") or (windows(before).get("train") if before is not None else None)
        if not count:
            return None
        total = rundir.resolve(run).train.total_steps(count)
        return f"{total} steps" if saved.newest_step(run.checkpoints, content=content) >= total else None
    if rundir.resolve(run).resources.evaluate == "never":
        return NOT_ASKED
    if shards is None:
        return None
    if is_soundless(shards.content):
        return SOUNDLESS
    evaluated = [step for step, path in rundir.find_steps(run.evaluations) if rundir.is_evaluation(path)]
    if stage == "evaluate":
        if is_done("train", run, shards, content=content) is None:
            return None  # more checkpoints will come
        missing = [one.step for one in trained if (one.path / saved.GENERATOR).is_file() and one.step not in evaluated]
        return f"{len(evaluated)} checkpoints" if evaluated and not missing else None
    assert stage == "page"
    if not run.page.is_file() or not evaluated:
        return None
    newest = max((run.evaluations / rundir.step_name(step) / "metrics.json").stat().st_mtime for step in evaluated)
    return str(run.page) if run.page.stat().st_mtime >= newest else None


def last_lines(run: RunDir) -> str:
    """What a launch that came to the end of a run says last: the best checkpoint, where one was named, and the page."""
    if not run.page.is_file():
        return f"page {NOT_ASKED if rundir.resolve(run).resources.evaluate == 'never' else SOUNDLESS}"
    best = run.read_best()
    return (f"best checkpoint: {rundir.in_words(best)}\n" if best else "") + f"page: {run.page}"


def preprocess(run: RunDir, settings: config.Config) -> int:
    """Songs to shards. Songs that had to be left out are named here and in the manifest; the rest goes on."""
    from p2p_dist.data import shards

    assert settings.data.root is not None
    workers = settings.resources.workers or max(settings.resources.nodes, processes.usable_cores())
    with console.Progress("preprocess", 1, start=None, status=run.status) as progress:

        def on_song(done: int, total: int, result: shards.Result) -> None:
            if result.error is not None:
                console.complain(f"left out: {console.one_line(result.error)}")
            progress.total = total
            progress.update(done, result.note)

        left_out = shards.preprocess(Path(settings.data.root), run.shards, settings.data, workers, on_song)
    if left_out:
        console.complain(f"{len(left_out)} songs left out: {', '.join(result.name for result in left_out)}")
    check_unseen(run, settings)
    return console.DONE


def check_unseen(run: RunDir, settings: config.Config) -> None:
    """Refuse, before anything is trained, held-out songs that are all training songs; see `manifest.check_unseen`."""
    if not settings.evaluate.allow_overlap and (run.shards / manifest.NAME).is_file():
        manifest.check_unseen(manifest.read(run.shards), settings.evaluate.split)


def train(run: RunDir, settings: config.Config) -> int:
    """Every process of the training calls it. It listens for requests to stop before torch is imported, which takes seconds."""
    from p2p_dist.train.stop import StopFlag

    stop = StopFlag()
    check_unseen(run, settings)
    from p2p_dist.train.loop import train

    return train(run, settings, stop)


def evaluate(run: RunDir, settings: config.Config) -> int:
    """Measure and render the checkpoints that were not yet; where it runs beside the training, as they appear."""
    if is_soundless(manifest.read(run.shards)):
        console.say(f"evaluation {SOUNDLESS}")
        return console.DONE
    from p2p_dist.evaluate.checkpoints import evaluate

    evaluate(run, settings)
    return console.DONE


def page(run: RunDir, settings: config.Config) -> int:
    """Write the page."""
    if is_soundless(manifest.read(run.shards)):
        console.say(f"page {SOUNDLESS}")
        return console.DONE
    from p2p_dist.evaluate.page import write

    # Of evaluations that were killed, and of those that shared the work: by now all have ended.
    files.remove_garbage(run.evaluations)
    shutil.rmtree(run.evaluations / "claims", ignore_errors=True)
    write(run, settings)
    return console.DONE


def preflight(run: RunDir, settings: config.Config) -> int:
    """Every process of the check calls it. It counts signals from before torch is imported."""
    heard: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, _: heard.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)  # held back while torch is imported, on one machine
    from p2p_dist.train.preflight import preflight

    return preflight(run, settings, heard)


def scaling(run: RunDir, settings: config.Config) -> int:
    """Every process of one size calls it."""
    from p2p_dist.train.scaling import scaling

    return scaling(run, settings)


def run_stage(stage: str, folder: str | Path) -> NoReturn:
    """Run one stage of the run in `folder` in this process, and end the process with the stage's exit code."""
    run = RunDir(Path(folder))
    _take_place_from_slurm()
    console.show_any_text()
    first = os.environ.get("RANK", "0") == "0"
    if first:
        console.say(f"--- {stage}, attempt {rundir.attempt()}")
    faulthandler.enable()  # a segmentation fault or an abort leaves its stack in the log
    if stage != "train":  # which has a flag of its own
        for number in ASKED:
            signal.signal(number, _interrupt)
    body: Callable[[RunDir, config.Config], int] = {
        "preprocess": preprocess,
        "train": train,
        "evaluate": evaluate,
        "page": page,
        "preflight": preflight,
        "scaling": scaling,
    }[stage]
    outcome, message, code, says = "failed", "", console.FAILED, first
    try:
        settings = rundir.resolve(run)
        if first or stage == "evaluate":  # others write where rank 0 does, or into their log
            rundir.check_links(run)
        if stage not in ("train", *CHECKS):  # which let requests through once they listen
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
        code = body(run, settings)
        outcome = {console.DONE: "done", console.STOPPED: "stopped"}.get(code, "failed")
    except KeyboardInterrupt:
        outcome, code, message = "stopped", console.STOPPED, "stopped between two pieces of work"
    except (ValueError, FloatingPointError) as error:
        message = str(error)
        says = first or isinstance(error, files.DamagedError)  # met by one rank alone; the others only lose it
    except ConnectionError as error:  # between the processes: not the run's own
        _lost(error)
    except OSError as error:
        message = console.describe(error)
    except rundir.SupersededError as error:
        console.complain(str(error))
        _leave(console.CRASHED)
    except BaseException as error:
        # torch's own errors of a connection are RuntimeErrors, some of a class of their own
        if isinstance(error, RuntimeError) and (type(error).__name__.startswith("Dist") or "gloo" in str(error)):
            _lost(error)
        traceback.print_exc()
        _leave(console.CRASHED)
    _ignore_requests()  # what comes while it leaves must not change how it ends
    if outcome == "failed" and message:
        console.complain(f"error: {message}")
    if says:
        try:
            run.write_outcome(stage, outcome, message, saved.newest_step(run.checkpoints) or None)
        except OSError as error:  # the exit code says it too
            console.complain(f"warning: {console.describe(error)}")
    _leave(code)


def _lost(error: Exception) -> NoReturn:
    """Another process of the training is gone: that one's log says why, so no traceback from here hides it."""
    where = "; ".join(getattr(error, "__notes__", []))
    console.complain(f"{where or 'this process'}: lost the other processes ({str(error).splitlines()[0][:200]})")
    _leave(console.CRASHED)


def _interrupt(number: int, _: FrameType | None) -> None:
    """Stages other than training hold nothing that a kill would lose: they end where they are."""
    _ignore_requests()  # schedulers send more than one
    raise KeyboardInterrupt


def _ignore_requests() -> None:
    for number in (*ASKED, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _leave(code: int) -> NoReturn:
    _ignore_requests()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a disk that is full
            stream.flush()
    os._exit(code)


def _take_place_from_slurm() -> None:
    """Under srun, hand Slurm's place of this task to what reads RANK and the like."""
    if "SLURM_PROCID" not in os.environ or "RANK" in os.environ:
        return
    os.environ["RANK"] = os.environ["SLURM_PROCID"]
    os.environ["WORLD_SIZE"] = os.environ.get("SLURM_STEP_NUM_TASKS", os.environ.get("SLURM_NTASKS", "1"))
    os.environ["LOCAL_RANK"] = os.environ["SLURM_LOCALID"]
    per_node = os.environ.get("SLURM_STEP_TASKS_PER_NODE", os.environ.get("SLURM_TASKS_PER_NODE", "1"))
    os.environ["LOCAL_WORLD_SIZE"] = per_node.split(",")[0].split("(")[0]


if __name__ == "__main__":
    processes.die_with_parent(signal.SIGTERM)
    run_stage(sys.argv[1], sys.argv[2])

"""Run one stage of a run, as the process that a job or a launcher starts.

    python -m p2p_dist.jobs.stage_process train RUN_DIRECTORY
    torchrun --nnodes N ... -m p2p_dist.jobs.stage_process train RUN_DIRECTORY

A stage always ends with `leave`: it writes outcome.json (unless it crashed), and calls `os._exit`, so that no thread or exit
handler of a library can block a process that has finished.
"""

from __future__ import annotations

import signal

if __name__ == "__main__":  # before the slow imports: a stop request that arrives now must not kill the process
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2))

import contextlib
import faulthandler
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from p2p_dist.common import console, files, linux, records, schemas
from p2p_dist.data import manifest
from p2p_dist.jobs.stages import CHECKS, SOUNDLESS, STAGES, is_soundless
from p2p_dist.run import checkpoints, rundir, starts
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import config

ASKED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that request a stop. On one machine the launcher handles Ctrl-C itself."""


def preprocess(run: RunDir, settings: config.Config) -> int:
    """Convert songs to shards, or fetch a finished dataset. Songs that fail are skipped, and named in log and manifest.

    The jobs of an array share the songs, and the last of them to end writes the manifest.
    """
    if settings.data.shards is not None:
        return fetch(run, settings)
    from p2p_dist.data import shards

    assert settings.data.root is not None
    workers = settings.resources.workers or max(settings.resources.nodes, linux.usable_cores())
    with console.Progress("preprocess", 1, start=None, status=run.status) as progress:

        def on_song(done: int, total: int, result: shards.Result) -> None:
            if result.error is not None:
                console.complain(f"left out: {console.one_line(result.error)}")
            progress.total = total
            progress.update(done, result.note)

        root, wanted = Path(settings.data.root), [(run.shards, settings.data)]
        place = os.environ.get("SLURM_ARRAY_TASK_ID")  # among the jobs of an array
        left_out = shards.preprocess_all(root, wanted, workers, on_song, member=None if place is None else int(place))
    if left_out:
        console.complain(f"songs left out ({len(left_out)}): {', '.join(console.one_line(one.name) for one in left_out)}")
    check_unseen(run, settings.evaluate)
    return console.DONE


def fetch(run: RunDir, settings: config.Config) -> int:
    """Fetch the dataset that `data.shards` names, unless it is there, without what each node will fetch by itself."""
    from p2p_dist.data import transfer

    if os.environ.get("SLURM_ARRAY_TASK_ID", "0") != "0":
        return console.DONE  # the first job of an array does it
    console.say(f"fetching {settings.data.shards}")
    with console.Progress("preprocess", 1, start=None, status=run.status) as progress:

        def on_file(done: int, total: int, name: str) -> None:
            progress.total = total
            progress.update(done, name)

        needed = ["train", *([settings.evaluate.split] if settings.resources.evaluate != "never" else [])]
        transfer.fetch_for(run, settings.data, needed, on_file)
    check_unseen(run, settings.evaluate)
    return console.DONE


def check_unseen(run: RunDir, evaluate: config.Evaluate) -> None:
    """Raise an error before the training if all held-out songs are also training songs; see `manifest.check_unseen`."""
    if not evaluate.allow_overlap and (run.shards / manifest.NAME).is_file():
        manifest.check_unseen(manifest.read(run.shards), evaluate.split)


def pattern(run: RunDir, settings: config.Config) -> int:
    """Train the drummer of a run with sketches, and sketch the training songs."""
    check_unseen(run, settings.evaluate)  # the training would be refused afterwards
    from p2p_dist.generate import pattern_stage

    pattern_stage.make(run, settings, settings.resources.workers or linux.usable_cores())
    return console.DONE


def train(run: RunDir, settings: config.Config) -> int:
    """Run one process of the training. Stop requests are handled before torch is imported, which takes seconds."""
    from p2p_dist.train.stop import StopFlag

    stop = StopFlag()
    check_unseen(run, settings.evaluate)
    from p2p_dist.train.loop import train

    return train(run, settings, stop)


def evaluate(run: RunDir, settings: config.Config) -> int:
    """Evaluate the checkpoints that have no evaluation; during a training, as they appear."""
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
    from p2p_dist.evaluate.report.page import write

    # Left by killed evaluations. By now, all evaluations that shared the work have ended.
    files.remove_garbage(run.evaluations)
    shutil.rmtree(run.evaluations / "claims", ignore_errors=True)
    write(run, settings)
    return console.DONE


def generate(run: RunDir, settings: config.Config) -> int:
    """Generate stems for songs. The jobs of an array share them, and skip songs that another job has claimed or finished."""
    os.environ["P2P_RUNS"] = str(run.path.parent)  # the folder of the model's run, also in a container
    from p2p_dist.evaluate.report import song_page
    from p2p_dist.generate import songs
    from p2p_dist.generate.model import find_model
    from p2p_dist.generate.request import Options, Place, Song

    asked = records.read(run.songs, schemas.SONGS)
    todo = [Song(Path(one["source"]), Place(Path(one["folder"]), one["name"])) for one in asked["songs"]]
    noted = {one: run.made / f"{number:08d}" for number, one in enumerate(todo)}
    model = find_model(asked["model"])
    if (asked["sha256"], asked.get("drummer")) != (model.sha256, model.drummer_sha256):
        raise ValueError(f"{asked['model']} has changed since the jobs were queued: run the command again")
    with console.Progress("generate", len(todo), start=None, status=run.status) as progress:

        def on_song(made: songs.Made) -> None:
            if made.error is not None:
                console.complain(f"left out: {console.one_line(made.error)}")
            files.write_text(noted[made.song], made.error or "")
            progress.update(sum(path.exists() for path in noted.values()), made.song.place.name)

        songs.make(
            todo,
            model,
            Options(**asked["options"]),
            overwrite=asked["overwrite"],
            page=song_page.write,
            on_song=on_song,
            is_over=lambda one: noted[one].exists(),
            shared=int(os.environ.get("SLURM_ARRAY_TASK_ID", "0")),
        )
    return console.DONE


def preflight(run: RunDir, settings: config.Config) -> int:
    """Run one process of the check. It counts signals from before torch is imported."""
    heard: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, _: heard.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)  # on one machine they are blocked while torch is imported
    from p2p_dist.checks.preflight.ranks import preflight

    return preflight(run, settings.data.root, heard)


def scaling(run: RunDir, settings: config.Config) -> int:
    """Run one process of the scaling check."""
    from p2p_dist.checks.scaling.ranks import scaling

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
    if stage != "train":  # training has its own flag
        for number in ASKED:
            signal.signal(number, _interrupt)
    body: Callable[[RunDir, config.Config], int] = {
        "preprocess": preprocess,
        "pattern": pattern,
        "train": train,
        "evaluate": evaluate,
        "page": page,
        "generate": generate,
        "preflight": preflight,
        "scaling": scaling,
    }[stage]
    outcome, message, code, says, owner = "failed", "", console.FAILED, first, None
    try:
        settings = rundir.read_settings(run)
        if first and stage == "train" and "TORCHELASTIC_RUN_ID" in os.environ:  # no launcher of ours does this
            owner = rundir.lock_run(run)
            run.outcome_of(stage).unlink(missing_ok=True)
            nodes = int(os.environ["GROUP_WORLD_SIZE"])
            newest = checkpoints.newest_step(run.checkpoints)
            starts.note_start(run.attempts(stage), rundir.attempt(), newest, by_hand=True, nodes=nodes)
        if first or stage == "evaluate":  # other ranks write to the same files as rank 0, or only to their log
            rundir.check_links(run)
            if settings.data.shards is not None and stage in STAGES[1:]:
                from p2p_dist.data import transfer

                transfer.settle(run, settings.data.shards)
        if stage not in ("train", *CHECKS):  # these unblock the signals once their handlers are installed
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
        code = body(run, settings)
        outcome = {console.DONE: "done", console.STOPPED: "stopped"}.get(code, "failed")
    except KeyboardInterrupt:
        outcome, code, message = "stopped", console.STOPPED, "stopped between two songs or checkpoints"
    except (ValueError, FloatingPointError) as error:
        message = str(error)
        says = first or isinstance(error, files.DamagedError)  # only one rank sees it; the others lose the connection
    except ConnectionError as error:  # between the processes, not a fault of the run
        _lost(error)
    except OSError as error:
        message = console.describe(error)
    except rundir.SupersededError as error:
        console.complain(str(error))
        leave(console.CRASHED)
    except BaseException as error:
        # torch raises RuntimeError or subclasses of it for lost connections
        if isinstance(error, RuntimeError) and (type(error).__name__.startswith("Dist") or "gloo" in str(error)):
            _lost(error)
        traceback.print_exc()
        leave(console.CRASHED)
    _ignore_requests()  # signals that arrive now must not change the exit code
    if outcome == "failed" and message:
        console.complain(f"error: {message}")
    if owner is not None:
        starts.note_end(run.attempts(stage), rundir.attempt(), checkpoints.newest_step(run.checkpoints), code, outcome)
    if says:
        try:
            run.write_outcome(stage, outcome, message, checkpoints.newest_step(run.checkpoints) or None)
        except OSError as error:  # the exit code records it as well
            console.complain(f"warning: {console.describe(error)}")
    leave(code)


def _lost(error: Exception) -> NoReturn:
    """Report that another process of the training was lost. Its own log has the cause, so no traceback is printed here."""
    where = "; ".join(getattr(error, "__notes__", []))
    console.complain(
        f"{where or 'this process'}: lost the connection to the other processes ({str(error).splitlines()[0][:200]})"
    )
    leave(console.CRASHED)


def _interrupt(number: int, _: FrameType | None) -> None:
    """Stop a stage other than training at once, because it has nothing to save."""
    _ignore_requests()  # schedulers send more than one
    raise KeyboardInterrupt


def _ignore_requests() -> None:
    for number in (*ASKED, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def leave(code: int) -> NoReturn:
    """Flush the output and end this process with `code`, without waiting for threads or libraries."""
    _ignore_requests()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # disk full
            stream.flush()
    os._exit(code)


def _take_place_from_slurm() -> None:
    """Under srun, set RANK and the like from Slurm's variables of this task."""
    if "SLURM_PROCID" not in os.environ or "RANK" in os.environ:
        return
    os.environ["RANK"] = os.environ["SLURM_PROCID"]
    os.environ["WORLD_SIZE"] = os.environ.get("SLURM_STEP_NUM_TASKS", os.environ.get("SLURM_NTASKS", "1"))
    os.environ["LOCAL_RANK"] = os.environ["SLURM_LOCALID"]
    per_node = os.environ.get("SLURM_STEP_TASKS_PER_NODE", os.environ.get("SLURM_TASKS_PER_NODE", "1"))
    os.environ["LOCAL_WORLD_SIZE"] = per_node.split(",")[0].split("(")[0]


if __name__ == "__main__":
    linux.die_with_parent(signal.SIGTERM)
    run_stage(sys.argv[1], sys.argv[2])

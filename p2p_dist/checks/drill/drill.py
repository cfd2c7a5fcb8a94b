"""Run the drill on this machine: stop a small training in every way and compare it with one that was not stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from p2p_dist.checks.folder import check_folder
from p2p_dist.common import console, files
from p2p_dist.data import dataset as datasets
from p2p_dist.jobs import begin_run, child, example_song, fits, packages, site
from p2p_dist.run import metrics_file, rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import config, presets

STEPS, STEPS_ON_A_CLUSTER = 60, 400  # where GPUs may be quick, and Slurm takes a moment to answer

OTHER_WEIGHTS = "with other weights"


@dataclass(frozen=True)
class Way:
    """A way to stop a training. do: given its processes, the first of them the parent of all; wait: until when."""

    name: str
    do: Callable[[list[int]], None]
    in_a_save: bool = False


def drill(resources: config.Resources, processes: int, steps: int | None, songs: Path | None, patience: float) -> int:
    """Run the drill where `resources` say: on this machine, or as jobs of a cluster. Everything lies in `drill` of the runs.

    Args:
        processes: that train together on this machine. steps: of a training; None: as many as it takes.
        songs: a folder of songs; None: an example. patience: seconds to wait for a cluster, in all.

    Returns:
        exit code: 0 all came back exactly, 1 some did not.

    Raises:
        ValueError: a number of processes that can't share the batch, a package that jobs need is missing, Slurm would
            refuse the jobs, or another drill is queued or running.
    """
    resources = dataclasses.replace(resources, cluster=site.resolve(resources.cluster))
    if resources.cluster == "local" and processes not in (1, 2, 4):
        raise ValueError(f"--processes {processes}: the drill's global batch of 4 is shared by 1, 2 or 4")
    if resources.cluster == "local":
        packages.check_packages()
    if steps is not None and steps < 1:
        raise ValueError(f"--steps {steps}: at least 1")
    example = example_song.example_folder() if songs is None else None
    songs = songs or example_song.example_folder()
    if example is None:
        fits.check_training_songs(songs, split_by_title=False)
    if resources.cluster == "local":
        settings = settings_of(songs, steps or STEPS, dataclasses.replace(resources, nodes=processes), 4)
        with check_folder("drill", example):
            return drill_here(settings, songs)
    from p2p_dist.checks.drill import drill_on_slurm

    place = site.load(resources.cluster, resources.site)
    world_size = resources.nodes * place.processes_per_node(resources)
    settings = settings_of(songs, steps or STEPS_ON_A_CLUSTER, resources, world_size)
    with check_folder("drill", example):
        return drill_on_slurm.drill_on_slurm(settings, songs, place, patience)


def settings_of(songs: Path, steps: int, resources: config.Resources, world_size: int) -> config.Config:
    """The settings of every training of a drill: so small that each takes seconds."""
    tiny = presets.preset("tiny")
    batch = max(tiny.train.global_batch_size, world_size)
    return dataclasses.replace(
        tiny,
        resources=resources,
        data=dataclasses.replace(tiny.data, root=str(songs)),
        evaluate=dataclasses.replace(tiny.evaluate, allow_overlap=True),  # of the example, which has one song
        train=dataclasses.replace(tiny.train, steps=steps, keep_every=1000, global_batch_size=batch),
    )


def drill_here(settings: config.Config, songs: Path) -> int:
    """Train once undisturbed and once for each way, on this machine; print a table.

    Returns:
        exit code: 0 all came back exactly, 1 some did not.
    """
    root = rundir.runs_root() / "drill"
    dataset = datasets.dataset_name(songs, settings.data)

    def begin(name: str) -> RunDir:
        run = RunDir(root / "runs" / name)
        begin_run.begin(run, settings, dataset)
        return run

    undisturbed = begin("undisturbed")
    for stage in ("preprocess", "train"):
        if _start(stage, undisturbed).wait() != console.DONE:
            raise OSError(f"{stage} failed without being disturbed: see {_log(undisturbed)}")
    console.say(f"undisturbed: {settings.train.steps} steps, {settings.resources.nodes} processes\n")
    rows = [("stopped by", "exit code", "went on from", "came back")]
    for number, way in enumerate(WAYS):
        rows.append(_disturb(way, begin(f"stopped-{number}"), undisturbed))
        console.say(f"{number + 1} of {len(WAYS)}: {way.name}: {rows[-1][-1]}")
    show(rows)
    console.say(f"\nlogs: {root}")
    return console.DONE if all(row[-1] == "exactly" for row in rows[1:]) else console.FAILED


def show(rows: list[tuple[str, str, str, str]]) -> None:
    """Print a Markdown table; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    rule = tuple("-" * width for width in widths)
    lines = [" | ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)) for row in (rows[0], rule, *rows[1:])]
    console.say("\n" + "\n".join(f"| {line} |" for line in lines))


def _disturb(way: Way, run: RunDir, undisturbed: RunDir) -> tuple[str, str, str, str]:
    """Train, stop half way, go on to the end; the row of the table."""
    process = _start("train", run)
    while process.poll() is None and not _is_time(way, run):
        time.sleep(0.002)
    way.do([process.pid, *_children(process.pid)])
    code = process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    before = saved(run)
    ended = _start("train", run).wait()
    if code == console.DONE:
        answer = "it ended too soon to be stopped"
    elif ended != console.DONE:
        answer = f"not at all: exit code {ended}, see {_log(run)}"
    else:
        answer = difference(run, undisturbed) or "exactly"
    return way.name, str(code), f"step {before}", answer


def difference(run: RunDir, other: RunDir) -> str | None:
    """What differs between two trainings: their last weights, their batches, what they left behind. None: nothing."""
    sums = []
    for each in (run, other):
        _, path = rundir.find_steps(each.checkpoints)[-1]
        sums.append((path.name, files.sha256_file(path / "state.pt"), files.sha256_file(path / "generator.safetensors")))
    batches = [[(row["step"], row["digests"]) for row in metrics_file.read(each)] for each in (run, other)]
    if batches[0] != batches[1]:
        return "with other batches" + (" and weights" if sums[0] != sums[1] else "")
    if sums[0] != sums[1]:
        return OTHER_WEIGHTS
    if left := list(run.path.rglob(f"{files.TEMPORARY}*")):
        return f"and left {left[0]} behind"
    return None


def _is_time(way: Way, run: RunDir) -> bool:
    steps = rundir.resolve(run).train.steps
    assert steps is not None
    if saved(run) < steps // 3:
        return False
    return not way.in_a_save or any(run.checkpoints.glob(f"{files.TEMPORARY}*"))


def saved(run: RunDir) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    return max((step for step, _ in rundir.find_steps(run.checkpoints)), default=0)


def _log(run: RunDir) -> Path:
    return run.logs / "drill.log"


def _start(stage: str, run: RunDir) -> subprocess.Popen[bytes]:
    """Start a stage as the launcher does, in a session of its own."""
    return child.start(stage, run, f"drill.{os.getpid()}.{time.monotonic_ns()}", _log(run))


def _children(process: int) -> list[int]:
    try:
        return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def _send(number: int, *places: int, times: int = 1) -> Callable[[list[int]], None]:
    """Send a signal to some of the processes: 0 is the parent, -1 the last of those that train, none: all."""

    def do(processes: list[int]) -> None:
        for _ in range(times):
            for process in [processes[place] for place in places] or processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)

    return do


WAYS = (
    Way("a request to stop (TERM), twice", _send(signal.SIGTERM, 0, times=2)),
    Way("a preemption (USR2) that one process hears", _send(signal.SIGUSR2, -1)),
    Way(
        "TERM and USR2 to everything", lambda processes: (_send(signal.SIGTERM)(processes), _send(signal.SIGUSR2)(processes))[0]
    ),
    Way("one process killed", _send(signal.SIGKILL, -1)),
    Way("one process dies of a segmentation fault", _send(signal.SIGSEGV, -1)),
    Way("everything killed", _send(signal.SIGKILL)),
    Way("everything killed in the middle of a save", _send(signal.SIGKILL), in_a_save=True),
)
"""All that a scheduler, a person or a broken node does to a training, as far as one machine can tell."""

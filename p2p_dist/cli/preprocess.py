"""`preprocess`: songs to shards on this machine, or as a job array on Slurm."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from p2p_dist.audio import layouts
from p2p_dist.cli import command_line
from p2p_dist.common import console, linux
from p2p_dist.data import dataset as datasets
from p2p_dist.jobs.slurm import commands
from p2p_dist.run import rundir, snapshot
from p2p_dist.settings import config, presets
from p2p_dist.settings.config import Data

if TYPE_CHECKING:
    from p2p_dist.data import shards


@dataclass(frozen=True)
class Command:
    """Make the shards of a folder of songs. Typed again, it makes only what is missing.

    Exit code 0: all songs are in; 1: some were left out (each is named), or the machine refused; 2: wrong usage.
    """

    out: Path | None = None
    """folder of the shards (default: where submit looks for them); for several tasks, the folder of theirs"""
    preset: str = "default"
    """whose data settings to begin with: demo, tiny, small, default or thesis"""
    workers: int | None = None
    """processes (default: one a core)"""
    part: str | None = None
    """I/N: only every N-th song from the I-th (0 to N-1), no manifest; the same command without it merges"""
    verify: bool = False
    """make nothing: read everything in the folder again and name the first damaged shard and sample"""
    cluster: Literal["local", "slurm"] = "local"
    """this machine, or a job array"""
    array: int = 8
    """jobs of the array"""
    account: str | None = None
    """project that Slurm bills"""
    partition: str | None = None
    """partition of the jobs (on LUMI: small)"""
    time: str = "1:00:00"
    """time limit of each job"""
    data: Annotated[Data, tyro.conf.arg(name="data")] = dataclasses.field(default_factory=Data)

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be at least 1, not {self.workers}")
        if self.array < 1:
            raise ValueError(f"array must be at least 1, not {self.array}")
        config.seconds_of(self.time)
        _part(self.part)
        if self.part and (self.cluster == "slurm" or self.verify):
            raise ValueError("--part is for one of several commands that you start yourself: leave out --cluster and --verify")
        if self.out is not None and not self.out.name:
            raise ValueError("--out must name a folder below the root directory: choose one, or omit --out")


def _part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise ValueError(f"part {text!r}: write I/N with I from 0 to N-1, as 0/8")
    return int(number), int(count)


def main(arguments: list[str]) -> int:
    """Make or verify shards; the exit code."""
    command, tasks = parse(arguments)
    if command.verify and command.out is not None:
        return _verify(_made_in(command.out.expanduser().absolute()))
    root = command.data.root or os.environ.get("MUSDB_PATH")
    if root is None:
        raise ValueError("name the folder of songs with --data (or $MUSDB_PATH)")
    folder = Path(root).expanduser().absolute()
    settings = [dataclasses.replace(command.data, root=str(folder), task=task) for task in tasks]
    wanted = [(_folder(command.out, folder, data, alone=len(tasks) == 1), data) for data in settings]
    if command.verify:
        return _verify([out for out, _ in wanted])
    if command.cluster == "slurm":
        layouts.list_songs(folder, command.data.split_by_title)  # before anything waits in a queue for a folder that holds none
        return _queue(command, arguments, wanted[0][0].parent if len(wanted) > 1 else wanted[0][0])
    return _run(folder, wanted, command, console.again("preprocess", arguments))


def parse(arguments: list[str]) -> tuple[Command, list[str]]:
    """The settings, and the tasks to make of one decode: `--task drums,bass`, or `--task drums --task bass`.

    Raises:
        ValueError: an unknown preset or task, or a bad value.
        SystemExit: with 0, after --help.
    """
    named, rest = command_line.take(arguments, "--preset")
    base = presets.preset((named or ["default"])[-1]).data
    texts, rest = command_line.take(rest, "--task", "--data.task")
    tasks = [task.strip() for text in texts for task in text.split(",")] or [base.task]
    for task in tasks:
        config.parse_task(task)
    command = command_line.parse(Command, "preprocess", rest, Command(preset=(named or ["default"])[-1], data=base))
    return command, list(dict.fromkeys(tasks))


def _folder(out: Path | None, root: Path, data: Data, *, alone: bool) -> Path:
    if out is not None and alone:
        return out.expanduser().absolute()
    shelf = rundir.runs_root().parent / "shards" if out is None else out.expanduser().absolute()
    return shelf / datasets.dataset_name(root, data)


def _run(root: Path, wanted: list[tuple[Path, Data]], command: Command, again: str) -> int:
    from p2p_dist.data import shards

    made = 0
    with console.Progress("preprocess", 1, start=None) as progress:

        def on_song(done: int, total: int, result: shards.Result) -> None:
            nonlocal made
            made += 1
            if result.error is not None:
                console.complain(f"left out: {console.one_line(result.error)}")
            progress.total = total
            progress.update(done, result.note)

        workers = command.workers or linux.usable_cores()
        try:
            left_out = shards.preprocess_all(root, wanted, workers, on_song, _part(command.part))
        except KeyboardInterrupt:
            console.complain(f"stopped in order: the songs that are finished stay. To go on, type:\n  {again}")
            return console.STOPPED
    for out, _ in wanted:
        console.say(
            f"{'' if made else 'done already: '}{'part ' + command.part + ' of ' if command.part else ''}dataset: {out}"
        )
    if left_out:
        console.complain(f"{len(left_out)} songs left out:")
        for result in left_out:
            console.complain(f"  {console.one_line(f'{result.name}: {result.error}')}")
    return console.FAILED if left_out else console.DONE


def _made_in(out: Path) -> list[Path]:
    """The datasets that --out names: itself, or those of several tasks inside it, also such as are not finished."""
    from p2p_dist.data.worker import PARTS

    inside = sorted(path.parent for path in out.glob(f"*/{PARTS}"))
    return [out] if (out / PARTS).is_dir() or not inside else inside


def _verify(folders: list[Path]) -> int:
    from p2p_dist.data.verify import verify

    for folder in folders:
        try:
            with console.Progress("verify", 1) as progress:

                def on_shard(done: int, total: int, name: str, progress: console.Progress = progress) -> None:
                    progress.total = total
                    progress.update(done, name)

                samples = verify(folder, on_shard)
        except ValueError as error:
            console.complain(f"error: {error}")
            return console.FAILED
        console.say(f"{folder}: all {samples} samples are whole")
    return console.DONE


def _queue(command: Command, arguments: list[str], out: Path) -> int:
    """A job array that makes the parts, and a job after it that makes what they left and merges.

    Raises:
        OSError: there is no Slurm here, or it does not take a job.
    """
    import submitit

    for needed in ("sbatch", "srun"):  # without srun, submitit takes this for no cluster
        if shutil.which(needed) is None:
            raise FileNotFoundError(2, "no such command; is this a login node of the cluster?", needed)
    folder = out / "slurm"
    again = [sys.executable, "-m", "p2p_dist.cli.preprocess", *_here(arguments)]
    executor = submitit.SlurmExecutor(folder=folder)
    common: dict[str, Any] = {
        "time": command.time.rjust(4, "0"),
        "partition": command.partition,
        "account": command.account,
        "cpus_per_task": command.workers or 8,
        # The jobs import this very checkout, installed or not.
        "setup": [f"export PYTHONPATH={shlex.quote(str(snapshot.CHECKOUT))}${{PYTHONPATH:+:$PYTHONPATH}}"],
    }
    common = {name: value for name, value in common.items() if value is not None}
    executor.update_parameters(job_name="p2p-preprocess", array_parallelism=command.array, **common)
    parts = [[*again, "--part", f"{number}/{command.array}"] for number in range(command.array)]
    with _refusals(f"the {command.array} parts", folder), commands.submitting(*common):
        jobs = executor.map_array(run_command, parts)
    first = str(jobs[0].job_id).split("_")[0]
    # afterany: a part that was killed is finished by the merge.
    executor.update_parameters(
        job_name="p2p-merge", additional_parameters={"dependency": f"afterany:{first}"}, array_parallelism=1
    )
    taken_back = f"which are queued as job {first} (scancel {first} takes them back)"
    with _refusals(f"the merge behind the parts, {taken_back}", folder), commands.submitting(*common):
        merge = executor.submit(run_command, again)
    console.say(f"queued: {command.array} parts as job {first}, the merge as job {merge.job_id}; logs in {folder}")
    return console.DONE


@contextlib.contextmanager
def _refusals(what: str, folder: Path) -> Iterator[None]:
    """Let what Slurm says of a job that it does not take be one line, and of what was written for it nothing stay."""
    from submitit.core.utils import FailedJobError

    new = [path for path in (folder, *folder.parents) if not path.exists()]
    before = set(folder.glob("*"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except FailedJobError as error:
        for path in set(folder.glob("*")) - before:
            path.unlink()
        with contextlib.suppress(OSError):  # another has put something there
            for path in new:
                path.rmdir()
        lines = [line for line in str(error).splitlines() if "error" in line] or [str(error)]
        text = f"Slurm did not take {what} ({lines[-1].strip()}); see --account, --partition, --time and --array"
        raise OSError(5, text, "sbatch") from error


def _here(arguments: list[str]) -> list[str]:
    """The same command on the machine that a job runs on."""
    kept, skip = [], False
    for argument in arguments:
        name = argument.partition("=")[0].replace("_", "-")
        if not skip and name not in ("--cluster", "--array", "--account", "--partition", "--time"):
            kept.append(argument)
        skip = not skip and name in ("--cluster", "--array", "--account", "--partition", "--time") and "=" not in argument
    return kept


def run_command(command: list[str]) -> None:
    """In a job: become this command."""
    executable = shutil.which(command[0]) or command[0]
    os.execv(executable, command)


if __name__ == "__main__":
    console.exit_with(lambda: main(sys.argv[1:]))

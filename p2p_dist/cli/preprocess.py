"""The preprocess command: convert songs to shards on this machine, or in a job array on Slurm."""

from __future__ import annotations

import dataclasses
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from p2p_dist.audio import layouts
from p2p_dist.cli import command_line
from p2p_dist.common import console, files, linux
from p2p_dist.data import dataset as datasets
from p2p_dist.jobs import musdb_sample, packages, site
from p2p_dist.jobs.slurm import launch
from p2p_dist.run import rundir
from p2p_dist.settings import config, presets, values
from p2p_dist.settings.address import check_address
from p2p_dist.settings.config import Data, Resources, Where
from p2p_dist.settings.fields import SAYS_DEFAULT
from p2p_dist.settings.resources import Time
from p2p_dist.settings.values import Positive

if TYPE_CHECKING:
    from p2p_dist.data import shards


@dataclass(frozen=True)
class Command:
    """Preprocess a folder of songs to shards. If run again, it preprocesses only what is missing.

    Exit code 0: all songs are in the shards; 1: some were left out (each is named), or it failed; 2: wrong usage; 75: stopped.
    """

    out: Annotated[Path | None, SAYS_DEFAULT] = None
    """folder of the shards on this machine (default: where submit looks for them); for several tasks, its parent folder"""
    preset: str = "default"
    """preset of the data settings: demo, tiny, small, sketch, default, plain or thesis"""
    workers: Annotated[Positive | None, SAYS_DEFAULT] = None
    """number of processes (default: one per core)"""
    part: str | None = None
    """I/N: only every N-th song from the I-th (0 to N-1), without a manifest; the command without --part merges the parts"""
    verify: bool = False
    """only verify: read the whole folder and report the first damaged shard and sample"""
    convert: Path | None = None
    """only convert this finished dataset of an earlier version to the current index; runs that use it continue unchanged"""
    upload: str | None = None
    """afterwards, send the dataset to a folder, https://HOST/SET, or a command such as 'pipe:rclone rcat STORE:SET/{name}'"""
    where: Annotated[Where, tyro.conf.arg(name="")] = dataclasses.field(default_factory=lambda: Where(cluster="local"))
    array: Positive = 8
    """on Slurm: number of jobs in the array, which share the songs"""
    time: Annotated[Time | None, SAYS_DEFAULT] = None
    """on Slurm: time limit of each job (default: the site's preprocess_time)"""
    dry_run: bool = False
    """on Slurm: print the job scripts without queueing them"""
    data: Annotated[Data, tyro.conf.arg(name="data")] = dataclasses.field(default_factory=Data)

    def __post_init__(self) -> None:
        values.check(self)
        _part(self.part)
        if self.part and (self.where.cluster != "local" or self.verify):
            raise ValueError("--part is for one of several commands that you start yourself: omit --cluster and --verify")
        if self.upload is not None:
            check_address(self.upload, "--upload")
            if self.part or self.verify or self.where.cluster != "local":
                raise ValueError("--upload sends a finished dataset from this machine: omit --part, --verify and --cluster")
        if self.data.shards is not None:
            raise ValueError(
                "--data.shards names a finished dataset, which is not preprocessed: train on it with "
                f"{console.command('submit')} --data.shards {shlex.quote(self.data.shards)}; to make another one, name the "
                "folder of songs with --data; to verify one in a folder, name it with --verify --out"
            )
        if self.out is not None and not files.expanded(self.out).absolute().name:
            raise ValueError("--out must name a folder below the root directory: choose one, or omit --out")


def _part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise ValueError(f"part {text!r}: write I/N with I from 0 to N-1, as 0/8")
    return int(number), int(count)


def main(arguments: list[str]) -> int:
    """Make or verify shards; return the exit code."""
    command, tasks = parse(arguments)
    if command.convert is not None:
        return _convert(files.expanded(command.convert).absolute())
    if command.verify and command.out is not None:
        return _verify(_made_in(files.expanded(command.out).absolute()))
    root = command.data.root or os.environ.get("MUSDB_PATH")
    if not root:
        raise ValueError("name the folder of songs with --data (or $MUSDB_PATH)")
    folder = musdb_sample.fetch() if root == musdb_sample.NAME else files.expanded(root).absolute()
    settings = [dataclasses.replace(command.data, root=str(folder), task=task) for task in tasks]
    wanted = [(_folder(command.out, folder, data, alone=len(tasks) == 1), data) for data in settings]
    if command.verify:
        return _verify([out for out, _ in wanted])
    if site.resolve_cluster(command.where.cluster) != "local":
        layouts.list_songs(folder, command.data.split_by_title)  # raises an error before jobs are queued for an empty folder
        return _queue(command, wanted)
    if command.dry_run:
        raise ValueError("--dry-run shows the jobs of a cluster: name one with --cluster, such as --cluster slurm")
    if command.upload is not None and len(wanted) > 1:
        raise ValueError(f"--upload takes one dataset, and {len(wanted)} tasks make {len(wanted)}: name one --task at a time")
    code = _run(folder, wanted, command, console.again("preprocess", arguments))
    if command.upload is None:
        return code
    if code != console.DONE:
        console.complain(
            "not uploaded: the dataset is not complete; restore or remove the songs named above, then run this again"
        )
        return code
    return _upload(wanted[0][0], command.upload)


def parse(arguments: list[str]) -> tuple[Command, list[str]]:
    """Parse the settings and the tasks, which share one decode: `--task drums,bass`, or `--task drums --task bass`.

    Raises:
        ValueError: a preset or a task is unknown, or a value is invalid.
        SystemExit: with 0, after --help.
    """
    named, rest = command_line.take_option(arguments, "--preset")
    base = presets.preset((named or ["default"])[-1]).data
    if "" in command_line.take_option(rest, "--out")[0]:  # as a path it is the current folder
        raise ValueError("--out is empty: specify a folder, or omit --out")
    texts, rest = command_line.take_option(rest, "--task", "--data.task")
    tasks = [task.strip() for text in texts for task in text.split(",")] or [base.task]
    for task in tasks:
        config.parse_task(task)
    command = command_line.parse(Command, "preprocess", rest, Command(preset=(named or ["default"])[-1], data=base))
    return command, list(dict.fromkeys(tasks))


def _folder(out: Path | None, root: Path, data: Data, *, alone: bool) -> Path:
    if out is not None and alone:
        return files.expanded(out).absolute()
    shelf = rundir.runs_root().parent / "shards" if out is None else files.expanded(out).absolute()
    return datasets.finished(shelf, root, data) or shelf / datasets.dataset_name(root, data)


def _run(root: Path, wanted: list[tuple[Path, Data]], command: Command, again: str) -> int:
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
            from p2p_dist.data import shards  # needs numpy, which login nodes may not have

            left_out = shards.preprocess_all(root, wanted, workers, on_song, _part(command.part))
        except KeyboardInterrupt:
            console.complain(f"stopped cleanly: finished songs are kept. To resume, run:\n  {again}")
            return console.STOPPED
    for out, _ in wanted:
        console.say(
            f"{'' if made else 'already done: '}{'part ' + command.part + ' of ' if command.part else ''}dataset: {out}"
        )
    if left_out:
        console.complain(f"songs left out ({len(left_out)}):")
        for result in left_out:
            console.complain(f"  {console.one_line(f'{result.name}: {result.error}')}")
    return console.FAILED if left_out else console.DONE


def _upload(folder: Path, address: str) -> int:
    from p2p_dist.data.upload import upload

    with console.Progress("upload", 1) as progress:

        def on_file(done: int, total: int, name: str) -> None:
            progress.total = total
            progress.update(done, name)

        upload(folder, address, on_file)
    console.say(f"uploaded; to train on it, where it can be read: {console.command('submit')} --data.shards ADDRESS")
    return console.DONE


def _made_in(out: Path) -> list[Path]:
    """List the datasets in --out: itself, or those of several tasks inside it, also unfinished ones."""
    from p2p_dist.data.manifest import PARTS

    inside = sorted(path.parent for path in out.glob(f"*/{PARTS}"))
    return [out] if (out / PARTS).is_dir() or not inside else inside


def _verify(folders: list[Path]) -> int:
    from p2p_dist.data.verify import verify_dataset

    for folder in folders:
        try:
            with console.Progress("verify", 1) as progress:

                def on_shard(done: int, total: int, name: str, progress: console.Progress = progress) -> None:
                    progress.total = total
                    progress.update(done, name)

                samples = verify_dataset(folder, on_shard)
        except ValueError as error:
            console.complain(f"error: {error}")
            return console.FAILED
        console.say(f"{folder}: all {samples} samples are intact")
    return console.DONE


def _convert(folder: Path) -> int:
    from p2p_dist.data.earlier_versions import convert

    samples = convert(folder)
    console.say(f"{folder}: converted the index of its {samples} samples; shards and samples are unchanged")
    return console.DONE


def _queue(command: Command, wanted: list[tuple[Path, Data]]) -> int:
    """Queue an array of the preprocessing stage for each task."""
    if command.out is not None:
        shelf = rundir.runs_root().parent / "shards"
        raise ValueError(f"on a cluster shards are in {shelf}, where submit looks for them: omit --out, or set $P2P_RUNS")
    where = site.resolve_cluster(command.where.cluster)
    asked = command.where.from_any_folder()
    resources = Resources(**dataclasses.asdict(asked), workers=command.workers, preprocess_array=command.array)
    place = site.load_site(where, resources.site)
    place = dataclasses.replace(
        place.preprocessing_in(command.where.partition),
        preprocess_time=command.time or place.preprocess_time,
        preprocess_cores=command.workers or place.preprocess_cores,
    )
    packages.check_packages_anywhere(resources, place, where, only_note=command.dry_run)
    runs = launch.preprocessing([(out.name, data) for out, data in wanted], command.preset, resources)
    launch.queue_preprocessing(runs, place, dry_run=command.dry_run)
    return console.DONE

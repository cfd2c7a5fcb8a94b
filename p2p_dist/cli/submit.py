"""The submit command: resolve the settings, then run the stages on this machine or queue them on Slurm."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from p2p_dist import __version__
from p2p_dist.cli import command_line, sweep
from p2p_dist.common import console, files, yaml_file
from p2p_dist.jobs import begin_run, dry_run, example_song, fits, local, musdb_sample, packages, site, status, status_tables
from p2p_dist.jobs.slurm import chains, launch
from p2p_dist.run import rundir, snapshot
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import address, presets
from p2p_dist.settings.config import Config, Data, Resources
from p2p_dist.settings.fields import SAYS_DEFAULT
from p2p_dist.settings.resources import sizes_in_words, sizes_of


@dataclass(frozen=True)
class Command:
    """Preprocess songs, train, evaluate every checkpoint, write a page to listen to.

    Without --data it uses a 6-second example song. If run again, it continues where it stopped.
    """

    run: Annotated[str | None, SAYS_DEFAULT] = None
    """name of the run, a folder in ./runs or $P2P_RUNS (default: task and preset, such as drums-default)"""
    preset: Annotated[str | None, SAYS_DEFAULT] = None
    """demo, tiny, small (a CPU), sketch (drums, a CPU), default (GPUs), plain or thesis; default: demo, with --data default"""
    config: Path | None = None
    """YAML file with any of the settings; it overrides the preset, and flags override it"""
    dry_run: bool = False
    """print the stages, Slurm scripts, settings, disk space and maximum GPU-hours, without starting anything"""
    wait: bool = False
    """on Slurm: show the state of the jobs until the last one ends"""
    torchrun: bool = False
    """without Slurm: train on --nodes machines that share a file system; prints the torchrun command to run on each of them"""
    yes: bool = False
    """train without GPUs on a cluster that has GPUs, if the site's file requests none"""
    sweep: tuple[str, ...] = ()  # only for --help: sweep.split removes it from the command line
    """one run for each combination of values: train.seed=0,1,2 train.learning-rate=1e-4,2e-4"""
    settings: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def main(arguments: list[str]) -> int:
    """Start or resume a run; return the exit code."""
    if "--version" in arguments:
        console.say(f"p2p_dist {__version__}")
        return console.DONE
    rest, swept = sweep.split(arguments)
    command, run = parse(rest)
    where = site.resolve_cluster(command.settings.resources.cluster)
    lines = sweep.combinations(rest, swept, run.name) if swept else [rest]
    launches = [parse(line) for line in lines] if swept else [(command, run)]
    check_known(rest, [run for _, run in launches])
    for one, _ in launches:
        check_place(one, where)
        if one.torchrun and where != "local":
            raise ValueError("--torchrun is for machines without Slurm: add --cluster local, or omit --torchrun")
        if one.torchrun and one.settings.resources.least_nodes is not None:
            raise ValueError("--torchrun starts the training on a fixed number of machines: name one number with --nodes")
    launches = [(with_sample(one), run) for one, run in launches]
    if command.dry_run:
        dry_run.dry_run(
            [(run, one.settings, example_song.known_dataset(run, one.settings.data)) for one, run in launches], where
        )
        return console.DONE
    code = on_this_machine(launches, lines, where) if where == "local" else on_slurm(launches, where)
    if swept:
        status_tables.show_all(status.gather_each([run for _, run in launches if run.config.is_file()]))
    return code


def with_sample(command: Command) -> Command:
    """Return a command whose data is `musdb7s` with the folder of that sample, which is fetched first unless for a dry run.

    Raises:
        ValueError: a dry run, and it is not there. OSError: see `musdb_sample.fetch`.
    """
    if command.settings.data.root != musdb_sample.NAME:
        return command
    folder = musdb_sample.sample_folder()
    if not command.dry_run:
        folder = musdb_sample.fetch()
    elif not musdb_sample.is_there(folder):
        raise ValueError(f"{musdb_sample.NAME} is not in {folder} yet, and a dry run fetches nothing: omit --dry-run")
    return dataclasses.replace(command, settings=presets.with_values(command.settings, {"data.root": str(folder)}))


def on_this_machine(launches: list[tuple[Command, RunDir]], lines: list[list[str]], where: str) -> int:
    """Run the stages of the launches one after the other; return the worst exit code.

    Args:
        lines: the command line of each, for the message how to continue.
    """
    for command, run in launches:
        place, dataset = (
            site.load_site(where, command.settings.resources.site),
            example_song.known_dataset(run, command.settings.data),
        )
        settings = begin_run.check_begin(run, command.settings, dataset)
        if command.torchrun:  # this machine is one of them
            fits.check_batch(settings.resources, settings.train.global_batch_size, place, begun=run.config.is_file())
            settings = presets.with_values(settings, {"resources.nodes": 1})
        for note in fits.check(run, settings, place, where, dataset):
            console.say(f"note: {note}")
    code = console.DONE
    for (command, run), line in zip(launches, lines, strict=True):
        dataset = example_song.lay_out(run, command.settings.data)
        begin_run.check_begin(run, command.settings, dataset)
        with contextlib.closing(rundir.lock_run(run)) as owner:
            settings = begin(run, command.settings, dataset)
            if settings.resources.evaluate == "during" or settings.resources.evaluate_array:
                console.say(
                    "note: on one machine stages run one after the other, so checkpoints are evaluated after the training"
                )
            if settings.resources.preprocess_array:
                console.say("note: one machine preprocesses with --workers processes, not with an array of jobs")
            if settings.resources.least_nodes is not None:
                typed = sizes_in_words(settings.resources.sizes)
                console.say(f"note: --nodes {typed}: on one machine, the training starts with {settings.resources.nodes}")
            if settings.resources.max_gpu_hours is not None:
                console.say("note: --max-gpu-hours has no effect on one machine, where nothing is billed")
            torchrun = torchrun_command(run, settings.resources) if command.torchrun else None
            again = console.again("submit", line)
            code = max(code, local.run(run, settings.resources.max_crash_restarts, owner, again, torchrun))
        if code in (console.STOPPED, console.INTERRUPTED):  # Ctrl-C stops all of them
            break
    return code


def torchrun_command(run: RunDir, resources: Resources) -> str:
    """Return the command that trains a run on several machines, to be run on each of them. HOST stands for the first one."""
    place = site.load_site("local", resources.site)
    per_node = "gpu" if resources.processes_per_node is None and fits.has_gpu() else place.processes_per_node(resources)
    return (
        f"torchrun --nnodes {resources.nodes} --nproc-per-node {per_node} --rdzv-backend c10d --rdzv-endpoint HOST:29500 "
        f"--rdzv-id {shlex.quote(run.name)} -m p2p_dist.jobs.stage_process train {shlex.quote(str(run.path))}"
    )


def on_slurm(launches: list[tuple[Command, RunDir]], where: str) -> int:
    """Queue the jobs of the launches, all or nothing, and wait for them with --wait.

    Raises:
        ValueError: one of them would be refused, or all together exceed the site's limits; nothing was started.
    """
    launch.check_launches(
        [(run, command.settings, example_song.known_dataset(run, command.settings.data)) for command, run in launches], where
    )
    with contextlib.ExitStack() as locks:
        begun = []
        for command, run in launches:
            dataset = example_song.lay_out(run, command.settings.data)
            # Also while it queues jobs: two launchers at once would queue each job twice.
            locks.enter_context(contextlib.closing(rundir.lock_run(run)))
            settings = begin(run, command.settings, dataset)
            begun.append((run, settings, site.load_site(where, settings.resources.site)))
        chains.queue(begun, console.again("status", [run.name for _, run in launches]))
    code = console.DONE
    for command, run in launches:
        if command.wait:
            if len(launches) > 1:
                console.say(f"run {run.name}:")
            code = max(code, launch.wait(run))
    return code


def begin(run: RunDir, wanted: Config, dataset: str) -> Config:
    """Create or continue a run and print which; return the settings to run with. See `begin_run.begin`."""
    settings = begin_run.begin(run, wanted, dataset)
    console.say(f"run {run.name}: {run.path}")
    if snapshot.differs(run.code):
        console.say(
            f"the code changed since this run started; the run continues with its own copy (remove {run.code} "
            "to use the current code)"
        )
    return settings


def parse(arguments: list[str]) -> tuple[Command, RunDir]:
    """Convert a command line to settings: defaults < preset < YAML file < flags; a run that exists is its own preset.

    Raises:
        ValueError: an unknown preset, a bad value or file.
        SystemExit: with 0, after --help.
    """
    arguments = with_sizes(arguments)
    typed = flags(arguments)
    folder, elsewhere, named = typed.get("data", typed.get("data.root")), typed.get("data.shards"), typed.get("preset")
    if folder == "":
        raise ValueError("--data is empty: specify the folder of songs, or omit --data to use the example")
    if folder and elsewhere:
        raise ValueError("--data names songs and --data.shards a finished dataset: omit one of them")
    data = {name.removeprefix("data."): value for name, value in typed.items() if name.startswith("data.") or name == "task"}
    usual = "default" if folder or elsewhere or os.environ.get("MUSDB_PATH") else "demo"
    if (file := typed.get("config")) is not None:
        path = Path(file)
        if not path.is_file():
            raise ValueError(f"no file {file or repr(file)}: --config names a YAML file of settings")
        if names_songs(path, typed=bool(folder or elsewhere)):
            usual = "default"
        base = presets.from_yaml(path, usual if named is None else named, data)
        check_command_is_ours(path, base)
        if named and base.preset != named:
            raise ValueError(f"--preset {named}, but {path} names the preset {base.preset}: omit one of them")
    else:
        base = presets.for_data(usual if named is None else named, data)
    own = not named and not file
    begun = typed.get("run") if own else None
    if begun and (there := rundir.find(begun).config).is_file():
        base, own = presets.from_saved(there), False
    command = _parse_over(base, arguments)
    run = rundir.find(rundir.default_name(command.settings) if command.run is None else command.run)
    if own and run.config.is_file():  # by the name that the settings give it
        command = _parse_over(presets.from_saved(run.config), arguments)
    changed = where_data_is(command.settings.data, songs_typed=bool(folder))
    example = str(example_song.example_folder())
    if changed["data.root"] == example:  # its training and test songs have the same audio
        changed["evaluate.allow_overlap"] = True
    settings = presets.with_values(command.settings, changed)
    return dataclasses.replace(
        command, settings=dataclasses.replace(settings, resources=settings.resources.from_any_folder())
    ), run


def names_songs(path: Path, *, typed: bool) -> bool:
    """Whether a file of settings names songs or a finished dataset.

    Args:
        typed: whether the command line names either, in place of the file's.

    Raises:
        ValueError: the folder of songs is empty, or the file names both. Other errors are found when it is read as a whole.
    """
    content = yaml_file.read_yaml(path)
    data = content.get("data") if isinstance(content, dict) else None
    root, shards = (data.get("root"), data.get("shards")) if isinstance(data, dict) else (None, None)
    if root == "" and not typed:
        raise ValueError(
            f"{path}: data.root is empty: name the folder of your songs, or remove data.root to train on the example song"
        )
    if root and shards and not typed:
        raise ValueError(f"{path}: data.root names songs and data.shards a finished dataset: omit one of them")
    return bool(root or shards)


def with_sizes(arguments: list[str]) -> list[str]:
    """Return a command line with `--nodes 1-4` as the options of its two settings. A number alone ends an earlier range.

    Raises:
        ValueError: a range that can't be.
    """
    typed, rest = command_line.take_option(arguments, "--nodes")
    if not typed:
        return arguments
    most, least = sizes_of(typed[-1]) if "-" in typed[-1] else (typed[-1], None)
    if least is not None and "least_nodes" in flags(rest):
        raise ValueError(f"--nodes {typed[-1]} sets the least number of nodes, too: omit --least-nodes")
    ends = ["--least-nodes", str(least)] if least is not None or "least_nodes" not in flags(rest) else []
    return [*rest, "--nodes", str(most), *ends]


def where_data_is(data: Data, *, songs_typed: bool) -> dict[str, Any]:
    """Return the settings that name the songs or the finished dataset, which jobs find from any folder.

    Args:
        songs_typed: whether the command line names songs, so that they take the place of a dataset in a file.
    """
    if data.shards is not None and not songs_typed:
        is_folder = address.scheme(data.shards) is None
        return {"data.root": None, "data.shards": str(files.expanded(data.shards).absolute()) if is_folder else data.shards}
    root = data.root or os.environ.get("MUSDB_PATH")
    if root == musdb_sample.NAME:  # `main` fetches it
        return {"data.root": root, "data.shards": None}
    return {
        "data.root": str(files.expanded(root).absolute() if root else example_song.example_folder()),
        "data.shards": None,
    }


def check_command_is_ours(path: Path, settings: Config) -> None:
    """Check that a file of settings names no command, and no variable to be sent, that another user may have written.

    Raises:
        ValueError: it does.
    """
    if settings.data.shards is None or not address.acts_here(settings.data.shards):
        return
    if why := files.not_only_ours(path.resolve()):
        raise ValueError(
            f"{path} {why}, and its data.shards is a command or contains variables of the environment: read it, then give it "
            "with --data.shards instead"
        )


def check_known(arguments: list[str], runs: list[RunDir]) -> None:
    """Check that the named runs exist, unless the command line creates them.

    Raises:
        ValueError: one does not exist; the message lists those that do.
    """
    typed = flags(arguments)
    if "run" not in typed or typed.keys() & {"data", "data.root", "data.shards", "preset", "config"}:
        return
    for run in runs:
        if run.config.is_file():
            continue
        name, root, names = run.name, rundir.runs_root(), rundir.names()
        listed = ", ".join([*names[:20], *(["..."] if names[20:] else [])])
        raise ValueError(
            f"no run {name} in {root}"
            + console.did_you_mean(name, names, 0.5)
            + (f"\nthere are: {listed}" if names else ", nor any other run; set $P2P_RUNS to use another folder")
            + "\nto start a new run with this name, add --data DIR, or --preset demo for the example song"
        )


def flags(arguments: list[str]) -> dict[str, str]:
    """Map the flags of a command line, without dashes and by tyro's names -> values; flags without a value are omitted."""
    found = {}
    for text, following in itertools.pairwise([*arguments, "--"]):
        name, equals, value = text.partition("=")
        if name.startswith("--") and (equals or not following.startswith("--")):
            found[name.removeprefix("--").replace("-", "_")] = value if equals else following
    return found


def _parse_over(base: Config, arguments: list[str]) -> Command:
    base = presets.with_flags(base, flags(arguments))
    command = command_line.parse(Command, "submit", arguments, Command(settings=base))
    assert isinstance(command, Command)
    return command


def check_place(command: Command, where: str) -> None:
    """Check that the site's GPUs are requested, and that all packages of the stages are installed.

    Raises:
        ValueError: they are not; the message says what to name or to install.
    """
    settings = command.settings
    place = site.load_site(where, settings.resources.site)
    if where == "slurm" and not command.yes:
        launch.check_gpus(settings.resources, place)
    packages.check_packages_anywhere(
        settings.resources, place, where, packages.extras_of(settings.train), only_note=command.dry_run
    )

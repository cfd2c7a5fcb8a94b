"""The launcher: settle the settings, then run the stages here or queue them on Slurm."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
import os
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from p2p_dist import __version__, console, files, presets, provenance, rundir, songs
from p2p_dist.config import Config
from p2p_dist.jobs import chain, local, site, slurm, stages, status
from p2p_dist.rundir import RunDir


@dataclass(frozen=True)
class Command:
    """Preprocess songs, train, evaluate every checkpoint, write a page to listen to.

    Without --data a 6-second example song shows the way. Typed again, it goes on where it stopped.
    """

    run: str | None = None
    """name of the run, a folder in ./runs or $P2P_RUNS (default: task and preset)"""
    preset: str | None = None
    """demo, tiny, small (a CPU), default (GPUs) or thesis (default: demo without --data, default with it)"""
    config: Path | None = None
    """YAML file with any part of the settings; over the preset, under the flags"""
    dry_run: bool = False
    """print the stages, the Slurm scripts, the settings and the most GPU-hours they can take; start nothing"""
    wait: bool = False
    """on Slurm: stay and say how the jobs are until the last has ended"""
    sweep: tuple[str, ...] = ()
    """one run for each combination of values: train.seed=0,1,2 train.learning-rate=1e-4,2e-4"""
    settings: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def main(arguments: list[str]) -> int:
    """What `launch/submit.py` does; its exit code."""
    if "--version" in arguments:
        console.say(f"p2p_dist {__version__}")
        return console.DONE
    command, run = parse(arguments)
    where = site.resolve(command.settings.resources.cluster)
    if command.sweep:
        return sweep(combinations(arguments, command.sweep, run.path.name), command, where)
    example = example_folder()
    root = Path(command.settings.data.root or example)
    if command.dry_run:
        dry_run(run, command.settings, where, None if root == example else root)
        return console.DONE
    if where == "local":
        check_packages()
    if root == example:
        lay_out_example(example)
    dataset = rundir.dataset_name(root, command.settings.data)
    place = site.load(where, command.settings.resources.site)
    # While it queues, too: two launchers at once would queue everything twice.
    owner = rundir.own(run)
    settings = rundir.begin(run, command.settings, dataset)
    console.say(f"run {run.path.name}: {run.path}")
    if provenance.code_differs(run.code):
        console.say(f"the code changed since this run began; it goes on with its own copy (remove {run.code} to take today's)")
    if where == "local":
        if settings.resources.evaluate == "during" or settings.resources.evaluate_array:
            console.say("note: one machine does one stage after the other, so checkpoints are evaluated after the training")
        return local.run(run, settings, owner, again(arguments))
    code = slurm.queue(run, settings, place, again([run.path.name]).replace("submit.py", "status.py"))
    owner.close()
    return slurm.wait(run) if command.wait else code


def sweep(lines: list[list[str]], command: Command, where: str) -> int:
    """Launch the runs of a sweep, one after the other, then show them in one table; the worst of their exit codes.

    Raises:
        ValueError: all of them together are more than the site takes; before anything is begun.
    """
    parsed = [parse(line) for line in lines]
    if where != "local":
        one, run = parsed[0]
        place = site.load(where, one.settings.resources.site)
        chain.check_limits(chain.jobs(run, one.settings, place), place, len(lines))
    code = console.DONE
    for line in lines:
        code = max(code, main(line))
        if code in (console.STOPPED, console.INTERRUPTED):  # a Ctrl-C is for all of them
            break
    if not command.dry_run:
        status.show_all([status.gather(run) for _, run in parsed if run.config.is_file()])
    return code


def again(arguments: list[str]) -> str:
    """The command to go on with, to be pasted where this one was typed."""
    program = Path(sys.argv[0]).as_posix() if sys.argv[0].endswith("submit.py") else "launch/submit.py"
    python = os.path.relpath(sys.executable) if Path(sys.executable).is_relative_to(Path.cwd()) else sys.executable
    places = [f"{name}={shlex.quote(os.environ[name])}" for name in ("P2P_RUNS", "MUSDB_PATH") if os.environ.get(name)]
    return " ".join([*places, shlex.join([python, program, *arguments])])


def combinations(arguments: list[str], sweep: tuple[str, ...], name: str) -> list[list[str]]:
    """The command lines of a sweep: one for each combination, its values as flags and in the name of its run.

    Raises:
        ValueError: not `key=value,value`, a key twice, or a setting or value that is refused; before anything is begun.
    """
    keys, values = [], []
    for part in sweep:
        key, equals, listed = part.partition("=")
        if not equals or not all(listed.split(",")) or key in keys:
            raise ValueError(f"--sweep {part}: write each setting once, as in train.seed=0,1,2")
        keys.append(key)
        values.append(listed.split(","))
    begin = arguments.index("--sweep")
    end = next((i for i in range(begin + 1, len(arguments)) if arguments[i].startswith("--")), len(arguments))
    rest = arguments[:begin] + arguments[end:]
    found = []
    for chosen in itertools.product(*values):
        words = [f"{key.rsplit('.', 1)[-1]}-{value}" for key, value in zip(keys, chosen, strict=True)]
        flags = [text for key, value in zip(keys, chosen, strict=True) for text in (f"--{key}", value)]
        found.append([*rest, *flags, "--run", "-".join([name, *words])])
        parse(found[-1])
    return found


def parse(arguments: list[str]) -> tuple[Command, RunDir]:
    """Command line to settings: defaults < preset < YAML file < flags; a run that exists is its own preset.

    Raises:
        ValueError: an unknown preset, a bad value or file.
        SystemExit: with code 2 for an unknown option (tyro says which was meant), with 0 after --help.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--preset", "--config", "--data"):
        early.add_argument(name, nargs="?")
    early.add_argument("--data.root", dest="data", nargs="?")
    hints = early.parse_known_args(arguments)[0]
    if hints.data == "":
        raise ValueError("--data is empty: name the folder of songs, or leave --data out for the example")
    songs = hints.data or os.environ.get("MUSDB_PATH")
    if hints.config:
        path = Path(hints.config)
        if not path.is_file():
            raise ValueError(f"no file {path}: --config names a YAML file of settings")
        base = presets.from_yaml(path, hints.preset or ("default" if songs else "demo"))
        if hints.preset and base.preset != hints.preset:
            raise ValueError(f"--preset {hints.preset}, but {path} names the preset {base.preset}: leave one of them out")
    else:
        base = presets.preset(hints.preset or ("default" if songs else "demo"))
    command = _parse_over(base, arguments)
    run = rundir.find(command.run or rundir.default_name(command.settings))
    if run.config.is_file() and not hints.preset and not hints.config:
        command = _parse_over(presets.from_yaml(run.config), arguments)
    if root := command.settings.data.root or os.environ.get("MUSDB_PATH"):
        data = dataclasses.replace(command.settings.data, root=str(Path(root).expanduser().absolute()))
    else:
        data = dataclasses.replace(command.settings.data, root=str(example_folder()))
    settings = dataclasses.replace(command.settings, data=data)
    if (named := settings.resources.site) is not None:  # found again from any folder
        named = str(Path(named).expanduser().absolute())
        settings = dataclasses.replace(settings, resources=dataclasses.replace(settings.resources, site=named))
    return dataclasses.replace(command, settings=settings), run


def _parse_over(base: Config, arguments: list[str]) -> Command:
    return tyro.cli(Command, prog="launch/submit.py", args=arguments, default=Command(settings=base))


def example_folder() -> Path:
    """Where the example song is laid out as a MUSDB18 of one song: beside the runs."""
    return rundir.runs_root().parent / "songs" / "falcon69"


def lay_out_example(folder: Path) -> None:
    """Copy the example song into train/ and test/ of `folder`: the same sound for both.

    Raises:
        ValueError: stempeg, which ships it, is not installed.
    """
    song = songs.excerpt_file()
    for split in ("train", "test"):
        target = folder / split / song.name
        if not target.is_file() or target.stat().st_size != song.stat().st_size:
            files.write_bytes(target, song.read_bytes())


def check_packages() -> None:
    """Make sure that what the stages import is installed, before anything starts.

    Raises:
        ValueError: names what is missing, and how to install it.
    """
    needed = ("torch", "numpy", "scipy", "av", "soxr", "soundfile", "webdataset", "musdb", "mir_eval", "jinja2", "matplotlib")
    if missing := [name for name in (*needed, "safetensors") if importlib.util.find_spec(name) is None]:
        raise ValueError(
            f"to run here, these packages are missing: {', '.join(missing)}; 'make install' makes an environment with them, "
            "or: python -m pip install -c constraints.txt -e '.[run]'"
        )


def dry_run(run: RunDir, settings: Config, where: str, songs: Path | None) -> None:
    """Print what a start would do. Reads, and writes nothing.

    Raises:
        ValueError: the songs or the saved settings do not fit.
    """
    begun = run.config.is_file()
    if songs is not None:
        dataset = rundir.dataset_name(songs, settings.data)
        console.say(f"# songs: {songs}\n# shards: {dataset}")
    if begun and (changed := presets.differences(presets.from_yaml(run.config), settings)):
        raise ValueError(f"the run {run.path.name} was begun with other settings: {'; '.join(changed)}")
    console.say(f"# run: {run.path}")
    for stage in stages.STAGES:
        done = stages.is_done(stage, run) if begun else None
        console.say(f"# {stage}: " + (f"done already ({done})" if done else "to do"))
    if where == "local":
        console.say(
            "# no Slurm here: these stages would run on this machine; with --cluster slurm these scripts would be queued:"
        )
    place = site.load("slurm" if where == "local" else where, settings.resources.site)
    queueing = chain.jobs(run, settings, place)
    chain.check_limits(queueing, place)
    for job in queueing:
        console.say(f"\n##### {job.stage}.sh\n{job.script()}")
    console.say(f"\n##### config.yaml\n{presets.to_yaml(settings)}")
    hours = chain.gpu_hours(settings, place)
    console.say(f"# at most {hours:.1f} GPU-hours of training, over all {settings.resources.max_requeues} requeues")

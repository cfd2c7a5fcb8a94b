"""The generate command: a new stem for songs of any format, with a trained model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from p2p_dist.cli import command_line
from p2p_dist.common import console, files
from p2p_dist.generate import drummer_record, exported_config, request
from p2p_dist.generate.exported_config import CONFIG, DRUMMER, WEIGHTS
from p2p_dist.generate.request import Options, Song
from p2p_dist.jobs import packages, site
from p2p_dist.jobs.slurm import launch
from p2p_dist.run import checkpoints, rundir
from p2p_dist.settings import values
from p2p_dist.settings.config import Config, Model, Resources, Where
from p2p_dist.settings.fields import SAYS_DEFAULT
from p2p_dist.settings.resources import Time
from p2p_dist.settings.values import NotNegativeNumber, Positive, within


@dataclass(frozen=True)
class Command:
    """Generate a new stem for songs: drums for a song without drums, or whatever the model was trained for.

    Exit code 0: all songs are done; 1: some were left out (each is named), or it failed; 2: wrong usage; 75: stopped.
    """

    songs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="SONG")] = ()
    """audio files, videos, or folders of them"""
    model: Annotated[str | None, SAYS_DEFAULT] = None
    """RUN (its best checkpoint), RUN@STEP, a folder made by export, or starter, the model that comes with the package
    (default: the newest run that is not a demo, else starter)"""
    out: Annotated[Path | None, SAYS_DEFAULT] = None
    """output folder (default: generated/SONG); for several songs, the folder that holds one folder per song"""
    level: Annotated[float, within(-60, 40, " dB")] = 0.0
    """gain of the stem relative to the level that the model predicts, dB"""
    seed: Annotated[int, within(0, 2**31 - 1)] = 0
    """seed of the random choices that vary the result; each further take uses the next seed"""
    takes: Annotated[int, within(1, 100)] = 1
    """number of variants of each song, each a separate stem"""
    begin: Annotated[NotNegativeNumber, tyro.conf.arg(name="from")] = 0.0
    """start of the part of each song to use, seconds"""
    end: Annotated[NotNegativeNumber | None, tyro.conf.arg(name="to", help_behavior_hint="")] = None
    """end of that part, seconds (default: the end of the song)"""
    format: Literal["flac", "wav", "mp3", "ogg"] = "flac"
    """file format of stem and mix: flac, wav, mp3 or ogg"""
    bpm: Annotated[Annotated[float, within(30, 300, " beats a minute")] | None, SAYS_DEFAULT] = None
    """tempo in beats per minute, fitted to the song by up to 0.5 percent, for a model with a sketch (default: the detected
    tempo); the next three need a sketch, too"""
    first_beat: NotNegativeNumber | None = None
    """time of any one beat, seconds from the start of the song"""
    half_beat: bool = False
    """move all beats by half a beat, if the drums are on the off-beats"""
    density: Annotated[Annotated[float, within(0.05, 4)] | None, SAYS_DEFAULT] = None
    """number of strokes per second, relative to the training songs (default: 0.95)"""
    overwrite: bool = False
    """generate again what already exists"""
    where: Annotated[Where, tyro.conf.arg(name="")] = dataclasses.field(default_factory=lambda: Where(cluster="local"))
    array: Positive = 8
    """on Slurm: number of jobs in the array, which share the songs"""
    time: Annotated[Time | None, SAYS_DEFAULT] = None
    """on Slurm: time limit of each job (default: the site's evaluate_time)"""
    dry_run: bool = False
    """on Slurm: print the job script without queueing it"""

    def __post_init__(self) -> None:
        values.check(self, "--", request.option_of)
        if self.end is not None and self.end <= self.begin:
            raise ValueError(f"--to must be more seconds than --from {self.begin:g}, not {self.end:g}")

        if self.first_beat is not None and self.first_beat < self.begin:
            raise ValueError(f"--first-beat must be at or after --from {self.begin:g}, not {self.first_beat:g}")

    def options(self) -> Options:
        """Return the options for each song."""
        return Options(
            self.level,
            self.seed,
            self.takes,
            self.begin,
            self.end,
            self.format,
            self.bpm,
            self.first_beat,
            self.half_beat,
            self.density,
        )

    def check_fits(self, model: Model) -> None:
        """Check that the options are for a model with these settings.

        Raises:
            ValueError: the model hears no beats. The message names the option.
        """
        of_a_sketch = ("bpm", "first_beat", "half_beat", "density")
        given = [name for name in of_a_sketch if getattr(self, name) is not None and getattr(self, name) is not False]
        named = [f"--{request.option_of(name)}" for name in given]
        if named and not model.sketch:
            raise ValueError(f"{named[0]} is for models with a sketch (model.sketch), which play to beats: leave it out")


def main(arguments: list[str]) -> int:
    """Make the stems; return the exit code."""
    if any(word.partition("=")[0] in ("--task", "--data.task") for word in arguments):
        train = f"{console.command('submit')} --task bass --data DIR"
        raise ValueError(
            f"--task is for training: a model makes what it was trained for, and the starter makes drums; for others train one "
            f"({train}), and name it with --model"
        )
    command = command_line.parse(Command, "generate", arguments)
    if any(not word or (word.startswith("--") and word.endswith("=")) for word in arguments):
        # As a path it is the current folder, and all songs in it.
        raise ValueError('a name is empty, as "$SONG" is where the shell has no such variable: name a file or folder')
    if not command.songs:
        raise ValueError(f"name a song: {console.command('generate')} SONG")
    out = None if command.out is None else files.expanded(command.out)
    found = request.find([files.expanded(song) for song in command.songs], out)
    files.check_can_be_written(found[0].place.record)
    if site.resolve_cluster(command.where.cluster) != "local":
        return _queue(command, found)
    if command.dry_run:
        raise ValueError("--dry-run shows the jobs of a cluster: name one with --cluster, such as --cluster slurm")
    return _make(command, found, console.again("generate", arguments))


def _queue(command: Command, found: list[Song]) -> int:
    """Queue an array of jobs that share the songs that are not done."""
    model, options = _find(command.model), command.options()
    settings, sha256 = model.settings, model.sha256
    command.check_fits(settings.model)
    console.say(f"model: {model.name}, trained {model.step} steps to make {request.stem_name(settings.data.task)}")
    left, whys = [], []
    for one in found:
        source, folder = one.source.absolute(), one.place.folder.absolute()
        if any(request.plain(str(path)) != str(path) for path in (source, folder)):
            whys.append(f"{source}: jobs can only open files whose names are UTF-8: rename it")
            continue
        try:
            takes = request.planned(one.place, settings.data.task, options)
            identity = request.requested(source, sha256, options, model.drummer)
            if command.overwrite or not request.is_made(one.place, identity, takes):
                left.append({"source": str(source), "folder": str(folder), "name": one.place.name})
        except ValueError as error:
            whys.append(str(error))
    for why in whys:
        console.complain(f"left out: {console.one_line(why)}")
    if left:
        asked = {
            "songs": left,
            "model": model.asked,
            "sha256": sha256,
            "drummer": model.drummer,
            "options": options.recorded(),  # without later ones at their defaults: the same run as with an earlier version
            "overwrite": command.overwrite,
        }
        where = command.where.from_any_folder()
        array = min(command.array, len(left))
        resources = Resources(**dataclasses.asdict(where), evaluate="never", evaluate_array=array)
        cluster = site.resolve_cluster(where.cluster)
        place = site.load_site(cluster, resources.site)
        place = dataclasses.replace(place, evaluate_time=command.time or place.evaluate_time)
        packages.check_packages_anywhere(resources, place, cluster, only_note=command.dry_run)
        # The same songs, asked for in the same way, are the same run.
        everything = [
            model.name,
            *([] if model.asked == model.name else [sha256]),
            *([] if model.drummer is None else [model.drummer]),
            asked["options"],
            *sorted(str(one.place.record.absolute()) for one in found),
        ]
        run = rundir.find(f"generate-{files.digest(everything)[:12]}")
        wanted = dataclasses.replace(settings, data=dataclasses.replace(settings.data, root=None), resources=resources)
        folders = {Path(one["source"]).parent for one in left} | {_there(Path(one["folder"])) for one in left}
        if model.folder is not None:  # a hub's cache holds links to files elsewhere
            folders |= {(model.folder / name).resolve().parent for name in (CONFIG, WEIGHTS, *DRUMMER)} | {model.folder}
        launch.queue_generation(run, wanted, asked, sorted(folders), place, dry_run=command.dry_run)
    if done := len(found) - len(left) - len(whys):
        console.say(f"already done: {done} of {len(found)} songs")
    return console.FAILED if whys else console.DONE


@dataclass(frozen=True)
class _Model:
    """A model as described to jobs. name: for people. asked: what finds it from any folder. folder: of an exported one.

    sha256: of the weights. drummer: of a model with a sketch, see `drummer_record.sha256`.
    """

    name: str
    asked: str
    step: int
    sha256: str
    settings: Config
    drummer: str | None
    folder: Path | None = None


def _find(name: str | None) -> _Model:
    """Find a model by its name like `generate.model.find_model`, but without torch: only the size of the weights is checked.

    Raises:
        ValueError: there is no such run, no such checkpoint, or no exported model that can be used.
    """
    if (folder := exported_config.folder_of(name)) is not None:
        with exported_config.starter_named(folder):
            content = exported_config.read_config(folder)
            sha256 = exported_config.check_files(folder, content)
            settings = exported_config.settings_of(content, folder / CONFIG)
        step, title = content["step"], f"{content['name']}@{content['step']}"
        if folder == exported_config.STARTER_FOLDER:  # jobs have a copy of their own
            return _Model(title, exported_config.STARTER, step, sha256, settings, None)
        folder = folder.absolute()
        if request.plain(str(folder)) != str(folder):
            raise ValueError(f"{folder}: jobs can only open files whose names are UTF-8: rename it")
        by = settings.model.sketch and content["format"] == exported_config.FORMAT
        return _Model(title, str(folder), step, sha256, settings, drummer_record.sha256(folder) if by else None, folder)
    run, checkpoint = checkpoints.named(name)
    sha256 = checkpoint.meta()["files"][checkpoints.GENERATOR]["sha256"]
    asked = f"{run.name}@{checkpoint.step}"
    settings = rundir.read_settings(run)
    drummer = drummer_record.sha256(run.pattern) if settings.model.sketch else None
    return _Model(asked, asked, checkpoint.step, sha256, settings, drummer)


def _there(folder: Path) -> Path:
    """Return a folder that jobs write to, or its nearest existing parent."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _make(command: Command, found: list[Song], again: str) -> int:
    try:
        from p2p_dist.evaluate.report import song_page
        from p2p_dist.generate import songs  # torch, which takes seconds
        from p2p_dist.generate.model import find_model

        model, options = find_model(command.model), command.options()
        command.check_fits(model.model)
        console.say(f"model: {model.name}, trained {model.step} steps to make {request.stem_name(model.task)}")
        left, refused = songs.todo(found, model, options, overwrite=command.overwrite)
        done_before = len(found) - len(left) - len(refused)
        total, done, finished = sum(songs.seconds(one, options) for one in left), 0.0, 0
        with console.Progress("seconds generated", max(round(total), 1)) as progress:

            def on_progress(one: Song, more: float) -> None:
                nonlocal done
                done += more
                progress.total = max(progress.total, round(done))
                if more:
                    progress.update(round(done), one.place.name)

            def on_song(made: songs.Made) -> None:
                nonlocal finished
                finished += 1
                if made.error is not None and len(found) > 1:
                    tell(f"left out: {console.one_line(made.error)}")
                for line in songs.lines(made) if made.record is not None else ():
                    tell(line)

            tell = console.say if progress.bar is None else progress.above
            refused += songs.make(
                left,
                model,
                options,
                overwrite=command.overwrite,
                page=song_page.write,
                on_song=on_song,
                on_progress=on_progress,
            )
    except KeyboardInterrupt:
        console.complain(f"stopped cleanly: finished songs are kept, unfinished ones are removed. To resume, run:\n  {again}")
        return console.STOPPED
    if len(found) == 1 and refused:
        raise ValueError(console.one_line(refused[0].error or ""))
    if done_before:
        which = console.one_line(str(found[0].place.folder)) if len(found) == 1 else f"{done_before} of {len(found)} songs"
        console.say(f"already done: {which}")
    for number, one in enumerate(refused):
        console.complain(("" if number else f"songs left out ({len(refused)}):\n") + f"  {console.one_line(one.error or '')}")
    return console.FAILED if refused or finished < len(left) else console.DONE  # another process makes the others

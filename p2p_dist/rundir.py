"""The folder of one run: what lies where, who owns it, and the settings it began with."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2p_dist import config, console, files, manifest, presets, provenance, records, snapshot, songs
from p2p_dist.owner import Owner
from p2p_dist.records import COUNT, Maybe

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


_OUTCOME = {
    "attempt": str,
    "stage": str,
    "outcome": re.compile("done|stopped|failed"),
    "step": Maybe(COUNT),
    "message": str,
}
_BEST = {"step": COUNT, "score": float, "chosen_on": str, "note": str}


def runs_root() -> Path:
    """Where runs lie: $P2P_RUNS, else ./runs, behind any links, as jobs see it. Shards and the example's song lie beside it.

    Raises:
        ValueError: a path that the code of a run can't be imported from.
    """
    root = Path(os.environ.get("P2P_RUNS") or "runs").resolve()
    if ":" in str(root):
        raise ValueError(f"{root}: runs can't lie in a folder with ':' in its path, which separates the entries of $PYTHONPATH")
    if bad := console.control_character(str(root)):
        raise ValueError(f"{str(root)!r}: runs can't lie in a folder with a control character ({bad}) in its path")
    if re.search("%[jtAa]", str(root)):
        raise ValueError(
            f"{root}: the path contains %j, %t, %A or %a, which Slurm replaces in file names: name another with $P2P_RUNS"
        )
    return root


@dataclass(frozen=True)
class RunDir:
    """Paths inside one run; see the layout in the README."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def dataset(self) -> Path:
        """Names the folder of shards that the run was begun with."""
        return self.path / "dataset.json"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def outcome(self) -> Path:
        """How the training's last attempt ended."""
        return self.outcome_of("train")

    def outcome_of(self, stage: str) -> Path:
        """How a stage's last attempt ended: a file each, since an evaluation may run beside the training, in many jobs."""
        member = f".{number}" if (number := os.environ.get("SLURM_ARRAY_TASK_ID")) else ""
        return self.path / ("outcome.json" if stage == "train" else f"outcome-{stage}{member}.json")

    @property
    def code(self) -> Path:
        return self.path / "code"

    @property
    def slurm(self) -> Path:
        return self.path / "slurm"

    @property
    def results(self) -> Path:
        """What the processes of a check found (launch/check.py)."""
        return self.path / "results"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def attempts(self, stage: str) -> Path:
        """The starts of a stage on this machine, see attempts.py."""
        return self.logs / f"{stage}.attempts"

    @property
    def meeting(self) -> Path:
        """Where rank 0 notes at which port the others find it."""
        return self.path / ".meeting.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """Names the checkpoint that the evaluations chose, see evaluate/ranking.py; for people, never to resume from."""
        return self.checkpoints / "best.json"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations"

    @property
    def page(self) -> Path:
        return self.path / "page" / "index.html"

    @property
    def shards(self) -> Path:
        """The folder of shards of this run.

        Raises:
            FileNotFoundError: the run was not begun by the launcher.
        """
        if not self.dataset.is_file():
            cure = "missing; it names the run's shards, and typing the run's launch command again writes it"
            raise FileNotFoundError(errno.ENOENT, cure, str(self.dataset))
        return self.path.parent.parent / "shards" / self.read_dataset()

    @property
    def shards_before(self) -> Path | None:
        """The shards that the run was trained on until songs that training does not use changed; None: they did not."""
        before = self._dataset().get("trained_on")
        return None if before is None else self.path.parent.parent / "shards" / before

    def read_dataset(self) -> str:
        """Name of the folder of shards that the run was begun with.

        Raises:
            FileNotFoundError: it is not known. ValueError: the file that names it is damaged.
        """
        return str(self._dataset()["name"])

    def read_training(self) -> str | None:
        """What `training_digest` said of the run's songs; None where the run is older than that."""
        found = self._dataset().get("training")
        return None if found is None else str(found)

    def _dataset(self) -> dict[str, Any]:
        cure = "remove it, and type the run's launch command again: it writes it anew"
        shape = {"name": records.FILE, "training?": str, "trained_on?": records.FILE}
        found: dict[str, Any] = records.read(self.dataset, shape, cure)
        return found

    def write_outcome(self, stage: str, outcome: str, message: str = "", step: int | None = None) -> None:
        """Say how this attempt of a stage ended: done, stopped (go on) or failed (don't). Decides before any exit code."""
        check_still_ours()
        value = {"attempt": attempt(), "stage": stage, "outcome": outcome, "step": step, "message": message}
        files.patiently(lambda: files.write_json(self.outcome_of(stage), value))

    def read_outcome(self, stage: str = "train") -> dict[str, Any] | None:
        """The outcome of a stage's last attempt that lived to write one; of an array, of a part that did not end well.

        Raises:
            ValueError: a file of them is damaged.
        """
        found = [records.read(path, _OUTCOME) for path in self.outcomes(stage)]
        return next((one for one in found if one["outcome"] != "done"), found[0] if found else None)

    def outcomes(self, stage: str) -> list[Path]:
        """The files that say how a stage ended; several where it was an array."""
        return sorted(self.path.glob("outcome.json" if stage == "train" else f"outcome-{stage}*.json"))

    def was_cancelled(self) -> bool:
        """Whether launch/cancel.py asked this run's jobs to stop. Of a run on one machine the mark says nothing."""
        return "P2P_ATTEMPTS" in os.environ and (self.slurm / "cancelled").exists()

    def read_best(self) -> dict[str, Any] | None:
        """What `best` says; None where no checkpoint has been chosen, or it is gone."""
        if not self.best.is_file():
            return None
        cure = "remove it: the next evaluation or page writes it anew"
        best: dict[str, Any] = records.read(self.best, _BEST, cure)
        return best if (self.checkpoints / step_name(best["step"])).is_dir() else None

    def read_status(self) -> dict[str, Any] | None:
        """What a stage last said of its progress: what, done, total, rate, seconds_left, note; None where none did."""
        shape = {"what": str, "done?": COUNT, "total?": COUNT, "rate?": float, "seconds_left?": Maybe(float), "note?": str}
        return records.read(self.status, shape) if self.status.is_file() else None

    def has_trained(self) -> bool:
        """Whether no further checkpoint will come: the training said that it ended, or no job of it is left (hpc/watch.sh)."""
        outcome = self.read_outcome()
        return (outcome is not None and outcome["outcome"] != "stopped") or (self.slurm / "evaluate" / "no-training").is_file()


def attempt() -> str:
    """Name of this start: what the job's batch shell (hpc/job.sh) or the launcher on one machine gave it."""
    if named := os.environ.get("P2P_ATTEMPT"):
        return named
    if job := os.environ.get("SLURM_JOB_ID"):
        return f"{job}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"
    return f"{socket.gethostname()}.{os.getpid()}"


class SupersededError(Exception):
    """A newer attempt owns the run: this process, which Slurm lost sight of, must change nothing any more."""


def check_still_ours() -> None:
    """Make sure, before something is written that a newer attempt reads, that there is none.

    Under Slurm each start of a job notes itself in the file that $P2P_ATTEMPTS names (hpc/begin.sh); the last owns the run.

    Raises:
        SupersededError: another attempt has begun since.
    """
    path = os.environ.get("P2P_ATTEMPTS")
    if path is None:
        return
    lines = [line.split() for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines()]
    starts = [words[1] for words in lines if len(words) > 1 and words[0] == "start"]
    if starts and starts[-1] != attempt():
        raise SupersededError(f"attempt {attempt()} was superseded by {starts[-1]}: this process exits without writing")


def default_name(wanted: config.Config) -> str:
    """Name of a run that was given none: its task and preset."""
    task = re.sub(r"[^A-Za-z0-9]+", "-", wanted.data.task).strip("-")
    return f"{task}-{wanted.preset}"


def find(name: str) -> RunDir:
    """The run called `name`, there or not, by its real path: shards lie beside the folder that it really is in.

    Args:
        name: or the path of a run that is in the folder of runs.

    Raises:
        ValueError: not a name for a folder, or the path of another folder.
    """
    if "/" in name:
        path = Path(name).expanduser().absolute()
        if path.parent.resolve() != runs_root().resolve():
            raise ValueError(f"{name} is not in the folder of runs, {runs_root()}: name another with $P2P_RUNS")
        name = path.name
    if not RUN_NAME.fullmatch(name):
        raise ValueError(f"run {name!r}: use letters, digits, '.', '_' and '-', beginning with a letter or digit")
    path = runs_root() / name
    if path.is_symlink() and path.lstat().st_uid not in (os.geteuid(), 0):
        raise ValueError(f"{path} is a link that another user made: remove it, or take another name for the run")
    return RunDir(path.resolve())


def check_own(run: RunDir) -> None:
    """Make sure, before anything is started or written, that a run is this user's own with the code it began with.

    Raises:
        ValueError: others could have made or changed its folder, its settings or its code, or a link lies in it; names it.
    """
    whys = []
    if run.path.exists() and run.path.stat().st_uid != os.geteuid():  # who else may write in it, `begin` ends
        whys.append(f"{run.path} {files.not_only_ours(run.path)}")
    if os.path.lexists(run.config) and (why := files.not_only_ours(run.config)):
        whys.append(f"{run.config} {why}")
    if whys:
        raise ValueError(
            f"{whys[0]}: another user may have changed its settings, which decide what runs. Give this run another name with "
            f"--run NAME; or, if nobody changed it, chmod -R go-w {run.path}, then type this again"
        )
    if os.path.lexists(run.code):
        snapshot.check(run.code)
        if not run.config.is_file() and (not snapshot.has_record(run.code) or snapshot.differs(run.code)):
            raise ValueError(
                f"{run.code} is there, but {run.config} is not: this is no run that was begun here, and its code is not this "
                f"program's; remove {run.path}, or give the run another name with --run NAME"
            )
    check_links(run)


def check_links(run: RunDir) -> None:
    """Make sure, before something is written or removed in a run, that no link lies in it: this program makes none there.

    Raises:
        ValueError: there is one, which would lead what is written or removed to another place; names it.
    """
    if run.path.is_dir():
        files.refuse_links(run.path, apart_from=(run.code.name,), known=".submission_file_")  # submitit's, in slurm/


def check_begin(run: RunDir, wanted: config.Config, dataset: str | None) -> config.Config:
    """The settings that a run would go on with: its saved science wins, resources may have changed. Writes nothing.

    Args:
        dataset: name of the shards; None: not known yet.

    Raises:
        ValueError: a science setting or the songs differ from those that the run began with; names each.
    """
    check_own(run)
    if not run.config.is_file():
        return wanted
    saved = presets.from_saved(run.config)
    if changed := presets.differences(saved, wanted):
        raise ValueError(
            f"the run {run.path.name} was begun with other settings:\n  "
            + "\n  ".join(changed)
            + "\nthe settings of a run can't change; give this one another name with --run NAME"
        )
    begun_with = run.read_dataset() if run.dataset.is_file() else None
    # Where it is missing, training compares the windows; before anything was learnt, songs may still come and go.
    changed_songs = None not in (begun_with, dataset) and begun_with != dataset
    if changed_songs and find_steps(run.checkpoints) and not _has_same_training(run, wanted.data):
        raise ValueError(
            f"the training songs are not those that the run {run.path.name} was trained on ({begun_with}, now {dataset}): "
            "put them back, or give this run another name with --run NAME; songs of test/ may come and go, those of valid/ "
            "where none of train/ was held back in their place"
        )
    return presets.with_resources(saved, wanted)


def begin(run: RunDir, wanted: config.Config, dataset: str) -> config.Config:
    """Create the run, or check that it is the same run; the settings to run with: see `check_begin`.

    Raises:
        ValueError: a science setting or the songs differ from those that the run began with; names each.
    """
    settings = check_begin(run, wanted, dataset)
    run.path.mkdir(parents=True, exist_ok=True)
    if files.not_only_ours(run.path) is not None:
        run.path.chmod(run.path.stat().st_mode & 0o7755)
        console.say(f"note: others could write in {run.path}; now only you can")
    if not run.config.is_file():
        files.write_json(run.provenance, provenance.gather())
    _note_dataset(run, dataset, wanted.data)
    _note_overlap(run, settings)
    if not run.code.is_dir():
        snapshot.take(run.code)
    elif snapshot.has_record(run.code):
        snapshot.close(run.code)
    else:
        snapshot.record(run.code)
        console.say(f"{run.code}, which an earlier version copied, is only yours: its files are noted in {snapshot.SUMS} there")
    # The copy of the code reads it, and an earlier version refuses the name of a setting that came later.
    like = run.config if run.config.is_file() and snapshot.differs(run.code) else None
    if like is not None and (left_out := presets.unknown(settings, like)):
        console.say(
            f"note: the copy of the code in {run.path.name} does not have {', '.join(left_out)}: left out of its settings"
        )
    files.write_text(run.config, presets.to_yaml(settings, like))
    return settings


def _has_same_training(run: RunDir, data: config.Data) -> bool:
    """Whether what training uses of the songs there are now is what the run was trained on."""
    if data.root is None:
        return False
    root, known = Path(data.root), run.read_training()
    if known is not None:
        return training_digest(root, data) == known
    # Of an older run only the name is known, which tells of all songs: those that were not there then are left out.
    try:
        content = manifest.read(run.shards)
    except (FileNotFoundError, ValueError):
        return False
    there = {(split, song["name"]) for split, part in content["splits"].items() for song in part["songs"]}
    there |= {("test", song["song"]) for song in content["left_out"]}
    of = songs.list_songs(root, data.split_by_title)
    found = [song for song in of if song.split == "train" or (song.split, song.name) in there]
    return _holds_some_back(found) == _holds_some_back(of) and _dataset_name(root, data, found) == run.read_dataset()


def _note_dataset(run: RunDir, dataset: str, data: config.Data) -> None:
    """Note which shards the run has, and what training uses of its songs.

    Where other songs than before are held out from a training that has begun, its evaluations are of those before: they are
    kept under another name, and all checkpoints are to be evaluated anew.
    """
    note = {"name": dataset}
    if data.root is not None and Path(data.root).is_dir():
        with contextlib.suppress(ValueError):  # no songs: a check of the machine says so itself
            note["training"] = training_digest(Path(data.root), data)
    if run.dataset.is_file():
        before = run.read_dataset()
        if before == dataset and run.read_training() is not None:
            return
        trained_on = run.shards_before
        if before != dataset and find_steps(run.checkpoints):
            if trained_on is None or (run.shards / manifest.NAME).is_file():
                trained_on = run.shards
            _keep_aside(run, before, "songs held out from training changed")
        if trained_on is not None and trained_on.name != dataset and find_steps(run.checkpoints):
            note["trained_on"] = trained_on.name
    files.write_json(run.dataset, note)


def _note_overlap(run: RunDir, settings: config.Config) -> None:
    """Keep the evaluations aside where --allow-overlap changes which songs of the dataset are measured."""
    if not run.config.is_file() or not (run.shards / manifest.NAME).is_file():
        return
    before, allowed = presets.from_saved(run.config).evaluate.allow_overlap, settings.evaluate.allow_overlap
    if before != allowed and any(manifest.overlap(manifest.read(run.shards), split) for split in ("test", "valid")):
        _keep_aside(run, "with-overlap" if before else "without-overlap", "--allow-overlap changed")


def _keep_aside(run: RunDir, name: str, why: str) -> None:
    """Rename the evaluations to evaluations-NAME, so that all checkpoints are evaluated anew and on the same songs."""
    if find_steps(run.evaluations):
        names = (f"evaluations-{name}" + (f"-{n}" if n > 1 else "") for n in itertools.count(1))
        aside = next(path for path in map(run.path.joinpath, names) if not path.exists())
        run.evaluations.rename(aside)
        console.say(f"{why}: the evaluations so far are kept in {aside}")


def step_name(step: int) -> str:
    """Name of the folder of one step, in checkpoints/ and evaluations/ alike."""
    return f"step-{step:08d}"


def find_steps(folder: Path) -> list[tuple[int, Path]]:
    """Step and path of every finished `step-...` in a folder, oldest first."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.startswith("step-") and entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    steps = {name: int(name[5:]) for name in names if re.fullmatch(r"step-[0-9]{8,18}", name)}
    return sorted((step, folder / name) for name, step in steps.items() if name == step_name(step))


def in_words(best: dict[str, Any]) -> str:
    """The chosen checkpoint, as it stands in best.json, in a line."""
    note = f" ({best['note']})" if best["note"] else ""
    return f"step {best['step']}, score {best['score']:.3f} on {best['chosen_on']} songs{note}"


def is_evaluation(folder: Path) -> bool:
    """Whether an evaluation is there, of the step that its folder is named after, with the files that it names.

    One whose record is damaged is none: it is measured again.
    """
    shape = {"step": COUNT, "songs": [{"key": records.KEY}]}
    try:
        found = records.read(folder / "metrics.json", shape)
        with os.scandir(folder / "audio") as entries:
            there = {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError, files.DamagedError):
        return False
    wanted = {f"{song['key']}-{name}.flac" for song in found["songs"] for name in ("stem", "mix")}
    return step_name(found["step"]) in folder.name and wanted <= there


def dataset_name(root: Path, data: config.Data) -> str:
    """Name of the folder of shards for these songs under these settings, as `drums-default-1f3c9a52e07b`.

    Songs are told apart by path and size in bytes, not opened: a login node, which has no decoder, can tell the name.

    Raises:
        ValueError: no song; see `songs.list_songs`.
    """
    return _dataset_name(root, data, songs.list_songs(root, data.split_by_title))


def _dataset_name(root: Path, data: config.Data, of: list[songs.Source]) -> str:
    found = [file.relative_to(root) for song in of for file in song.files()]
    found.sort(key=lambda file: (file.parts[0] != "train", file))
    sizes = [[file.as_posix(), (root / file).stat().st_size] for file in found]
    task = re.sub(r"[^a-z]+", "-", data.task).strip("-")
    return f"{task}-{data.representation}-{files.digest([data.science(), sizes])[:12]}"


def training_digest(root: Path, data: config.Data) -> str:
    """12 hexadecimal digits that tell apart what training uses: as `dataset_name` does, without the songs held out.

    Raises:
        ValueError: no song; see `songs.list_songs`.
    """
    of = songs.list_songs(root, data.split_by_title)
    found = sorted(file.relative_to(root) for song in of if song.split == "train" for file in song.files())
    sizes = [[file.as_posix(), (root / file).stat().st_size] for file in found]
    return files.digest([data.science(), _holds_some_back(of), sizes])[:12]


def _holds_some_back(of: list[songs.Source]) -> bool:
    """Whether some of train/ are for validation, which they are where there is no valid/."""
    titles = [song.name for song in of if song.split == "train"]
    return not any(song.split == "valid" for song in of) and bool(songs.validation_by_hash(titles))


def own(run: RunDir) -> Owner:
    """Take the run for this process and its children, on one machine.

    Raises:
        ValueError: another process owns it; the message says which and how to look.
    """
    look = f"its progress is in {run.status}, its logs are in {run.logs}"
    return Owner(run.path, f"the run {run.path.name} is running", look)


class Metrics:
    """Adds lines of numbers to a run. What the machine refuses for a while (disk full) is kept, and written with what follows.

    A line is written in one piece, so a reader never sees half of one that was finished.
    """

    def __init__(self, run: RunDir) -> None:
        self.path = run.metrics
        self.kept = b""
        self.whole: int | None = None  # bytes of the file, where more was written that is only part of a line
        self.lock = threading.Lock()

    def append(self, row: dict[str, Any]) -> None:
        """Add one line, or keep it, with a warning, where it can't be written now."""
        waits = bool(self.kept)
        with self.lock:
            self.kept += json.dumps(row, allow_nan=False).encode() + b"\n"
        try:
            self.write()
        except OSError as error:
            if not waits:
                console.complain(f"warning: {console.describe(error)}; metrics are kept in memory until they can be written")

    def write(self) -> None:
        """Write what was kept. A checkpoint is only good with the lines before it, so a save calls this first.

        Raises:
            OSError: the machine refuses still.
        """
        with self.lock:
            if not self.kept:
                return
            with os.fdopen(files.open_ours(self.path, os.O_WRONLY | os.O_APPEND), "ab", buffering=0) as file:
                if self.whole is not None:
                    file.truncate(self.whole)
                    self.whole = None
                whole = file.seek(0, os.SEEK_END)
                try:
                    if file.write(self.kept) != len(self.kept):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                except OSError:
                    self.whole = whole
                    with contextlib.suppress(OSError):
                        file.truncate(whole)
                        self.whole = None
                    raise
            self.kept = b""


def append_metrics(run: RunDir, row: dict[str, Any]) -> None:
    """Add one line of numbers."""
    Metrics(run).append(row)


def read_metrics(run: RunDir) -> list[dict[str, Any]]:
    """All whole lines of numbers; what is none, as a last line that was cut short by a kill, is left out."""
    if not run.metrics.is_file():
        return []
    with run.metrics.open("rb") as file:
        return [row for line in file if (row := _row(line)) is not None]


def last_metrics(run: RunDir) -> dict[str, Any] | None:
    """The last whole line of numbers, read from the end of the file; None where there is none."""
    return next((row for _, row in _from_the_end(run.metrics)), None)


def cut_metrics(run: RunDir, step: int) -> None:
    """Drop the lines after `step`, so that a resumed run writes none twice. Only those are read."""
    if run.metrics.is_file():
        kept = (end for end, row in _from_the_end(run.metrics) if row["step"] <= step)
        os.truncate(run.metrics, next(kept, 0) if step else 0)


def _row(line: bytes) -> dict[str, Any] | None:
    """One line of numbers; None where it is none."""
    number = Maybe(float)
    shape = {"step": COUNT, "digests?": str, "l1?": number, "images_per_second?": number}
    try:
        row = records.parse(line, shape, where="a line of numbers") if line.endswith(b"\n") else None
    except files.DamagedError:
        return None
    assert row is None or isinstance(row, dict)
    return row


def _from_the_end(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The whole lines of numbers of a file, the last first, each with where it ends (bytes)."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        place, rest = file.seek(0, os.SEEK_END), b""
        while place:
            begin = max(0, place - max(1 << 16, len(rest)))  # twice as far each time, where a line does not end
            file.seek(begin)
            block = file.read(place - begin) + rest
            end, place = begin + len(block), begin
            first, *lines = block.splitlines(keepends=True) if begin else [b"", *block.splitlines(keepends=True)]
            for line in reversed(lines):
                if (row := _row(line)) is not None:
                    yield end, row
                end -= len(line)
            rest = first


def resolve(run: RunDir) -> config.Config:
    """The settings of a run that exists.

    Raises:
        ValueError: there is no such run.
    """
    if not run.config.is_file():
        raise ValueError(f"no run {run.path.name} in {run.path.parent}")
    return presets.from_saved(run.config)


def settings_digest(settings: config.Config) -> str:
    """12 hexadecimal digits of the science of a run."""
    return files.digest(presets.science(settings))[:12]

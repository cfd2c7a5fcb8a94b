"""The folder of one run: what lies where, who owns it, and the settings it began with."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2p_dist import config, console, files, presets, provenance, snapshot, songs
from p2p_dist.owner import Owner

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def runs_root() -> Path:
    """Where runs lie: $P2P_RUNS, else ./runs, behind any links, as jobs see it. Shards and the example's song lie beside it.

    Raises:
        ValueError: a path that the code of a run can't be imported from.
    """
    root = Path(os.environ.get("P2P_RUNS") or "runs").resolve()
    if ":" in str(root):
        raise ValueError(f"{root}: runs can't lie in a folder with ':' in its path, which separates the entries of $PYTHONPATH")
    if re.search("%[jtAa]", str(root)):
        raise ValueError(f"{root}: runs can't lie in a folder with %j, %t, %A or %a in its path, for which Slurm puts numbers")
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
        return self.path.parent.parent / "shards" / str(files.read_json(self.dataset)["name"])

    def write_outcome(self, stage: str, outcome: str, message: str = "", step: int | None = None) -> None:
        """Say how this attempt of a stage ended: done, stopped (go on) or failed (don't). Decides before any exit code."""
        check_still_ours()
        value = {"attempt": attempt(), "stage": stage, "outcome": outcome, "step": step, "message": message}
        files.write_json(self.outcome_of(stage), value)

    def read_outcome(self, stage: str = "train") -> dict[str, Any] | None:
        """The outcome of a stage's last attempt that lived to write one; of an array, of a part that did not end well."""
        found = [files.read_json(path) for path in self.outcomes(stage)]
        return next((one for one in found if one["outcome"] != "done"), found[0] if found else None)

    def outcomes(self, stage: str) -> list[Path]:
        """The files that say how a stage ended; several where it was an array."""
        return sorted(self.path.glob("outcome.json" if stage == "train" else f"outcome-{stage}*.json"))

    def read_best(self) -> dict[str, Any] | None:
        """What `best` says; None where no checkpoint has been chosen, or it is gone."""
        if not self.best.is_file():
            return None
        best: dict[str, Any] = files.read_json(self.best)
        return best if (self.checkpoints / step_name(best["step"])).is_dir() else None

    def has_trained(self) -> bool:
        """Whether no further checkpoint will come: the training said that it ended, or no job of it is left (hpc/watch.sh)."""
        outcome = self.read_outcome()
        return (outcome is not None and outcome["outcome"] != "stopped") or (self.slurm / "evaluate" / "no-training").is_file()


def attempt() -> str:
    """Name of this start of a job: Slurm's job and restart count, or what the launcher on one machine set."""
    if job := os.environ.get("SLURM_JOB_ID"):
        return f"{job}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"
    return os.environ.get("P2P_ATTEMPT", f"{socket.gethostname()}.{os.getpid()}")


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
    starts = [line.split()[1] for line in Path(path).read_text().splitlines() if line.startswith("start ")]
    if starts and starts[-1] != attempt():
        raise SupersededError(f"attempt {attempt()} was superseded by {starts[-1]}: leaving without a trace")


def default_name(wanted: config.Config) -> str:
    """Name of a run that was given none: its task and preset."""
    task = re.sub(r"[^A-Za-z0-9]+", "-", wanted.data.task).strip("-")
    return f"{task}-{wanted.preset}"


def find(name: str) -> RunDir:
    """The run called `name`, there or not, by its real path: shards lie beside the folder that it really is in.

    Raises:
        ValueError: not a name for a folder.
    """
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
            f"{whys[0]}: its settings may be another's, and they say what is run. Give this run another name with "
            f"--run NAME; or, where all of it is as you left it, chmod -R go-w {run.path}, then type this again"
        )
    if os.path.lexists(run.code):
        snapshot.check(run.code)
        if not run.config.is_file() and (not snapshot.has_record(run.code) or snapshot.differs(run.code)):
            raise ValueError(
                f"{run.code} is there, but {run.config} is not: this is no run that was begun here, and its code is not this "
                f"program's; remove {run.path}, or give the run another name with --run NAME"
            )
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
            + "\nits own can't change; give this one another name with --run NAME"
        )
    begun_with = files.read_json(run.dataset)["name"] if run.dataset.is_file() else None
    # Where it is missing, training compares the windows; before anything was learnt, songs may still come and go.
    if None not in (begun_with, dataset) and begun_with != dataset and find_steps(run.checkpoints):
        raise ValueError(
            f"the songs are not those that the run {run.path.name} was trained on ({begun_with}, now {dataset}): "
            "put them back, or give this run another name with --run NAME"
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
    if not run.dataset.is_file() or files.read_json(run.dataset)["name"] != dataset:
        files.write_json(run.dataset, {"name": dataset})
    if not run.code.is_dir():
        snapshot.take(run.code)
    elif not snapshot.has_record(run.code):
        snapshot.record(run.code)
        console.say(f"{run.code}, which an earlier version copied, is only yours: its files are noted in {snapshot.SUMS} there")
    files.write_text(run.config, presets.to_yaml(settings))
    return settings


def step_name(step: int) -> str:
    """Name of the folder of one step, in checkpoints/ and evaluations/ alike."""
    return f"step-{step:08d}"


def find_steps(folder: Path) -> list[tuple[int, Path]]:
    """Step and path of every finished `step-...` in a folder, oldest first."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if match := re.fullmatch(r"step-(\d{8,})", path.name):
            found.append((int(match.group(1)), path))
    return sorted(found)


def in_words(best: dict[str, Any]) -> str:
    """The chosen checkpoint, as it stands in best.json, in a line."""
    note = f" ({best['note']})" if best["note"] else ""
    return f"step {best['step']}, score {best['score']:.3f} on {best['chosen_on']} songs{note}"


def is_evaluation(folder: Path) -> bool:
    """Whether an evaluation is there with the files that it names."""
    if not (folder / "metrics.json").is_file():
        return False
    keys = [song["key"] for song in files.read_json(folder / "metrics.json")["songs"]]
    return all((folder / "audio" / f"{key}-{name}.flac").is_file() for key in keys for name in ("stem", "mix"))


def dataset_name(root: Path, data: config.Data) -> str:
    """Name of the folder of shards for these songs under these settings, as `drums-default-1f3c9a52e07b`.

    Songs are told apart by path and size in bytes, not opened: a login node, which has no decoder, can tell the name.

    Raises:
        ValueError: no song; see `songs.list_songs`.
    """
    found = [file.relative_to(root) for song in songs.list_songs(root) for file in song.files()]
    found.sort(key=lambda file: (file.parts[0] != "train", file))
    sizes = [[file.as_posix(), (root / file).stat().st_size] for file in found]
    task = re.sub(r"[^a-z]+", "-", data.task).strip("-")
    return f"{task}-{data.representation}-{files.digest([data.science(), sizes])[:12]}"


def own(run: RunDir) -> Owner:
    """Take the run for this process and its children, on one machine.

    Raises:
        ValueError: another process owns it; the message says which and how to look.
    """
    look = f"its progress is in {run.status}, its logs are in {run.logs}"
    return Owner(run.path, f"the run {run.path.name} is running", look)


def append_metrics(run: RunDir, row: dict[str, Any]) -> None:
    """Add one line of numbers; a line is written in one piece, so a reader never sees half of one that was finished."""
    line = json.dumps(row, allow_nan=False) + "\n"
    with run.metrics.open("a", encoding="utf-8") as file:
        file.write(line)


def read_metrics(run: RunDir) -> list[dict[str, Any]]:
    """All whole lines of numbers; a last line cut short by a kill is left out."""
    if not run.metrics.is_file():
        return []
    rows = []
    for line in run.metrics.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def cut_metrics(run: RunDir, step: int) -> None:
    """Drop the lines after `step`, so that a resumed run writes none twice."""
    rows = read_metrics(run)
    kept = [row for row in rows if row["step"] <= step]
    if run.metrics.is_file():
        files.write_text(run.metrics, "".join(json.dumps(row) + "\n" for row in kept))


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

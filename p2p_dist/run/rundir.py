"""The folder of one run: its files, its owner, and its saved settings."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2p_dist.common import console, files, records, schemas
from p2p_dist.run import snapshot, starts
from p2p_dist.run.lock import Owner
from p2p_dist.settings import config, presets

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def runs_root() -> Path:
    """Return the folder of runs, $P2P_RUNS or ./runs, with links resolved as jobs see it. Shards are beside it.

    Raises:
        ValueError: the code of a run can't be imported from this path, or Slurm would change it.
    """
    root = files.expanded(os.environ.get("P2P_RUNS") or "runs").resolve()
    if ":" in str(root):
        raise ValueError(
            f"{root}: the path of the folder of runs must not contain ':', which separates the entries of $PYTHONPATH"
        )
    if bad := console.control_character(str(root)):
        raise ValueError(f"{str(root)!r}: runs can't lie in a folder with a control character ({bad}) in its path")
    try:
        str(root).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{root}: the path of the folder of runs is not valid UTF-8; rename the folder, or set $P2P_RUNS to another one"
        ) from None
    if re.search("%[jtAa]", str(root)):
        raise ValueError(
            f"{root}: the path contains %j, %t, %A or %a, which Slurm replaces in file names: name another with $P2P_RUNS"
        )
    return root


@dataclass(frozen=True)
class RunDir:
    """The paths in the folder of one run. The README describes the layout.

    link: where the folder of runs has a link to it, the link, whose name is that of the run.
    """

    path: Path
    link: Path | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """The name by which the run was found."""
        return (self.link or self.path).name

    def refuse_absent(self, hint: str = "") -> None:
        """Check that the run exists. hint: what to add to the message.

        Raises:
            ValueError: it does not, or a link to it leads nowhere.
        """
        if self.link is not None and not self.path.exists():
            raise ValueError(f"{self.link} is a broken link (target {self.path}): restore the run there, or remove the link")
        if not self.config.is_file():
            raise ValueError(f"no run {self.name} in {runs_root() if self.link else self.path.parent}{hint}")

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def dataset(self) -> Path:
        """Path of dataset.json, which names the run's folder of shards."""
        return self.path / "dataset.json"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def energy(self) -> Path:
        """Path of the record of the GPUs' energy, see energy.py."""
        return self.path / "energy.jsonl"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def outcome(self) -> Path:
        """Path of outcome.json: how the last attempt of the training ended."""
        return self.outcome_of("train")

    def outcome_of(self, stage: str) -> Path:
        """Path of the file that records how the last attempt of a stage ended: one file per stage and array task."""
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
        """Path of the results of a check's processes (launch/check.py)."""
        return self.path / "results"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def attempts(self, stage: str) -> Path:
        """Path of the record of a stage's starts on this machine, see starts.py."""
        return self.logs / f"{stage}.attempts"

    @property
    def meeting(self) -> Path:
        """Path of the file in which rank 0 writes its port for the other ranks."""
        return self.path / ".meeting.json"

    @property
    def songs(self) -> Path:
        """Path of songs.json, the request of the generate command to the jobs of this run: see `schemas.SONGS`."""
        return self.path / "songs.json"

    @property
    def made(self) -> Path:
        """Folder with one file per finished song, by number: its stem is written, or it was skipped (with the reason)."""
        return self.path / "made"

    @property
    def pattern(self) -> Path:
        """Folder of the drummer of a run with sketches, see generate/drummer.py."""
        return self.path / "pattern"

    @property
    def drummer(self) -> Path:
        """Path of the record of the drummer's files."""
        return self.pattern / "drummer.json"

    @property
    def pattern_measures(self) -> Path:
        """Path of the measures of the pattern network. The file exists if the run has validation songs with drums."""
        return self.pattern / "measures.json"

    @property
    def guides(self) -> Path:
        """Folder of the sketches of its training songs, see data/guides.py."""
        return self.pattern / "guides"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """Path of best.json, which names the best checkpoint, see evaluate/ranking.py. Training never resumes from it."""
        return self.checkpoints / "best.json"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations"

    @property
    def page(self) -> Path:
        return self.path / "page" / "index.html"

    @property
    def shards(self) -> Path:
        """Return the folder of shards of this run.

        Raises:
            FileNotFoundError: the launcher has not started the run.
        """
        if not self.dataset.is_file():
            cure = "missing; it names the run's shards; run the launch command again to write it"
            raise FileNotFoundError(errno.ENOENT, cure, str(self.dataset))
        return self.path.parent.parent / "shards" / self.read_dataset()

    @property
    def shards_before(self) -> Path | None:
        """Return the shards that the run was trained on before its held-out songs changed; None if they did not change."""
        before = self.dataset_record()["trained_on"]
        return None if before is None else self.path.parent.parent / "shards" / before

    def read_dataset(self) -> str:
        """Return the name of the run's folder of shards.

        Raises:
            FileNotFoundError: it is not known. ValueError: the file that names it is damaged.
        """
        return str(self.dataset_record()["name"])

    def dataset_record(self) -> dict[str, Any]:
        """Read dataset.json: see `schemas.DATASET`."""
        cure = "remove it and run the launch command again to rewrite it"
        found: dict[str, Any] = records.read(self.dataset, schemas.DATASET, cure)
        return found

    def write_outcome(self, stage: str, outcome: str, message: str = "", step: int | None = None) -> None:
        """Record how this attempt of a stage ended: done, stopped (can be resumed) or failed. It overrides the exit code."""
        check_still_ours()
        value = {"attempt": attempt(), "stage": stage, "outcome": outcome, "step": step, "message": message}
        files.patiently(lambda: records.write(self.outcome_of(stage), schemas.OUTCOME, value))

    def read_outcome(self, stage: str = "train") -> dict[str, Any] | None:
        """Read the outcome of a stage's last attempt; for an array, that of a task that did not finish, if any.

        Raises:
            ValueError: a file is damaged.
        """
        found = [records.read(path, schemas.OUTCOME) for path in self.outcomes(stage)]
        return next((one for one in found if one["outcome"] != "done"), found[0] if found else None)

    def outcomes(self, stage: str) -> list[Path]:
        """List the files that record how a stage ended; several for an array."""
        return sorted(self.path.glob("outcome.json" if stage == "train" else f"outcome-{stage}*.json"))

    def was_cancelled(self) -> bool:
        """Whether launch/cancel.py asked this run's jobs to stop. Only for runs on Slurm."""
        return "P2P_ATTEMPTS" in os.environ and (self.slurm / "cancelled").exists()

    def read_best(self) -> dict[str, Any] | None:
        """Read best.json; None if no checkpoint is chosen or the chosen one was removed."""
        if not self.best.is_file():
            return None
        cure = "remove it: the next evaluation or page rewrites it"
        best: dict[str, Any] = records.read(self.best, schemas.BEST, cure)
        return best if (self.checkpoints / step_name(best["step"])).is_dir() else None

    def read_status(self) -> dict[str, Any] | None:
        """Read the last progress of a stage: what, done, total, rate, seconds_left, note; None if there is none."""
        return records.read(self.status, schemas.STATUS) if self.status.is_file() else None

    def has_trained(self) -> bool:
        """Whether no further checkpoint will be written: the training has ended, or has no job left."""
        outcome = self.read_outcome()
        return (outcome is not None and outcome["outcome"] != "stopped") or (self.slurm / "evaluate" / "no-training").is_file()


def attempt() -> str:
    """Return the name of this attempt, set by the job's batch shell (hpc/job.sh) or by the launcher on one machine."""
    if named := os.environ.get("P2P_ATTEMPT"):
        return named
    if job := os.environ.get("SLURM_JOB_ID"):
        return f"{job}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"
    return f"{socket.gethostname()}.{os.getpid()}"


class SupersededError(Exception):
    """A newer attempt owns the run, so this process, which Slurm no longer tracks, must not change it."""


def check_still_ours() -> None:
    """Check that no newer attempt exists. Call this before writing anything that a newer attempt would read.

    Under Slurm each start of a job is recorded in the file $P2P_ATTEMPTS. The last start owns the run.

    Raises:
        SupersededError: a newer attempt has started.
    """
    path = os.environ.get("P2P_ATTEMPTS")
    if path is None:
        return
    owner = starts.count(Path(path)).owner
    if owner is not None and owner != attempt():
        raise SupersededError(f"attempt {attempt()} was superseded by {owner}: this process exits without writing")


def default_name(wanted: config.Config) -> str:
    """Return the default name of a run: task and preset."""
    task = re.sub(r"[^A-Za-z0-9]+", "-", wanted.data.task).strip("-")
    return f"{task}-{wanted.preset}"


def find(name: str) -> RunDir:
    """Return the run called `name`, with links in its path resolved. The run need not exist.

    Args:
        name: the name, or the path of a run in the folder of runs.

    Raises:
        ValueError: not a valid name, or the path of another folder.
    """
    if "/" in name:
        path = files.expanded(name).absolute()
        if path.parent.resolve() != runs_root():
            raise ValueError(f"{name} is not in the folder of runs, {runs_root()}: name another with $P2P_RUNS")
        name = path.name
    if not RUN_NAME.fullmatch(name):
        raise ValueError(f"run {name!r}: use letters, digits, '.', '_' and '-', beginning with a letter or digit")
    path = runs_root() / name
    if path.is_symlink() and path.lstat().st_uid not in (os.geteuid(), 0):
        raise ValueError(f"{path} is a link that another user created: remove it, or use another name for the run")
    return RunDir(path.resolve(), path if path.is_symlink() else None)


def names() -> list[str]:
    """Return the names of the runs in the folder of runs, sorted. Folders that `find` refuses are left out.

    Raises:
        OSError: the folder of runs can't be read.
    """
    found, root = [], runs_root()
    with contextlib.suppress(FileNotFoundError):
        os.scandir(root).close()  # glob takes a folder that can't be read for an empty one
    for path in sorted(root.glob("*/config.yaml")):
        with contextlib.suppress(ValueError):
            if find(path.parent.name).config.is_file():
                found.append(path.parent.name)
    return found


def check_own(run: RunDir) -> None:
    """Check, before anything is started or written, that a run belongs to this user and has its original code.

    Raises:
        ValueError: another user could have created or changed its folder, settings or code, or it contains a link.
    """
    root = run.path.parent
    if root.is_dir() and files.others_can_rename_in(root):
        raise ValueError(
            f"other users can write in {root}, so they could replace the run and its code: chmod +t {root}, or set "
            "$P2P_RUNS to a folder of yours"
        )
    whys = []
    if run.path.exists() and run.path.stat().st_uid != os.geteuid():  # who else may write in it, `begin` ends
        whys.append(f"{run.path} {files.not_only_ours(run.path)}")
    if os.path.lexists(run.config) and (why := files.not_only_ours(run.config)):
        whys.append(f"{run.config} {why}")
    if whys:
        raise ValueError(
            f"{whys[0]}: another user may have changed its settings, which decide what runs. Give this run another name with "
            f"--run NAME; or, if nobody changed it, chmod -R go-w {run.path}, then run this command again"
        )
    if os.path.lexists(run.code):
        snapshot.check(run.code)
        if not run.config.is_file() and (not snapshot.has_record(run.code) or snapshot.differs(run.code)):
            raise ValueError(
                f"{run.code} exists, but {run.config} does not, so this program did not create this run: "
                f"remove {run.path}, or give the run another name with --run NAME"
            )
    check_links(run)


def check_links(run: RunDir) -> None:
    """Check, before anything is written or removed in a run, that it contains no symbolic links.

    Raises:
        ValueError: there is one. Writing or removing could affect files elsewhere. The message names it.
    """
    if run.path.is_dir():
        # Weights & Biases links to its newest log; nothing of ours writes in its folders. submitit has links in slurm/.
        apart_from = (run.code.name, "trackers/wandb/from-*")
        files.refuse_links(run.path, apart_from, known=".submission_file_")


def step_name(step: int) -> str:
    """Return the folder name of one step in checkpoints/ and evaluations/."""
    return f"step-{step:08d}"


def find_steps(folder: Path) -> list[tuple[int, Path]]:
    """List step and path of every finished `step-...` in a folder, oldest first."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.startswith("step-") and entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    steps = {name: int(name[5:]) for name in names if re.fullmatch(r"step-[0-9]{8,18}", name)}
    return sorted((step, folder / name) for name, step in steps.items() if name == step_name(step))


def in_words(best: dict[str, Any]) -> str:
    """Describe the chosen checkpoint, given the content of best.json, in one line."""
    note = f" ({best['note']})" if best["note"] else ""
    return f"step {best['step']}, score {best['score']:.3f} on {best['chosen_on']} songs{note}"


def is_evaluation(folder: Path) -> bool:
    """Whether a folder contains a complete evaluation of the step in its name, with all files that it lists.

    An evaluation with a damaged record is not complete: it is repeated.
    """
    try:
        found = records.read(folder / "metrics.json", schemas.METRICS)
        with os.scandir(folder / "audio") as entries:
            there = {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError, files.DamagedError):
        return False
    wanted = {f"{song['key']}-{name}.flac" for song in found["songs"] for name in ("stem", "mix")}
    return step_name(found["step"]) in folder.name and wanted <= there


def lock_run(run: RunDir) -> Owner:
    """Lock the run for this process and its children, on one machine.

    Raises:
        ValueError: another process owns it; the message says which and how to look.
    """
    look = f"progress: {run.status}, logs: {run.logs}"
    return Owner(run.path, f"the run {run.path.name} is running", look)


def read_settings(run: RunDir) -> config.Config:
    """Read the settings of an existing run.

    Raises:
        ValueError: there is no such run.
    """
    run.refuse_absent()
    return presets.from_saved(run.config)

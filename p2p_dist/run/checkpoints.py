"""List and check the checkpoints of a run without torch. The launcher and the training use the same functions.

checkpoints/step-00012000/state.pt               the training state (removed once only the generator is kept)
checkpoints/step-00012000/generator.safetensors  the generator to evaluate: its moving average if there is one
checkpoints/step-00012000/meta.json              step, settings, sizes and sha256 of the other two files
checkpoints/damaged-step-00012000/               a checkpoint that did not match its record, renamed
"""

from __future__ import annotations

import contextlib
import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2p_dist.common import console, files, records, schemas
from p2p_dist.common.files import DamagedError
from p2p_dist.run import rundir
from p2p_dist.run.rundir import RunDir

STATE, GENERATOR, META = "state.pt", "generator.safetensors", "meta.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: one folder step-... in checkpoints/."""

    path: Path
    step: int

    def meta(self) -> dict[str, Any]:
        """Read the record of this checkpoint, meta.json.

        Raises:
            DamagedError: it is missing or damaged, or its step is not that of its folder.
        """
        try:
            meta: dict[str, Any] = records.read(self.path / META, schemas.CHECKPOINT, "this checkpoint is unusable")
        except FileNotFoundError as error:
            raise DamagedError(f"{self.path} has no {META}: this checkpoint is unusable") from error
        if meta["step"] != self.step:
            raise DamagedError(f"{self.path} holds a checkpoint of step {meta['step']}: the folder was renamed or replaced")
        return meta

    def check(self, name: str, *, content: bool = True) -> Path:
        """Return the path of one of its files after comparing its size with the record.

        Args:
            content: compare its sha256, too.

        Raises:
            DamagedError: the file is missing or differs; the message names it.
        """
        wanted = self.meta()["files"].get(name)
        path = self.path / name
        try:
            about = path.stat()
        except FileNotFoundError:
            about = None
        if wanted is None or about is None or not path.is_file():
            raise DamagedError(f"{path} is missing")
        unlike = f"{path} is damaged: it differs from its record in {META}"
        if about.st_size != wanted["bytes"]:
            raise DamagedError(unlike)
        if content and _sha256(path, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns) != wanted["sha256"]:
            raise DamagedError(unlike)
        return path

    def check_whole(self, *, content: bool = True) -> None:
        """Check that training can continue from it and that it can be evaluated.

        Raises:
            DamagedError: see `check`.
        """
        for name in (STATE, GENERATOR):
            self.check(name, content=content)

    @property
    def is_whole(self) -> bool:
        """Whether training can continue from it, judged by file names and sizes."""
        with contextlib.suppress(DamagedError):
            self.check_whole(content=False)
            return True
        return False

    @property
    def is_kept(self) -> bool:
        """Whether only its generator is kept, for evaluation, judged by file names and sizes."""
        with contextlib.suppress(DamagedError):
            self.check(GENERATOR, content=False)
            return not (self.path / STATE).exists()
        return False

    @property
    def saved(self) -> float:
        """When it was saved, seconds since 1970; 0 if that is not known. The folder itself changes whenever it is read."""
        with contextlib.suppress(FileNotFoundError):
            return (self.path / META).stat().st_mtime
        return 0.0

    def set_aside(self) -> None:
        """Rename it to `damaged-...`, so that a user can inspect it. Another process may have done so already."""
        aside = self.path.with_name(f"damaged-{self.path.name}")
        if aside.exists():  # written again since, and damaged again
            aside = aside.with_name(f"{aside.name}-{time.time_ns()}")
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(aside)


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, *_: int) -> str:
    """Compute the sha256 of a file, cached. The other arguments (inode, size, times) invalidate the cache if it changes."""
    return files.sha256_file(path)


def find(folder: Path) -> list[Checkpoint]:
    """List all checkpoints in a run's folder, oldest first."""
    return [Checkpoint(path, step) for step, path in rundir.find_steps(folder)]


def newest_step(folder: Path, *, content: bool = False) -> int:
    """Return the step of the newest checkpoint that training can continue from; 0 if there is none.

    Args:
        content: compare the sha256 of its files, too.
    """
    for checkpoint in reversed(find(folder)):
        with contextlib.suppress(DamagedError):
            checkpoint.check_whole(content=content)
            return checkpoint.step
    return 0


def with_generator(folder: Path) -> list[Checkpoint]:
    """List the checkpoints in a run's folder that have a generator, oldest first."""
    return [checkpoint for checkpoint in find(folder) if (checkpoint.path / GENERATOR).is_file()]


def named(name: str | None) -> tuple[RunDir, Checkpoint]:
    """Find a run and checkpoint by name: `RUN@STEP`, or `RUN` for its best checkpoint (the newest, if none is chosen).

    Args:
        name: None for the run with the newest checkpoint.

    Raises:
        ValueError: there is no such run, or no such checkpoint. The message lists the existing ones.
    """
    if name is None:
        if (newest := newest_run()) is None:
            raise ValueError(
                f"no run with a checkpoint in {rundir.runs_root()}, but for those of the demo, which must be named: "
                f"{console.command('submit')} trains on your songs; or name the folder of runs with $P2P_RUNS"
            )
        run, step = newest, ""
    else:
        run_name, at, step = name.rpartition("@") if "@" in name else (name, "", "")
        run = rundir.find(run_name)
        if at and not step.isdecimal():
            raise ValueError(f"{name}: write RUN@STEP, with the step of a checkpoint, such as {run_name}@1000")
        run.refuse_absent(_runs_there())
    found = {checkpoint.step: checkpoint for checkpoint in with_generator(run.checkpoints)}
    if not found:
        raise ValueError(f"the run {run.name} has no checkpoint yet: {console.command('status')} shows how far it is")
    if step:
        if int(step) not in found:
            there = ", ".join(str(one) for one in found)
            raise ValueError(f"the run {run.name} has no checkpoint of step {int(step)}: there are {there}")
        return run, found[int(step)]
    best = run.read_best()
    chosen = best["step"] if best is not None and best["step"] in found else max(found)
    return run, found[chosen]


def newest_run() -> RunDir | None:
    """Return the run with the newest checkpoint that has a generator; None if there is none.

    Runs of the demo count only when they are named: they learnt six seconds, and whoever tries the demo first and then a song
    wants to hear more than that.
    """
    newest: dict[RunDir, float] = {}
    for run in map(rundir.find, rundir.names()):
        with contextlib.suppress(FileNotFoundError, PermissionError):  # removed just now, or another user's
            if found := with_generator(run.checkpoints):
                newest[run] = found[-1].saved
    for run in sorted(newest, key=lambda run: newest[run], reverse=True):
        with contextlib.suppress(ValueError):  # damaged settings: whoever uses the run is told
            if rundir.read_settings(run).preset == "demo":
                continue
        return run
    return None


def _runs_there() -> str:
    names = rundir.names()
    return f": there are {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}" if names else ", which has none yet"

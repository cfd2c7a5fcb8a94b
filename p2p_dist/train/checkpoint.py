"""Save and load checkpoints: written atomically, verified when read; the newest valid one is used.

    checkpoints/step-00012000/state.pt               the training state (removed once only the generator is kept)
    checkpoints/step-00012000/generator.safetensors  the generator to evaluate: its moving average if there is one
    checkpoints/step-00012000/meta.json              step, settings, sizes and sha256 of the other two files

There is no pointer to the newest checkpoint: the folder is listed to find it. No random state is stored: all random numbers
are derived from the seed and the step. Only plain tensors and numbers are stored, and they are loaded with weights_only.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pickle
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
import torch

from p2p_dist.common import console, files, records, schemas
from p2p_dist.common.files import DamagedError
from p2p_dist.run import rundir
from p2p_dist.run.checkpoints import GENERATOR, META, STATE, Checkpoint, find, newest_step

__all__ = ["GENERATOR", "META", "STATE", "Checkpoint", "find", "newest_step"]


def save(folder: Path, step: int, state: dict[str, Any], generator: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    """Write one checkpoint: temporary folder, fsync of every file, rename, fsync of the parent.

    Args:
        state: nested dictionaries and lists of tensors and numbers. generator: the weights to evaluate.
        about: further entries of meta.json.
    """
    if (there := Checkpoint(folder / rundir.step_name(step), step)).path.exists():
        if not there.is_kept:
            return
        _remove(there)  # its training state was removed, and the training has passed this step again
    with files.new_folder(folder / rundir.step_name(step)) as temporary:
        listed = {}
        with (temporary / STATE).open("wb") as file:
            told = _Told(file)
            try:
                torch.save(state, told)  # type: ignore[arg-type]
            except RuntimeError:
                if told.error is None:
                    raise
                raise told.error from None  # torch's own message says only that the position in the file is wrong
            listed[STATE] = told.record()
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in generator.items()}
        with (temporary / GENERATOR).open("wb") as file:
            told = _Told(file)
            told.write(safetensors.torch.save(contiguous))
            listed[GENERATOR] = told.record()
        records.write(temporary / META, schemas.CHECKPOINT, {"step": step, **about, "files": listed})


class _Told:
    """Wraps a file and computes size and digest of the bytes as they are written, not read back."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.bytes, self.sha256 = file, 0, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            self.file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.sha256.update(data)
        self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        self.file.flush()

    def record(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "sha256": self.sha256.hexdigest()}


def load_newest(folder: Path, needed: Collection[str] = ()) -> tuple[int, dict[str, Any]] | None:
    """Load step and state of the newest valid checkpoint, on the CPU.

    A damaged checkpoint is reported and renamed to `damaged-...`, and the previous one is loaded instead.

    Args:
        needed: keys that the state must have.

    Returns:
        None if there is no checkpoint, because training has not started.

    Raises:
        ValueError: all checkpoints are damaged, or lack their training state. Training must not silently start from the
            beginning.
    """
    damaged, stateless = False, 0
    for checkpoint in reversed(find(folder)):
        if checkpoint.is_kept:
            stateless = max(stateless, checkpoint.step)
            continue
        try:
            checkpoint.check_whole()
            state = _load_state(checkpoint, needed)
            if stateless > checkpoint.step:
                gone = f"the training state of step {stateless} ({STATE}) was removed"
                console.complain(f"warning: {gone}: the training continues from step {checkpoint.step}")
            return checkpoint.step, state
        except DamagedError as error:
            console.complain(f"warning: {error}; it is renamed to damaged-..., and an older checkpoint is used")
            checkpoint.set_aside()
            damaged = True
    if damaged or any(folder.glob("damaged-*")):
        raise ValueError(
            f"no valid checkpoint is left in {folder}, all are damaged: restore one, or start a new run with --run NAME"
        )
    if stateless:
        raise ValueError(
            f"no checkpoint in {folder} has its training state ({STATE}) any more, so the training can't continue: restore "
            "that file of the newest checkpoint, or start a new run with --run NAME"
        )
    return None


def _load_state(checkpoint: Checkpoint, needed: Collection[str]) -> dict[str, Any]:
    """Load the state of a checkpoint whose files match its record.

    Raises:
        DamagedError: the file is not a training state, or it is the state of another step.
    """
    path = checkpoint.path / STATE
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise DamagedError(f"{path} is not a training state ({str(error).splitlines()[0][:200]})") from error
    except RuntimeError as error:
        if "PytorchStreamReader" not in str(error):
            raise  # for example out of memory
        raise DamagedError(f"{path} is not a training state ({str(error).splitlines()[0][:200]})") from error
    missing = [key for key in needed if key not in state] if isinstance(state, dict) else ["step"]
    if missing:
        raise DamagedError(f"{path} is not a training state: it has no {missing[0]!r}")
    if state.get("step", checkpoint.step) != checkpoint.step:
        raise DamagedError(f"{path} contains step {state['step']}, but its folder is that of step {checkpoint.step}")
    assert isinstance(state, dict)
    return state


def load_generator(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Load the weights to evaluate, on the CPU, under a lease.

    Raises:
        DamagedError: the weights are damaged or missing.
        FileNotFoundError: the training has removed this checkpoint since it was found.
    """
    with leased(checkpoint):
        try:
            return safetensors.torch.load_file(checkpoint.check(GENERATOR))
        except safetensors.SafetensorError as error:
            raise DamagedError(f"{checkpoint.path / GENERATOR} can't be read as weights ({error})") from error
        except (ValueError, OSError):
            if checkpoint.path.is_dir():
                raise
            raise FileNotFoundError(errno.ENOENT, "removed by the training", str(checkpoint.path)) from None


LEASE_SECONDS = 900.0
"""Seconds that a lease is valid: far longer than a read, but short enough that a killed reader's lease soon expires."""


@contextmanager
def leased(checkpoint: Checkpoint) -> Iterator[None]:
    """Keep a checkpoint from being removed while it is read.

    Without permission to write there, as in another user's run, it is read without this protection.

    Raises:
        FileNotFoundError: it has been removed already.
    """
    lease = checkpoint.path / f"lease-{files.writer()}"
    try:
        os.close(files.open_ours(lease, os.O_WRONLY))
        os.utime(lease)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, *files.FULL):
            raise
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it expires
            lease.unlink(missing_ok=True)


def is_leased(checkpoint: Checkpoint) -> bool:
    """Whether a process is reading the checkpoint. The lease of a killed reader expires."""
    for lease in checkpoint.path.glob("lease-*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - lease.stat().st_mtime < LEASE_SECONDS:
                return True
    return False


def prune(folder: Path, keep_last: int, is_kept: Callable[[int], bool]) -> None:
    """Remove older checkpoints. The newest `keep_last` stay whole; of others only the generator stays, if `is_kept(step)`.

    A checkpoint that an evaluation has leased stays until the lease ends.
    """
    found = find(folder)
    whole = [checkpoint.step for checkpoint in found if checkpoint.is_whole]
    oldest = whole[-keep_last] if len(whole) >= keep_last else 0
    for checkpoint in found:
        if checkpoint.step >= oldest:
            continue
        if is_kept(checkpoint.step):
            (checkpoint.path / STATE).unlink(missing_ok=True)
        elif not is_leased(checkpoint):
            _remove(checkpoint)


def _remove(checkpoint: Checkpoint) -> None:
    """Remove a checkpoint. It is renamed first: a reader must see the whole folder or none."""
    gone = files.temporary_beside(checkpoint.path)
    with contextlib.suppress(FileNotFoundError):  # an evaluation has set it aside
        checkpoint.path.rename(gone)
        shutil.rmtree(gone)


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield all tensors of a nested state in a fixed order, so that two states can be compared."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from tensors(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)

"""Checkpoints: whole or not there, verified when read, the newest valid one wins.

    checkpoints/step-00012000/state.pt               everything to go on with (absent once only the generator is kept)
    checkpoints/step-00012000/generator.safetensors  the generator to evaluate: its moving average where there is one
    checkpoints/step-00012000/meta.json              step, settings, sizes and sha256 of the files beside it

Nothing points at the newest checkpoint: it is found by looking. Nothing random is stored: randomness is drawn from the
seed and the step. Only plain tensors and numbers are stored, read with weights_only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from p2p_dist import console, files, rundir

STATE, GENERATOR, META = "state.pt", "generator.safetensors", "meta.json"


@dataclass(frozen=True)
class Checkpoint:
    """One folder of checkpoints/ that has its name, and so was written whole."""

    path: Path
    step: int

    def meta(self) -> dict[str, Any]:
        """The record of this checkpoint.

        Raises:
            ValueError: it is damaged.
        """
        try:
            meta = files.read_json(self.path / META)
        except FileNotFoundError as error:
            raise ValueError(f"{self.path} has no {META}") from error
        assert isinstance(meta, dict)
        return meta

    def check(self, name: str) -> Path:
        """The path of one of its files, after its size and sha256 were compared with the record.

        Raises:
            ValueError: the file is missing or differs; the message names it.
        """
        wanted = self.meta()["files"].get(name)
        path = self.path / name
        if wanted is None or not path.is_file():
            raise ValueError(f"{path} is missing")
        if path.stat().st_size != wanted["bytes"] or files.sha256_file(path) != wanted["sha256"]:
            raise ValueError(f"{path} is damaged: it differs from its record in {META}")
        return path

    @property
    def is_whole(self) -> bool:
        """Whether training can go on from it, as far as names tell."""
        return (self.path / STATE).is_file()


def find(folder: Path) -> list[Checkpoint]:
    """All checkpoints in a run's folder, oldest first."""
    return [Checkpoint(path, step) for step, path in rundir.find_steps(folder)]


def newest_step(folder: Path) -> int:
    """Step of the newest whole checkpoint, valid or not; 0 where there is none."""
    return max((checkpoint.step for checkpoint in find(folder) if checkpoint.is_whole), default=0)


def save(folder: Path, step: int, state: dict[str, Any], generator: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    """Write one checkpoint: temporary folder, fsync of every file, rename, fsync of the parent.

    Args:
        state: nested dictionaries and lists of tensors and numbers. generator: the weights to evaluate.
        about: further entries of meta.json.
    """
    if (folder / rundir.step_name(step)).exists():
        return
    with files.new_folder(folder / rundir.step_name(step)) as temporary:
        torch.save(state, temporary / STATE)
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in generator.items()}
        safetensors.torch.save_file(contiguous, temporary / GENERATOR)
        listed = {
            name: {"bytes": (temporary / name).stat().st_size, "sha256": files.sha256_file(temporary / name)}
            for name in (STATE, GENERATOR)
        }
        files.write_json(temporary / META, {"step": step, **about, "files": listed})


def load_newest(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Step and state of the newest whole checkpoint that is what its record says, on the CPU.

    A damaged one is set aside under `damaged-`, named, and the one before it is taken.

    Returns:
        None where there is none to go on from, because training has not begun.

    Raises:
        ValueError: there are whole checkpoints, and not one is valid: starting over silently would lose the run.
    """
    damaged = []
    for checkpoint in reversed(find(folder)):
        if not checkpoint.is_whole:
            continue
        try:
            path = checkpoint.check(STATE)
        except ValueError as error:
            console.complain(f"warning: {error}; set aside, going on from an older checkpoint")
            damaged.append(str(checkpoint.path))
            checkpoint.path.rename(checkpoint.path.with_name(f"damaged-{checkpoint.path.name}"))
            continue
        return checkpoint.step, torch.load(path, map_location="cpu", weights_only=True)
    if damaged or any(folder.glob("damaged-*")):
        raise ValueError(
            f"no valid checkpoint is left in {folder}, all were damaged: restore one, or begin another run with --run NAME"
        )
    return None


def load_generator(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The weights to evaluate, on the CPU.

    Raises:
        ValueError: they are damaged or missing.
    """
    return safetensors.torch.load_file(checkpoint.check(GENERATOR))


def prune(folder: Path, keep_last: int, is_kept: Callable[[int], bool]) -> None:
    """Leave the newest `keep_last` checkpoints whole; of older ones only the generator where `is_kept(step)`, else nothing.

    A folder that an evaluation has leased stays until the lease is gone.
    """
    for checkpoint in find(folder)[:-keep_last]:
        if is_kept(checkpoint.step):
            (checkpoint.path / STATE).unlink(missing_ok=True)
        elif not any(checkpoint.path.glob("lease-*")):
            # Not in place: a reader must see the whole folder or none.
            gone = checkpoint.path.with_name(f"{files.TEMPORARY}{os.getpid()}-{checkpoint.path.name}")
            checkpoint.path.rename(gone)
            shutil.rmtree(gone)


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors of a nested state, in order: for comparing two checkpoints."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from tensors(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)

"""A save that is cut short at every operation on files that it makes, one after the other; runs on one rank."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from p2p_dist.common import files
from p2p_dist.train import checkpoint
from p2p_dist.train.saver import Saver

CHANGES = ("open", "close", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir")
"""What of `os` a save uses to change anything; opening and writing through `io` come on top."""


class _File:
    """A file whose writes count; the one that is cut leaves half of its bytes behind."""

    def __init__(self, file: Any, cut: Cuts) -> None:
        self.file, self.cut = file, cut

    def write(self, data: Any) -> int:
        if self.cut.is_now("write"):
            self.file.write(bytes(data)[: len(data) // 2])
            self.file.flush()
            os._exit(9)
        return self.file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


class Cuts:
    """Counts the operations of this process on files, and ends it in the middle of number `at` as SIGKILL would."""

    def __init__(self, at: int | None) -> None:
        self.at, self.made = at, []
        honest_open = io.open

        def open_(*arguments: Any, **named: Any) -> Any:
            if self.is_now("io.open"):
                os._exit(9)
            return _File(honest_open(*arguments, **named), self)

        io.open = open_  # what pathlib opens with
        for name in CHANGES:
            setattr(os, name, self._wrapped(getattr(os, name), f"os.{name}"))

    def is_now(self, name: str) -> bool:
        self.made.append(name)
        return len(self.made) == self.at

    def _wrapped(self, honest: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if self.is_now(name):
                os._exit(9)
            return honest(*arguments, **named)

        return call


def state_of(step: int) -> dict[str, Any]:
    return {"step": step, "networks": {f"layer {n}": torch.full((64, 32), float(step + n)) for n in range(4)}}


def one_save(folder: Path, step: int) -> None:
    """What a training does at a checkpoint."""
    with Saver(folder, 2, lambda step: step == 5) as saver:
        saver.save(step, state_of(step), state_of(step)["networks"], {"settings": "abc"})
        saver.finish()


def in_child(function: Callable[[], None]) -> int:
    """Exit code of a forked process that calls `function`."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        function()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def cut_everywhere(folder: Path, sabotage: Callable[[], None] | None = None, every: int = 1) -> tuple[list[str], list[str]]:
    """Cut the save of step 20, over whole checkpoints of 10 and 15 and a kept generator of 5, at every operation.

    Args:
        every: cut only one operation in so many.

    Returns:
        the operations, in order, and what was wrong after a cut at one of them.
    """
    torch.set_num_threads(1)
    before = folder / "before"
    for step in (5, 10, 15):
        one_save(before, step)
    if sabotage is not None:
        sabotage()

    def listed() -> None:
        cuts = Cuts(None)
        one_save(dry, 20)
        names = "\n".join(cuts.made)
        os.write(writing, names.encode())

    dry = folder / "dry"
    shutil.copytree(before, dry)
    reading, writing = os.pipe()
    assert in_child(listed) == 0
    made = os.read(reading, 1 << 20).decode().split("\n")
    whole = sorted(path.name for path in dry.iterdir())
    assert whole == ["step-00000005", "step-00000015", "step-00000020"]
    wrong: list[str] = []
    for number, name in list(enumerate(made, 1))[::every]:
        place = folder / f"cut-{number}"
        shutil.copytree(before, place)

        def cut(place: Path = place, number: int = number) -> None:
            Cuts(number)
            one_save(place, 20)

        assert in_child(cut) == 9, f"the cut at {number} ({name}) did not happen"
        wrong += [f"{number}, {name}: {problem}" for problem in _after(place, whole)]
        shutil.rmtree(place)
    return made, wrong


def _after(place: Path, whole: list[str]) -> Iterator[str]:
    """What is wrong when a training goes on in `place`: it must find a good checkpoint, and leave what an uncut one leaves."""
    files.remove_garbage(place)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        try:
            found = checkpoint.load_newest(place)
        except ValueError as error:
            yield str(error)
            return
    if found is None or found[0] not in (15, 20):
        yield f"goes on from {found[0] if found else 'the beginning'}"
        return
    for name, tensor in state_of(found[0])["networks"].items():
        if not torch.equal(found[1]["networks"][name], tensor):
            yield f"{name} of step {found[0]} has other values"
    if left := [path.name for path in place.iterdir() if not path.name.startswith("step-")]:
        yield f"left behind: {', '.join(left)}"
    one_save(place, 20)
    one_save(place, 25)
    one_save(place, 30)
    if (names := sorted(path.name for path in place.iterdir())) != [whole[0], "step-00000025", "step-00000030"]:
        yield f"after two more saves: {', '.join(names)}"


def writes_in_place() -> None:
    """The negative twin: a checkpoint has its name from its first byte on."""

    @contextlib.contextmanager
    def new_folder(path: Path) -> Iterator[Path]:
        path.mkdir(parents=True)
        yield path

    files.new_folder = new_folder

"""Save checkpoints in the background: training waits only for a copy to host memory, which a thread then writes."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from p2p_dist.common import console
from p2p_dist.run import rundir
from p2p_dist.train import checkpoint

MISSES = 3
"""Number of consecutive saves that may fail before the training ends."""

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between retries of a save that must succeed before training continues or ends."""


class Saver:
    """Writes the checkpoints of one training and removes those that are not kept.

    One checkpoint is written at a time: the next save, and the end of training, wait for it. If the process is killed, at most
    one save interval is lost or, if a save was being written, less than two. A save that fails (disk full, quota) is
    a warning, and training continues. After `MISSES` failures in a row, or at the end of training, the save is retried
    for half a minute (`PAUSES`), and then is an error.

    Args:
        is_kept: whether the generator of a step is kept permanently. before: called before each checkpoint is written.

    `seconds` is the duration of the longest save so far.
    """

    def __init__(
        self, folder: Path, keep_last: int, is_kept: Callable[[int], bool], before: Callable[[], None] = lambda: None
    ) -> None:
        self.folder, self.keep_last, self.is_kept, self.before = folder, keep_last, is_kept, before
        self.host: dict[Any, torch.Tensor] = {}
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None
        self.misses = 0
        self.last: tuple[Any, ...] = ()
        self.seconds = 0.0

    def save(self, step: int, state: dict[str, Any], generator: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
        """Start writing a checkpoint. The tensors may change once the call returns. See `checkpoint.save`.

        Raises:
            OSError: the last `MISSES` saves failed.
        """
        self.wait()
        self.last = (step, _map(state, self._copy), _map(generator, self._copy), about)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.thread = threading.Thread(target=self._write, name=f"checkpoint at step {step}")
        self.thread.start()

    def wait(self) -> None:
        """Wait until the current save is written.

        Raises:
            OSError: it failed, and so did the `MISSES` - 1 saves before it.
        """
        if self.thread is None:
            return
        self.thread.join()
        self.thread = None
        reason = self._reason()
        if reason is None:
            self.misses = 0
            return
        self.misses += 1
        if self.misses >= MISSES:
            self._insist()
            return
        console.complain(
            f"warning: the checkpoint at step {self.last[0]} could not be written ({reason}); training continues, "
            f"and ends after {MISSES} failures in a row; last saved: step {checkpoint.newest_step(self.folder)}"
        )

    def finish(self) -> None:
        """Wait for the last save before the process ends. If it failed, retry it for half a minute.

        Raises:
            OSError: it failed again. The steps since the last valid checkpoint are lost.
        """
        self.wait()
        if self.misses:
            self._insist()

    def _insist(self) -> None:
        """Retry the last save until it is written.

        Raises:
            OSError: it still fails after half a minute.
        """
        for pause in (0.0, *PAUSES):
            time.sleep(pause)
            self._write()
            hopeless = isinstance(self.error, OSError) and self.error.errno == errno.EFBIG  # a file size limit does not go away
            if (reason := self._reason()) is None:
                self.misses = 0
                return
            if hopeless:
                break
        many = f"{self.misses} checkpoints in a row" if self.misses > 1 else "the checkpoint"
        raise OSError(f"{many} could not be written, the last at step {self.last[0]}: {reason}")

    def _reason(self) -> str | None:
        """Return why the last save failed; None if it succeeded."""
        error, self.error = self.error, None
        if error is None:
            return None
        if not isinstance(error, OSError | RuntimeError):
            raise error  # not a failed write: a bug
        return console.describe(error) if isinstance(error, OSError) else str(error)

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, *_: object) -> None:
        """Finish the current save, however training ends."""
        if self.thread is not None:
            self.thread.join()

    def _write(self) -> None:
        begun = time.monotonic()
        try:
            rundir.check_still_ours()
            self.before()
            checkpoint.save(self.folder, *self.last)
            checkpoint.prune(self.folder, self.keep_last, self.is_kept)
        except BaseException as error:
            self.error = error  # raised in the thread that waits
        self.seconds = max(self.seconds, time.monotonic() - begun)

    def _copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy a tensor to host memory that is reused for every save, and pinned if the tensor is on a GPU.

        The buffers are found by the tensor's address, so a tensor that occurs twice in the state is copied once.
        """
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if key not in self.host:
            self.host[key] = torch.empty_like(tensor, device="cpu", pin_memory=tensor.device.type == "cuda")
        return self.host[key].copy_(tensor.detach(), non_blocking=tensor.device.type == "cuda")


def _map(value: Any, copy: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Apply `copy` to every tensor in nested dictionaries."""
    if isinstance(value, torch.Tensor):
        return copy(value)
    if isinstance(value, dict):
        return {key: _map(inner, copy) for key, inner in value.items()}
    return value

"""Handle a loss or gradient that is not finite: the step changes no weights, and the run fails and names the samples."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist

from p2p_dist.data.stream import Stream
from p2p_dist.train.distributed import Ranks
from p2p_dist.train.networks import Networks


class Watch:
    """Reads the flags of a step while the next one is computed, so the host never waits for the device.

    Every rank sees the same first flag at the same step, because it comes from the reduced gradients, so all ranks stop
    together. On a GPU the flags are copied to pinned memory asynchronously, after the step.
    """

    def __init__(self, networks: Networks, stream: Stream, ranks: Ranks, checkpoints: Path) -> None:
        self.networks, self.stream, self.ranks, self.checkpoints = networks, stream, ranks, checkpoints
        self.gpu = ranks.device.type == "cuda"
        self.host = [torch.zeros(2, pin_memory=self.gpu) for _ in range(2)]
        self.arrived: list[torch.cuda.Event] = [torch.cuda.Event() for _ in range(2)] if self.gpu else []
        self.seen: int | None = None

    def after(self, step: int, flags: torch.Tensor) -> None:
        """Start reading the flags of update `step`, and check those of the previous update.

        Raises:
            FloatingPointError: the previous update was not finite. No weights changed. The message names step, ranks, samples.
        """
        slot = step % 2
        self.host[slot].copy_(flags, non_blocking=self.gpu)  # nothing would wait for it on a Mac
        if self.gpu:
            self.arrived[slot].record()
        if self.seen is not None:
            self._read(step - 1, undo=2)
        self.seen = step

    def now(self) -> None:
        """Check the flags of the last update, before its numbers are shown or saved. Waits for the device.

        Raises:
            FloatingPointError: see `after`.
        """
        if self.seen is not None:
            self._read(self.seen, undo=1)

    def _read(self, step: int, undo: int) -> None:
        if self.gpu:
            self.arrived[step % 2].synchronize()
        anywhere, here = self.host[step % 2].tolist()
        if anywhere:
            self.networks.undo(undo)
            raise FloatingPointError(
                f"a loss or gradient was not finite at step {step}: {self._blame(step, bool(here))}; "
                f"that step changed no weights, so all checkpoints in {self.checkpoints} are valid"
            )

    def _blame(self, step: int, here: bool) -> str:
        """Describe which ranks had which samples. All ranks must call it."""
        input, target = self.stream.batch(step - 1)
        keys = [self.stream.index.samples.key(n) for n in self.stream.samples(self.stream.positions(step - 1))]
        broken = ~torch.isfinite(input + target).flatten(1).all(1)
        named = [key for key, is_broken in zip(keys, broken.tolist(), strict=True) if is_broken]
        mine = (self.ranks.rank, here, keys, named)
        everyone: list[tuple[int, bool, list[str], list[str]]] = [mine] * self.ranks.world_size
        if self.ranks.gloo is not None:
            dist.all_gather_object(everyone, mine, group=self.ranks.gloo)
        guilty = [each for each in everyone if each[1] or each[3]]
        told = [
            f"rank {rank}: the values of {', '.join(named)} are not finite" if named else f"rank {rank} had {', '.join(keys)}"
            for rank, _, keys, named in guilty or everyone
        ]
        return "; ".join(told)

"""Launch a training step as a CUDA graph: one call of the host in place of some hundred.

The host needs about 20 ms to launch the kernels of a step one by one. On a fast GPU that is longer than the step itself unless
batches are large: tests/benchmarks/gpu.md has the figures.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from p2p_dist.common import console
from p2p_dist.settings.config import Train
from p2p_dist.train import checkpoint
from p2p_dist.train.distributed import Ranks
from p2p_dist.train.networks import Networks
from p2p_dist.train.step import train_step

Answer = tuple[dict[str, torch.Tensor], torch.Tensor]
Step = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, int], Answer]
"""`train_step` of given networks and settings: input, target, noise, seed of the drop-out."""

_WARM_UP = 4
"""Steps before the capture, in which libraries allocate and choose their algorithms."""


def step_of(networks: Networks, train: Train, ranks: Ranks) -> Step:
    """Return the step of a training: captured where `train.capture` asks for it and it can be, else launched kernel by kernel.

    Several processes are not captured, since their gradients travel in the midst of it, nor is ROCm, where it was never tried.
    """
    can_be = ranks.device.type == "cuda" and torch.version.hip is None and ranks.world_size == 1
    if train.capture and can_be and train.micro_batch_size is None:
        return Captured(networks, train)
    return lambda input, target, noise, seed: train_step(networks, input, target, noise, train, seed)


class Captured:
    """`train_step` as two CUDA graphs, which take turns as the two copies of `Networks.keep` do.

    The first call captures them, with the shapes of its batch. What a call returns is overwritten two calls later.
    """

    def __init__(self, networks: Networks, train: Train) -> None:
        self.networks, self.train = networks, train
        self.batch: list[torch.Tensor | None] = []
        self.graphs: list[tuple[torch.cuda.CUDAGraph, int, Answer]] = []
        self.calls = 0
        self.failed = False

    def __call__(self, input: torch.Tensor, target: torch.Tensor, noise: torch.Tensor | None, seed: int) -> Answer:
        if not self.graphs and not self.failed:
            self._capture_or_say_why([input, target, noise])
        if self.failed:
            return train_step(self.networks, input, target, noise, self.train, seed)
        for ours, theirs in zip(self.batch, (input, target, noise), strict=True):
            if ours is not None and theirs is not None:
                ours.copy_(theirs, non_blocking=True)
        if self.networks.generator.dropout:
            torch.manual_seed(seed)
        graph, self.networks.turn, answer = self.graphs[self.calls % 2]
        graph.replay()
        self.calls += 1
        return answer

    def _capture_or_say_why(self, batch: list[torch.Tensor | None]) -> None:
        """Capture both graphs; the steps taken for it are undone.

        Raises:
            ValueError: it cannot be captured, nor can this process go on without.
        """
        before = [(tensor, tensor.clone()) for tensor in [*checkpoint.tensors(self.networks.state()), self.networks.bad]]
        try:
            self._capture(batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = f"the step cannot be captured as a CUDA graph ({(str(error).splitlines() or ['unknown error'])[0]})"
            if self.networks.generator.dropout and self.networks.bad.is_cuda:  # torch's generator stays as the capture left it
                raise ValueError(f"{reason}: add --train.no-capture") from error
            console.say(f"note: {reason}: training goes on without, slower")
            self.graphs, self.batch, self.failed = [], [], True
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)

    def _capture(self, batch: list[torch.Tensor | None]) -> None:
        self.batch = [None if tensor is None else tensor.clone() for tensor in batch]
        for optimiser in (self.networks.generator_optimiser, self.networks.discriminator_optimiser):
            for group in optimiser.param_groups:
                group["capturable"] = True
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        pool = None
        for _ in range(2):
            graph = torch.cuda.CUDAGraph()
            # Of this thread: another one reads the next batch meanwhile, and may wait for the device or get pinned memory.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                answer = self._step()
            pool = graph.pool()
            self.graphs.append((graph, self.networks.turn, answer))

    def _step(self) -> Answer:
        input, target, noise = self.batch
        assert input is not None and target is not None
        return train_step(self.networks, input, target, noise, self.train, None)

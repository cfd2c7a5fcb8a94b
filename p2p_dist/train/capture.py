"""Launch a training step as a CUDA graph: one launch from the host instead of several hundred.

The host needs about 20 ms to launch the kernels of a step one by one. On a fast GPU this takes longer than the step itself,
unless batches are large. See tests/benchmarks/gpu.md for measurements.
"""

from __future__ import annotations

from typing import Protocol

import torch

from p2p_dist.common import console
from p2p_dist.settings.config import Train
from p2p_dist.train import checkpoint
from p2p_dist.train.distributed import Ranks
from p2p_dist.train.networks import Networks
from p2p_dist.train.step import train_step

Answer = tuple[dict[str, torch.Tensor], torch.Tensor]


class Step(Protocol):
    """`train_step` with fixed networks and settings."""

    def __call__(
        self,
        input: torch.Tensor,
        target: torch.Tensor,
        noise: torch.Tensor | None,
        seed: int,
        guide: torch.Tensor | None = None,
    ) -> Answer: ...


_WARM_UP = 4
"""Steps before the capture. In these, libraries allocate memory and choose their algorithms."""


def step_of(networks: Networks, train: Train, ranks: Ranks, weight: float = 1.0) -> Step:
    """Return the function that runs a training step: a CUDA graph if `train.capture` is set and supported, else `train_step`.

    Not supported: several processes, because the step contains an all-reduce of the gradients; ROCm, which is untested; and
    profiles, which show a graph as one operation.

    Args:
        weight: see `train_step`.
    """
    can_be = ranks.device.type == "cuda" and torch.version.hip is None and ranks.world_size == 1
    if train.capture and can_be and train.micro_batch_size is None and train.profile is None:
        return Captured(networks, train)

    def step(
        input: torch.Tensor, target: torch.Tensor, noise: torch.Tensor | None, seed: int, guide: torch.Tensor | None = None
    ) -> Answer:
        return train_step(networks, input, target, noise, train, seed, weight, guide)

    return step


class _RandomNumbers:
    """The state of a GPU's random generator before a capture.

    A capture that fails leaves torch's generator (2.11) in the mode in which graphs record their draws; any other draw then
    raises an error, and seeding it does not help.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            self.generator = torch.cuda.default_generators[device.index or 0]
            self.state = self.generator.clone_state()

    def restore(self) -> None:
        """Give the generator this state, in a mode in which it can draw.

        Raises:
            RuntimeError: it still can't.
        """
        if self.device.type == "cuda":
            self.generator.graphsafe_set_state(self.state)
            torch.rand(1, device=self.device)


class Captured:
    """`train_step` as two CUDA graphs, which alternate because the two copies in `Networks.keep` do.

    The first call captures both, with the shapes of its batch. The tensors that a call returns are overwritten two calls later.
    """

    def __init__(self, networks: Networks, train: Train) -> None:
        self.networks, self.train = networks, train
        self.batch: list[torch.Tensor | None] = []
        self.graphs: list[tuple[torch.cuda.CUDAGraph, int, Answer]] = []
        self.calls = 0
        self.failed = False

    def __call__(
        self,
        input: torch.Tensor,
        target: torch.Tensor,
        noise: torch.Tensor | None,
        seed: int,
        guide: torch.Tensor | None = None,
    ) -> Answer:
        if not self.graphs and not self.failed:
            self.begin([input, target, noise, guide])
        if self.failed:
            return train_step(self.networks, input, target, noise, self.train, seed, guide=guide)
        for ours, theirs in zip(self.batch, (input, target, noise, guide), strict=True):
            if ours is not None and theirs is not None:
                ours.copy_(theirs, non_blocking=True)
        if self.networks.generator.dropout:
            torch.manual_seed(seed)
        graph, self.networks.turn, answer = self.graphs[self.calls % 2]
        graph.replay()
        self.calls += 1
        return answer

    def begin(self, batch: list[torch.Tensor | None]) -> None:
        """Capture both graphs, then restore the state from before the capture. If the capture fails, report why.

        Raises:
            ValueError: the capture failed, and this process can't continue without it.
        """
        before = [(tensor, tensor.clone()) for tensor in [*checkpoint.tensors(self.networks.state()), self.networks.bad]]
        random = _RandomNumbers(self.networks.bad.device)
        try:
            self.capture(batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = f"the step cannot be captured as a CUDA graph ({(str(error).splitlines() or ['unknown error'])[0]})"
            try:
                random.restore()
            except RuntimeError as broken:
                if self.networks.generator.dropout:
                    raise ValueError(f"{reason}: add --train.no-capture") from broken
            console.say(f"note: {reason}: training continues without it, more slowly")
            self.graphs, self.batch, self.failed = [], [], True
            self.networks.discriminator.requires_grad_(True)  # a step that was cut off leaves it frozen
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)

    def capture(self, batch: list[torch.Tensor | None]) -> None:
        """Run warm-up steps with the batch, then capture two more. All change the networks, none is a step of the training."""
        self.batch = [None if tensor is None else tensor.clone() for tensor in batch]
        for optimiser in (self.networks.generator_optimiser, self.networks.discriminator_optimiser):
            for group in optimiser.param_groups:
                group["capturable"] = True
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self.step()
        torch.cuda.current_stream().wait_stream(stream)
        pool = None
        for _ in range(2):
            graph = torch.cuda.CUDAGraph()
            # thread_local: another thread reads the next batch meanwhile, and may synchronise or allocate pinned memory.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                answer = self.step()
            pool = graph.pool()
            self.graphs.append((graph, self.networks.turn, answer))

    def step(self) -> Answer:
        """Take one step with the batch that the graphs read."""
        input, target, noise, guide = self.batch
        assert input is not None and target is not None
        return train_step(self.networks, input, target, noise, self.train, None, guide=guide)

"""Settings of the training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from p2p_dist.settings.fields import added, resource
from p2p_dist.settings.values import NotNegativeNumber, Positive, PositiveNumber, Rule, Seed, ShareBelowOne, check, within


@dataclass(frozen=True)
class Train:
    """How the networks are trained."""

    epochs: PositiveNumber | None = 100
    """passes over the training windows; None where train.steps says how long to train"""
    steps: Positive | None = None
    """updates of both networks, instead of epochs"""
    global_batch_size: Annotated[int, within(1, 1_000_000)] = 64
    """pairs of one update, over all processes together"""
    learning_rate: PositiveNumber = 2e-4
    """of both Adam optimisers"""
    beta1: ShareBelowOne = 0.5
    """Adam's decay of the first moment"""
    epsilon: PositiveNumber = 1e-8
    """Adam's epsilon (Keras, and so the thesis: 1e-7)"""
    adversarial_loss: Literal["hinge", "bce"] = "hinge"
    """of the discriminator's patches"""
    l1_weight: NotNegativeNumber = 20.0
    """weight of the mean absolute error beside the adversarial loss"""
    difference_weight: NotNegativeNumber = 0.5
    """weight, relative to l1-weight, of the error of the difference from frame to frame (sharp onsets)"""
    compressed_weight: NotNegativeNumber = added(0.0, implied=0.0)
    """weight, relative to l1-weight, of the squared error of compressed magnitudes (loud parts count more)"""
    flux_weight: NotNegativeNumber = added(0.0, implied=0.0)
    """weight, relative to l1-weight, of 1 - the correlation of rises over time (onsets at the right moments)"""
    feature_weight: NotNegativeNumber = 10.0
    """weight of feature matching in the discriminator"""
    pattern_steps: Positive = added(600, implied=600)
    """updates of each network that predicts onsets, where the model has a sketch"""
    ema: ShareBelowOne = 0.999
    """decay of the moving average of the generator that is evaluated (0: none)"""
    seed: Seed = 0
    """of weights, order of the windows, noise"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """of the networks' arithmetic; auto: bf16 on GPUs that have it, else fp32, decided when the run begins"""
    gradient_precision: Literal["fp32", "bf16"] = "fp32"
    """in which gradients travel between processes; bf16 is half the traffic"""
    checkpoint_every: Positive = 1000
    """steps between two checkpoints: what a crash can cost, beside the steps trained while the last was being written"""
    keep_last: Annotated[int, Rule(lambda n: n >= 2, "at least 2 (the last may be damaged)")] = 2
    """whole checkpoints that stay; at least 2, since the newest may be the one being written"""
    keep_every: PositiveNumber = 5
    """epochs between two generators that are kept for good and evaluated"""
    log_every: Positive = resource(50)
    """steps between two lines of numbers"""
    micro_batch_size: Positive | None = resource(None)
    """pairs that a process computes at once, where its share of the batch does not fit into memory (default: all)"""
    layout: Literal["auto", "channels_last", "contiguous"] = resource("auto")
    """order of pictures in memory, changes rounding only; auto: channels_last for bf16, except on ROCm"""
    compile: bool = resource(False)
    """compile the networks (torch.compile: minutes at every start, fewer kernels a step); changes rounding only"""
    capture: bool = resource(True)
    """launch each step as a CUDA graph, where a run has one process on an NVIDIA GPU: faster, changes rounding only"""
    hang_after: PositiveNumber = resource(300.0)
    """seconds without a step after which a process ends its training as hanging, all stacks in its log; more than a save"""
    tensorboard: bool = resource(False)
    """write the numbers, and pictures at every checkpoint, for TensorBoard too"""

    def __post_init__(self) -> None:
        check(self, "train.")
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"either train.epochs ({self.epochs}) or train.steps ({self.steps}) sets how long to train: give one of them"
            )

    def total_steps(self, samples: int) -> int:
        """Updates of the whole training: `steps`, or enough for `epochs` passes over so many windows."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, math.ceil(self.epochs * samples / self.global_batch_size))

    def is_kept(self, step: int, samples: int) -> bool:
        """Whether the generator after `step` updates stays for good: the first past every `keep_every` epochs, and the last."""
        steps = self.keep_every * samples / self.global_batch_size
        return math.floor(step / steps) > math.floor((step - 1) / steps) or step == self.total_steps(samples)

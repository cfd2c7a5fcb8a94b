"""Settings of the training."""

from __future__ import annotations

import fnmatch
import math
import re
from dataclasses import dataclass
from typing import Annotated, Literal

from p2p_dist.settings.fields import SAYS_DEFAULT, added, resource
from p2p_dist.settings.values import NotNegativeNumber, Positive, PositiveNumber, Rule, Seed, ShareBelowOne, Text, check, within


def step_range(text: str) -> tuple[int, int] | None:
    """Parse a range of steps: first and last; None if it is not one.

    >>> step_range("200-210"), step_range("7"), step_range("7-6")
    ((200, 210), (7, 7), None)
    """
    found = re.fullmatch("([1-9][0-9]{0,14})(?:-([1-9][0-9]{0,14}))?", text)
    first, last = (0, -1) if found is None else (int(found[1]), int(found[2] or found[1]))
    return (first, last) if first <= last else None


@dataclass(frozen=True)
class Train:
    """How the networks are trained."""

    epochs: PositiveNumber | None = 100
    """number of passes over the training windows; None if train.steps is given instead"""
    steps: Positive | None = None
    """number of updates of both networks, instead of epochs"""
    global_batch_size: Annotated[int, within(1, 1_000_000)] = 64
    """pairs per update, in all processes together"""
    learning_rate: PositiveNumber = 2e-4
    """learning rate of both Adam optimisers"""
    beta1: ShareBelowOne = 0.5
    """Adam's decay of the first moment"""
    epsilon: PositiveNumber = 1e-8
    """Adam's epsilon (Keras and thesis: 1e-7)"""
    adversarial_loss: Literal["hinge", "bce"] = "hinge"
    """adversarial loss of the discriminator's patches"""
    l1_weight: NotNegativeNumber = 20.0
    """weight of the mean absolute error; the adversarial loss has weight 1"""
    difference_weight: NotNegativeNumber = 0.5
    """weight, relative to l1-weight, of the error of the differences between frames (for sharp onsets)"""
    compressed_weight: NotNegativeNumber = added(0.0, implied=0.0)
    """weight, relative to l1-weight, of the squared error of compressed magnitudes (loud parts count more)"""
    flux_weight: NotNegativeNumber = added(0.0, implied=0.0)
    """weight, relative to l1-weight, of 1 - the correlation of rises over time (onsets at the right moments)"""
    feature_weight: NotNegativeNumber = 10.0
    """weight of feature matching in the discriminator"""
    pattern_steps: Positive = added(200, implied=200)
    """updates of each network that predicts onsets, where the model has a sketch"""
    predicted_strokes: bool = added(False, implied=True)
    """with a sketch: the generator learns from predicted strokes as well, in a quarter of its sketches (else from true ones)"""
    kits: Text = added("*", implied="*")
    """with a sketch: training songs that give strokes, by name, with * and ? ('EVR - *'); others give only patterns"""
    loud_strokes: bool = added(True, implied=False)
    """with a sketch: cut strokes from the louder half of a song's kicks, snares and so on first (else those that ring alone)"""
    ema: ShareBelowOne = 0.999
    """decay of the exponential moving average of the generator, which is evaluated (0: none)"""
    ema_warmup: bool = added(True, implied=False)
    """average over about a ninth of the updates until --train.ema is reached, so early averages forget the first weights"""
    seed: Seed = 0
    """seed of the first weights, the order of the windows and the noise"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """precision of the networks; auto: bf16 on GPUs that support it, else fp32, decided when the run is created; on a
    CPU without units for bf16, bf16 takes 10 to 30 times as long"""
    gradient_precision: Literal["fp32", "bf16"] = "fp32"
    """precision of gradients sent between processes; bf16 halves the traffic"""
    checkpoint_every: Positive = 1000
    """steps between two checkpoints; a crash loses at most these and the steps trained while a checkpoint was written"""
    keep_last: Annotated[int, Rule(lambda n: n >= 2, "at least 2 (the last may be damaged)")] = 2
    """number of latest checkpoints to keep; at least 2, because the newest may be damaged"""
    keep_every: PositiveNumber = 5
    """epochs between two generators that are kept and evaluated"""
    log_every: Positive = resource(50)
    """steps between two lines in metrics.jsonl"""
    micro_batch_size: Annotated[Positive | None, SAYS_DEFAULT] = resource(None)
    """pairs that a process computes at once, if its share of the batch does not fit into memory (default: all)"""
    layout: Literal["auto", "channels_last", "contiguous"] = resource("auto")
    """memory format of the networks, changes rounding only; auto: channels_last for bf16, except on ROCm"""
    compile: bool = resource(False)
    """compile the networks with torch.compile: minutes at every start, fewer kernels per step; changes rounding only"""
    capture: bool = resource(True)
    """launch each step as a CUDA graph if the run has one process on an NVIDIA GPU: faster, changes rounding only"""
    hang_after: PositiveNumber = resource(300.0)
    """seconds without a step after which a process logs its stacks and exits as hanging; must be longer than a save takes"""
    profile: Annotated[str, Rule(step_range, "a step or a range of steps, as in 200-210")] | None = resource(None)
    """steps to profile, as in 200-210: a trace of each process in the run's folder profile, and a table in the log"""
    tensorboard: bool = resource(False)
    """also write metrics, and spectrograms at every checkpoint, for TensorBoard"""
    tracker: Literal["none", "mlflow", "wandb", "trackio"] = resource("none")
    """experiment tracker that also receives the metrics; unless its own variables are set, it keeps them in the run"""

    def __post_init__(self) -> None:
        check(self, "train.")
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"either train.epochs ({self.epochs}) or train.steps ({self.steps}) sets how long to train: give one of them"
            )

    def gives_kit(self, song: str) -> bool:
        """Return whether the training song of this name gives strokes, see `kits`."""
        return song == self.kits or fnmatch.fnmatchcase(song, self.kits)

    def total_steps(self, samples: int) -> int:
        """Return the number of updates of the training: `steps`, or enough for `epochs` passes over this many windows."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, math.ceil(self.epochs * samples / self.global_batch_size))

    def is_kept(self, step: int, samples: int) -> bool:
        """Whether the generator after `step` updates is kept: the first after every `keep_every` epochs, and the last."""
        steps = self.keep_every * samples / self.global_batch_size
        return math.floor(step / steps) > math.floor((step - 1) / steps) or step == self.total_steps(samples)

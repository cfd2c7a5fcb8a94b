"""All settings of a run, as one tree of frozen dataclasses.

Science (data, model, train, evaluate) is fixed for the life of a run; fields marked `resource` may change at every
start. Precedence: defaults < preset < YAML file < flags.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

STEMS = ("drums", "bass", "other", "vocals")
"""The stems of MUSDB18, in its own order (the mixture stream before them is never used)."""

TASKS = {
    "drums": "vocals+bass+other->drums",
    "accompaniment": "vocals->drums+bass+other",
    "bass": "vocals+drums+other->bass",
    "vocals": "drums+bass+other->vocals",
}
"""Named tasks: what is heard -> what is to be made."""


def resource(default: Any) -> Any:
    """A field that says where and how fast, not what: it may change from one start of a run to the next."""
    return field(default=default, metadata={"resource": True})


def added(default: Any, implied: Any) -> Any:
    """A science field that older runs and shards lack.

    Args:
        implied: what the code of their time did. At this value the field changes no digest and no name, so that what older
            versions made stays what it is; a saved run without the field has this value.
    """
    return field(default=default, metadata={"implied": implied})


def parse_task(task: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split a task into the stems heard and the stems to make, in the order of `STEMS`.

    >>> parse_task("drums")
    (('bass', 'other', 'vocals'), ('drums',))

    Raises:
        ValueError: not a known name and not `a+b->c`; no stem on a side, an unknown one, or one on both sides.
    """
    text = TASKS.get(task.strip(), task)
    if text.count("->") != 1:
        raise ValueError(f"task {task!r}: give one of {', '.join(TASKS)}, or stems as in 'vocals+other->drums+bass'")
    sides = [[stem.strip() for stem in side.split("+")] for side in text.split("->")]
    for side, place in zip(sides, ("heard before", "to be made after"), strict=True):
        if side == [""]:
            raise ValueError(f"task {task!r}: no stem {place} '->'; the stems are {', '.join(STEMS)}")
    for stem in [*sides[0], *sides[1]]:
        if stem not in STEMS:
            raise ValueError(f"task {task!r}: unknown stem {stem!r}; the stems are {', '.join(STEMS)}")
    if both := set(sides[0]) & set(sides[1]):
        raise ValueError(f"task {task!r}: {', '.join(sorted(both))} can't be both input and target")
    heard, made = (tuple(stem for stem in STEMS if stem in side) for side in sides)
    return heard, made


def seconds_of(time: str) -> int:
    """Slurm's ways to write a time limit, in seconds: `90` (minutes), `90:00`, `1:30:00`, `2-0`, `2-00:00:00`.

    Raises:
        ValueError: it is none of these, or nothing.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if match is None:
        raise ValueError(f"time {time!r}: write it as 90 (minutes), 1:30:00 or 2-00:00:00")
    days, *parts = (None if part is None else int(part) for part in match.groups())
    given = [part for part in parts if part is not None]
    if days is None and len(given) < 3:  # minutes[:seconds]
        given = [0, *given]
    hours, minutes, seconds = [*given, 0, 0][:3]
    total = (((days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    if total < 1:
        raise ValueError(f"time {time!r}: must be greater than zero")
    return total


def _positive(owner: Any, *names: str) -> None:
    for name in names:
        if not 0 < getattr(owner, name) < math.inf:
            raise ValueError(f"{name.replace('_', '-')} must be greater than 0 and finite, not {getattr(owner, name)}")


@dataclass(frozen=True)
class Data:
    """The songs and how spectrograms are made of them."""

    root: Annotated[str | None, tyro.conf.arg(aliases=["--data"])] = resource(None)
    """folder of songs: MUSDB18, MUSDB18-HQ or laid out like them (default: $MUSDB_PATH, else a 6-second excerpt)"""
    split_by_title: bool = added(False, implied=False)
    """the songs lie in that folder itself, without train/ and test/: about a fifth, by a hash of the title, is for tests"""
    task: Annotated[str, tyro.conf.arg(aliases=["--task"])] = "drums"
    """drums, accompaniment, bass, vocals, or any 'vocals+other->drums+bass'"""
    representation: Literal["default", "thesis"] = "default"
    """default: the stem, at one level taken from the input; thesis: the whole mix, each window at its own level"""
    # Drums of five real songs through pictures and back, log-mel L1 at 44.1 kHz and onset F1: 0.55 dB and 0.999, where
    # 22.05 kHz with 1024 and 256 gives 1.85 dB and 0.994: cymbals. tests/benchmarks/representation.py prints it.
    sample_rate: int = 44100
    """of the spectrograms, Hz"""
    n_fft: int = 2048
    """length of one Fourier transform, samples"""
    hop_length: int = 512
    """samples from one frame to the next"""
    mels: int = 128
    """mel bands of a picture (its height)"""
    frames: int = 256
    """frames of a window (the width of a picture)"""
    window_hop: int = 128
    """frames from one window to the next"""
    channels: Literal["mono", "mid-side"] = "mono"
    """pictures of the mean of the channels, or of their mean and half their difference"""
    silent_share: float = 1.0
    """share kept of the training windows in which the target is silent"""
    copies: int = 0
    """augmented copies of every training window: other levels, colour, side and tempo, the same relation"""
    seed: int = 0
    """of the choice of silent windows and of the copies"""
    stage: Literal["none", "node", "device"] = resource("none")
    """read shards where they are (none), from a copy in the node's memory (node), from the device's memory (device)"""

    @property
    def picture_channels(self) -> int:
        """Channels of a picture, of input and target alike."""
        return 2 if self.channels == "mid-side" else 1

    def __post_init__(self) -> None:
        parse_task(self.task)
        _positive(self, "sample_rate", "n_fft", "hop_length", "mels", "frames", "window_hop")
        if self.n_fft % self.hop_length or self.n_fft == self.hop_length:
            raise ValueError(f"data.hop-length {self.hop_length} must divide data.n-fft {self.n_fft}: frames overlap evenly")
        if self.window_hop > self.frames:
            raise ValueError(f"data.window-hop {self.window_hop} is over data.frames {self.frames}: sound would be left out")
        if self.mels > (most := self._most_mels()):
            raise ValueError(
                f"data.mels {self.mels} is too many for data.n-fft {self.n_fft} at {self.sample_rate} Hz, bands would be "
                f"narrower than its bins and stay empty: at most {most}, or a longer data.n-fft"
            )
        if not 0 <= self.silent_share <= 1:
            raise ValueError(f"data.silent-share must be from 0 to 1, not {self.silent_share}")
        if not 0 <= self.copies <= 1000:
            raise ValueError(f"data.copies must be from 0 to 1000, not {self.copies}")
        if self.copies and self.sample_rate <= 8000:
            raise ValueError(f"data.copies change sound over 4 kHz, which data.sample-rate {self.sample_rate} does not hold")
        if self.representation == "thesis" and (self.copies or self.channels != "mono"):
            raise ValueError("the thesis's representation is mono and has no copies: give data.representation default")

    def _most_mels(self) -> int:
        """Mel bands of which even the narrowest, those below 1 kHz, where Slaney's scale is linear, span a Fourier bin."""
        top = self.sample_rate / 2
        mel = top * 3 / 200 if top < 1000 else 15 + 27 * math.log(top / 1000) / math.log(6.4)
        return max(math.ceil(mel * 400 / 3 * self.n_fft / self.sample_rate) - 2, 1)


@dataclass(frozen=True)
class Model:
    """The two networks."""

    channels: int = 64
    """channels of the generator's first level"""
    max_channels: int = 1024
    """channels of its deepest levels"""
    depth: int = 5
    """how often the generator halves the picture"""
    upsample: Literal["nearest", "transposed"] = "nearest"
    """nearest neighbour and a 3x3 convolution, or a transposed 4x4 convolution (the thesis's; leaves a checkerboard)"""
    norm: Literal["group", "batch"] = "group"
    """group norm, or batch norm on the batch's own statistics (the thesis's)"""
    dropout: float = 0.0
    """share dropped on the generator's three deepest up levels, in training and generation alike (the thesis: 0.5)"""
    noise_channels: int = 1
    """pictures of noise beside the input, the source of variety (0: none)"""
    leaky_slope: float = 0.2
    """slope of the leaky ReLU below zero (Keras, and so the thesis: 0.3)"""
    discriminator_channels: int = 64
    """channels of the discriminator's first level"""
    discriminator_norm: Literal["spectral", "batch"] = "spectral"
    """spectral norm of the weights, or batch norm (the thesis's)"""

    def __post_init__(self) -> None:
        _positive(self, "channels", "max_channels", "depth", "discriminator_channels")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout must be from 0 to below 1, not {self.dropout}")
        if self.noise_channels < 0:
            raise ValueError(f"model.noise-channels must not be negative, not {self.noise_channels}")


@dataclass(frozen=True)
class Train:
    """How the networks are trained."""

    epochs: float | None = 100
    """passes over the training windows; None where train.steps says how long to train"""
    steps: int | None = None
    """updates of both networks, instead of epochs"""
    global_batch_size: int = 64
    """pairs of one update, over all processes together"""
    learning_rate: float = 2e-4
    """of both Adam optimisers"""
    beta1: float = 0.5
    """Adam's decay of the first moment"""
    epsilon: float = 1e-8
    """Adam's epsilon (Keras, and so the thesis: 1e-7)"""
    adversarial_loss: Literal["hinge", "bce"] = "hinge"
    """of the discriminator's patches"""
    l1_weight: float = 20.0
    """weight of the mean absolute error beside the adversarial loss"""
    difference_weight: float = 0.5
    """weight, relative to l1-weight, of the error of the difference from frame to frame (sharp onsets)"""
    feature_weight: float = 10.0
    """weight of feature matching in the discriminator"""
    ema: float = 0.999
    """decay of the moving average of the generator that is evaluated (0: none)"""
    seed: int = 0
    """of weights, order of the windows, noise"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """of the networks' arithmetic; auto: bf16 on GPUs that have it, else fp32, decided when the run begins"""
    gradient_precision: Literal["fp32", "bf16"] = "fp32"
    """in which gradients travel between processes; bf16 is half the traffic"""
    checkpoint_every: int = 1000
    """steps between two checkpoints: what a crash can cost, beside the steps trained while the last was being written"""
    keep_last: int = 2
    """whole checkpoints that stay; at least 2, since the newest may be the one being written"""
    keep_every: float = 5
    """epochs between two generators that are kept for good and evaluated"""
    log_every: int = resource(50)
    """steps between two lines of numbers"""
    micro_batch_size: int | None = resource(None)
    """pairs that a process computes at once, where its share of the batch does not fit into memory (default: all)"""
    layout: Literal["auto", "channels_last", "contiguous"] = resource("auto")
    """order of pictures in memory, changes rounding only; auto: channels_last for bf16, except on ROCm"""
    compile: bool = resource(False)
    """compile the networks (torch.compile: minutes at every start, fewer kernels a step); changes rounding only"""
    hang_after: float = resource(300.0)
    """seconds without a step after which a process ends its training as hanging, all stacks in its log; more than a save"""
    tensorboard: bool = resource(False)
    """write the numbers, and pictures at every checkpoint, for TensorBoard too"""

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"either train.epochs ({self.epochs}) or train.steps ({self.steps}) sets how long to train: give one of them"
            )
        _positive(self, "global_batch_size", "learning_rate", "epsilon", "checkpoint_every", "keep_every", "log_every")
        _positive(self, "hang_after")
        for name in ("epochs", "steps", "micro_batch_size"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise ValueError(f"train.{name.replace('_', '-')} must be greater than 0 and finite, not {value}")
        for name in ("beta1", "l1_weight", "difference_weight", "feature_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"train.{name.replace('_', '-')} must be 0 or more and finite, not {getattr(self, name)}")
        if self.keep_last < 2:
            raise ValueError(f"train.keep-last must be at least 2, not {self.keep_last}: the last may be damaged")
        if not 0 <= self.ema < 1:
            raise ValueError(f"train.ema must be from 0 to below 1, not {self.ema}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"train.seed must be from 0 to 4294967295, not {self.seed}")

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


@dataclass(frozen=True)
class Evaluate:
    """How checkpoints are evaluated, and how the best one is chosen."""

    split: Literal["test", "valid"] = "test"
    """the songs held out from training whose figures are reported; validation songs, where there are some, choose"""
    songs: int = 10
    """at most so many of them, and as many validation songs"""
    seconds: float = 30.0
    """of each song: its part with the most target sound (0: the whole song)"""
    iterations: int = 32
    """of Griffin-Lim, from spectrogram to sound"""
    seeds: int = 2
    """generations of each song, each from other noise, whose measures are averaged; the first is heard"""
    allow_overlap: Annotated[bool, tyro.conf.arg(aliases=["--allow-overlap"])] = resource(False)
    """measure also held-out songs that have the sound of a training song, of which figures say nothing of other songs"""
    time_weight: float = 1.0
    """in the score that ranks checkpoints: of being in time"""
    real_weight: float = 1.0
    """in that score: of sounding like the real thing"""
    amount_weight: float = 1.0
    """in that score: of being the right amount"""

    def __post_init__(self) -> None:
        _positive(self, "songs", "iterations", "seeds")
        if self.seconds < 0:
            raise ValueError(f"evaluate.seconds must not be negative, not {self.seconds}")
        weights = (self.time_weight, self.real_weight, self.amount_weight)
        if not (all(0 <= weight < math.inf for weight in weights) and sum(weights) > 0):
            raise ValueError(f"evaluate's weights must be 0 or more, finite and not all 0, not {weights}")


@dataclass(frozen=True)
class Where:
    """The machine or cluster that jobs run on."""

    cluster: Literal["auto", "local", "slurm", "lumi"] = "auto"
    """auto: Slurm where there is one, else this machine"""
    site: str | None = None
    """file that describes your cluster, a copy of hpc/sites/slurm.yaml (default: that of --cluster)"""
    container: str | None = None
    """image that the jobs run in, see containers/README.md (default: the site's)"""
    overlay: str | None = None
    """file to lay over that image, where it lacks what jobs need: containers/build_overlay.sh"""
    account: str | None = None
    """project that Slurm bills"""
    partition: str | None = None
    """partition of the training; of preprocess, that of its jobs (default: the site's)"""


@dataclass(frozen=True)
class Resources(Where):
    """The cluster, jobs and limits of a run. These settings may change at every launch."""

    nodes: int = 1
    """nodes to train on (on one machine without Slurm: groups of processes)"""
    processes_per_node: int | None = None
    """training processes on a node (default: the GPUs of the site's nodes, else 1)"""
    workers: int | None = None
    """preprocessing processes (default: one a core, and at least one a node)"""
    preprocess_array: int | None = None
    """on Slurm: preprocess in an array of so many jobs, which share the songs (default: one job)"""
    time: str = "24:00:00"
    """time limit of one training job, days-hours:minutes:seconds as in Slurm; a longer training goes on in the next"""
    evaluate: Literal["after", "during", "never"] = "after"
    """when checkpoints are evaluated: after the training, or on Slurm as they appear, by a job beside it; never: not yet"""
    evaluate_array: int | None = None
    """evaluate in an array of so many jobs, which share the checkpoints (default: one job)"""
    max_requeues: int = 10
    """how often a training that its time limit or a preemption stopped is queued again by itself"""
    max_crash_restarts: int = 3
    """how often one that crashed is, provided that it came further than at its last start"""
    max_gpu_hours: float | None = None
    """no further start once the run's trainings have used so many, over all its launches (default: as the starts can take)"""

    def __post_init__(self) -> None:
        _positive(self, "nodes")
        for name in ("processes_per_node", "workers", "preprocess_array", "evaluate_array"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name.replace('_', '-')} must be at least 1, not {value}")
        for name in ("max_requeues", "max_crash_restarts"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name.replace('_', '-')} must not be negative, not {getattr(self, name)}")
        if self.max_gpu_hours is not None:
            _positive(self, "max_gpu_hours")
        seconds_of(self.time)


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    preset: tyro.conf.Suppress[str] = "default"
    resources: Annotated[Resources, tyro.conf.arg(name="")] = resource(Resources())
    data: Data = Data()
    model: Model = Model()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()

    def __post_init__(self) -> None:
        step = 2**self.model.depth
        for name in ("mels", "frames"):
            if getattr(self.data, name) % step:
                raise ValueError(
                    f"data.{name} {getattr(self.data, name)} can't be halved {self.model.depth} times (model.depth): "
                    f"give a multiple of {step}"
                )

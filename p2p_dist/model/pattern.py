"""Predict when each class of drum plays, from a song without drums and its beats: a small network over time.

It works on positions in the beat rather than on frames: 12 a beat, so that its dilations are sixteenths, beats and bars at any
tempo. Frames are converted to positions before it and back after it. The dilated residual convolutions over onset
curves are those of Davies and Böck (2019), Temporal convolutional networks for musical audio beat tracking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.interpolate
import torch
import torch.nn.functional as F
from torch import nn

from p2p_dist.audio.drum_classes import CLASSES, check_finite
from p2p_dist.audio.pattern_features import BEATS, FRAME, SOUND, silent_ends

GRID = 12
"""Positions a beat."""

WIDTH, DILATIONS = 64, (1, 2, 3, 6, 12, 24, 48, 96)
"""Channels of the network, and positions between the three taps of each of its convolutions."""

INPUTS = SOUND + GRID + 2 * len(BEATS[1:])
"""Channels that the network hears."""

_BATCH, _LENGTH = 8, 288  # windows of a step, and positions of a window: 24 beats
_RATE, _DECAY, _WARM = 2e-3, 0.02, 20  # AdamW, steps
_DROP = 0.3
_DEAF, _LOST = 0.2, 0.3  # share of windows without any sound, which teach the usual pattern, and of channels lost in others
_USUAL = 2.0  # beats a second where beats are unknown
_HALF, _OTHER_TEMPO, _UNKNOWN = 0.1, 0.05, 0.02  # share of windows with beats half a beat off, at a wrong tempo, unknown
_RATIOS = (0.5, 2.0, 0.75, 4 / 3)  # of a wrong tempo, which trackers confuse
_JITTER = 0.02  # beats, standard deviation
_COLOUR, _GAIN = 0.1, 0.1  # standard deviation of a curve over the bands and of the level; 1 is 40 dB

Song = tuple[np.ndarray, np.ndarray]
"""Features (CHANNELS, frames) and activations (len(CLASSES) + 1, frames) of a song, both with frames of `FRAME` seconds."""


class Pattern(nn.Module):
    """Map (batch, INPUTS, positions) to (batch, len(CLASSES) + 1, positions): activations, and the logit of a rest.

    Positions are those of `on_grid`; `predict` maps the features of a song to activations of its frames.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(INPUTS, WIDTH, 5, padding=2)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in DILATIONS)
        self.wide = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 3, padding=d, dilation=d) for d in DILATIONS)
        self.mixing = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 1) for _ in DILATIONS)
        self.last = nn.Conv1d(WIDTH, len(CLASSES) + 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.elu(self.first(x))
        skip = x
        for norm, wide, mixing in zip(self.norms, self.wide, self.mixing, strict=True):
            normed = norm(x.transpose(1, 2)).transpose(1, 2)
            change = mixing(F.dropout(F.elu(wide(normed)), _DROP, self.training))
            x, skip = x + change, skip + change
        return self.last(F.elu(skip))


def positions_of(features: np.ndarray) -> np.ndarray:
    """Read from the phase channels of features how many beats each frame is after the first beat, float64 (frames,)."""
    sine, cosine = features[-2:].astype(np.float64)
    if not sine.any() and not cosine.any():
        return np.arange(features.shape[1]) * FRAME * _USUAL
    return np.unwrap(np.arctan2(sine, cosine)) / (2 * np.pi) * BEATS[-1]


def on_grid(curves: np.ndarray, position: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Interpolate curves (rows, frames), whose frames are at these positions, at the positions `grid`; float32."""
    at = np.interp(grid, position, np.arange(len(position)))
    left = np.minimum(at.astype(np.int64), max(len(position) - 2, 0))
    right = np.minimum(left + 1, len(position) - 1)
    share = (at - left).astype(np.float32)
    return np.asarray(curves[:, left] * (1 - share) + curves[:, right] * share, np.float32)


def with_places(sound: np.ndarray, grid: np.ndarray, known: bool = True) -> np.ndarray:
    """Append to the channels of the sound where in the beat each position is: 1 in one of GRID rows; and its phases in two and
    four beats. All are 0 where beats are unknown."""
    place = np.arange(GRID)[:, None] == np.rint(grid * GRID).astype(np.int64) % GRID
    angles = 2 * np.pi * grid / np.array(BEATS[1:])[:, None]
    return np.concatenate([sound, known * np.concatenate([place, np.sin(angles), np.cos(angles)])]).astype(np.float32)


@torch.no_grad()
def predict(network: Pattern, features: np.ndarray) -> np.ndarray:
    """Predict the activations of a song, float32 (len(CLASSES) + 1, frames), at least 0.

    The last row is the probability of a rest, 1 before the first and after the last sound of the song. The bar may begin with
    any beat: this is the mean over the four readings.

    Args:
        features: of `pattern_features.pattern_features`, (CHANNELS, frames).

    Raises:
        ValueError: see `drum_classes.check_finite`.
    """
    if not features.shape[1]:
        return np.zeros((len(CLASSES) + 1, 0), np.float32)
    network.eval()
    device = next(network.parameters()).device
    position = positions_of(features)
    known = bool(features[SOUND:].any())
    grid = np.arange(np.floor(position[0] * GRID), np.ceil(position[-1] * GRID) + 2) / GRID
    sound = on_grid(features[:SOUND], position, grid)
    total = torch.zeros(len(CLASSES) + 1, len(grid))
    readings = range(BEATS[-1] if known else 1)
    for beat in readings:
        x = torch.from_numpy(with_places(sound, grid + beat, known))[None].to(device)
        found = network(x)[0].cpu()
        total += torch.cat([found[:-1].clamp(min=0), torch.sigmoid(found[-1:])]) / len(readings)
    check_finite(total.numpy())
    smooth = scipy.interpolate.PchipInterpolator(np.arange(len(grid)), total.numpy(), axis=1)
    activations = np.asarray(smooth(np.clip((position - grid[0]) * GRID, 0, len(grid) - 1)), np.float32)
    activations[-1, silent_ends(features)] = 1
    return activations


class Training:
    """Training of a pattern network that goes on from its state to the bit, on a CPU with the same number of threads.

    All that is random follows from the seed and the step.

    Args:
        songs: features and activations of each. steps: of the whole training; the learning rate falls to 0 with them.

    Raises:
        ValueError: there is no stroke in any song.
    """

    def __init__(self, songs: Sequence[Song], steps: int, seed: int = 0) -> None:
        self.songs = [song for song in songs if song[1][:-1].any()]
        if not self.songs:
            raise ValueError("no song for the pattern network has a stroke of drums")
        self.steps, self.seed, self.step = steps, seed, 0
        self.positions = [positions_of(features) for features, _ in self.songs]
        beats = np.array([position[-1] - position[0] for position in self.positions])
        self.chances = beats / beats.sum()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = Pattern()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), _RATE, weight_decay=_DECAY)

    def take_step(self) -> float:
        """Train one step; return its loss."""
        self.network.train()
        windows = [self._window(np.random.default_rng((self.seed, self.step, n))) for n in range(_BATCH)]
        x, wanted = (torch.from_numpy(np.stack(part)) for part in zip(*windows, strict=True))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed * 1_000_003 + self.step)
            found = self.network(x)
        value = loss(found, wanted)
        rise, fall = (self.step + 1) / _WARM, 2 * (self.steps - self.step) / self.steps
        self.optimizer.param_groups[0]["lr"] = _RATE * min(1.0, rise, fall)
        self.optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return float(value.detach())

    def state(self) -> dict[str, torch.Tensor]:
        """Return all that a later training needs to go on: copies of tensors, by name."""
        moments = self.optimizer.state_dict()["state"]
        found = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        found |= {f"optimizer.{n}.{name}": value for n, values in moments.items() for name, value in values.items()}
        return {name: value.detach().cpu().clone() for name, value in found.items()} | {"step": torch.tensor(self.step)}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from a state.

        Raises:
            ValueError: the state is not of such a network.
        """
        kinds: dict[str, dict[str, torch.Tensor]] = {"network": {}, "optimizer": {}}
        for name, value in state.items():
            kind, _, rest = name.partition(".")
            if rest and kind in kinds:
                kinds[kind][rest] = value
        try:
            self.network.load_state_dict(kinds["network"])
            step = int(state["step"])
        except (RuntimeError, KeyError) as error:
            raise ValueError("the state is not of a pattern network of this version") from error
        moments: dict[int, dict[str, Any]] = {}
        for name, value in kinds["optimizer"].items():
            number, _, moment = name.partition(".")
            moments.setdefault(int(number), {})[moment] = value
        whole = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"state": moments, "param_groups": whole["param_groups"]})
        self.step = step

    def _window(self, random: np.random.Generator) -> Song:
        """Draw a stretch of a song with strokes: (INPUTS, positions) and (len(CLASSES) + 1, positions)."""
        number = int(random.choice(len(self.songs), p=self.chances))
        (features, truth), position = self.songs[number], self.positions[number]
        draw = random.uniform()
        scale = float(random.choice(_RATIOS)) if draw < _OTHER_TEMPO else 1.0
        position = position * scale + random.normal(0, _JITTER)
        if _OTHER_TEMPO <= draw < _OTHER_TEMPO + _HALF:
            position = position + 0.5
        known = random.uniform() >= _UNKNOWN
        for _ in range(20):  # until there is a stroke; a song may rest for minutes
            begin = random.uniform(position[0], max(position[-1] - _LENGTH / GRID, position[0]))
            grid = begin - begin % (1 / GRID) + np.arange(_LENGTH) / GRID
            wanted = on_grid(truth, position, grid)
            if wanted[:-1].any():
                break
        sound = on_grid(features[:SOUND], position, grid)
        bands = (SOUND - 3) // 2
        colour = np.interp(np.arange(bands), np.linspace(0, bands - 1, 6), random.normal(0, _COLOUR, 6)) + random.normal(
            0, _GAIN
        )
        sound[:bands] += colour[:, None].astype(np.float32)
        heard = random.uniform(size=SOUND) >= _LOST if random.uniform() >= _DEAF else np.zeros(SOUND, bool)
        sound *= heard[:, None]
        return with_places(sound, grid + random.integers(BEATS[-1]), known), wanted


def loss(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """One minus the correlation over time of each class that plays, a small squared error, and the cross entropy of rests.

    Args:
        found, wanted: (batch, len(CLASSES) + 1, positions).
    """
    curves, true = found[:, :-1], wanted[:, :-1]
    curves, true = (torch.cat([part, part.sum(dim=1, keepdim=True)], dim=1) for part in (curves, true))
    a, b = curves - curves.mean(-1, keepdim=True), true - true.mean(-1, keepdim=True)
    energy = (b**2).sum(-1)
    alike = (a * b).sum(-1) / ((a**2).sum(-1) * energy + 1e-3).sqrt()
    plays = energy > 1e-3
    correlation = 1 - (alike * plays).sum() / plays.sum().clamp(min=1)
    rest = F.binary_cross_entropy_with_logits(found[:, -1], wanted[:, -1])
    return correlation + 0.2 * F.mse_loss(found[:, :-1], wanted[:, :-1]) + 0.1 * rest


def train_pattern(
    songs: Sequence[Song],
    steps: int = 200,
    seed: int = 0,
    state: dict[str, torch.Tensor] | None = None,
    on_step: Callable[[Training, float], bool] = lambda training, value: True,
) -> Training:
    """Train a pattern network; its weights are `Training.network`.

    Args:
        songs: see `Song`. state: of `Training.state`, to go on from.
        on_step: called after each step with its loss; the training stops where it returns False.
    """
    training = Training(songs, steps, seed)
    if state is not None:
        training.restore(state)
    while training.step < steps and on_step(training, training.take_step()):
        pass
    return training

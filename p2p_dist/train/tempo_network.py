"""Train the network that tells the region of a song's tempo (audio/tempo.py): some two minutes on one core for 64 songs.

Each song gives stretches of 12 to 40 s with stems at other levels, sometimes one left out or a little of the drums, other
colours of sound and other tempos. Judged on songs without drums, which it will hear.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from p2p_dist.audio import tempo
from p2p_dist.audio.tempo import CHANNELS, CLASSES, DILATIONS, FRAMES_A_SECOND, MELS, PER_OCTAVE, RATES

_SHORTEST, _LONGEST = 12.0, 40.0  # seconds of a stretch
_LEFT_OUT, _DRUMMED = 0.3, 0.15  # shares of stretches without one of the stems, and with some drums
_WIDTH, _BATCH = 32, 32
_CLASS_WIDTH = 0.8  # classes: deviation of the target


@dataclass(frozen=True)
class Song:
    """A song to train with. mel: (4, mels, frames), pitch: (4, pitches, frames): power of bass, other, vocals, drums."""

    mel: np.ndarray
    pitch: np.ndarray
    bpm: float


Picture = tuple[np.ndarray, float]
"""A tempogram, (18, rates), and its tempo, beats a minute."""


def song_of(stems: Sequence[np.ndarray], bpm: float) -> Song:
    """Return a song to train with.

    Args:
        stems: bass, other, vocals, drums; each float32 (samples,) at `tempo.RATE`. bpm: beats a minute.
    """
    mels, pitches = [], []
    for stem in stems:
        powers = tempo.Powers()
        parts = [powers.add(stem), powers.finish()]
        mels.append(np.concatenate([mel for mel, _ in parts], axis=1))
        pitches.append(np.concatenate([pitch for _, pitch in parts], axis=1))
    return Song(np.stack(mels), np.stack(pitches), bpm)


class TempoNetwork(nn.Module):
    """Convolutions along the logarithm of tempo: (batch, 18, rates) to logits (batch, classes). 27 521 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.drop_in, self.enter = nn.Dropout1d(0.1), nn.Conv1d(CHANNELS, _WIDTH, 1)
        self.layers = nn.ModuleList(
            nn.Conv1d(_WIDTH, _WIDTH, taps, padding=taps // 2 * dilation, dilation=dilation) for taps, dilation in DILATIONS
        )
        self.drop_out, self.leave = nn.Dropout(0.2), nn.Conv1d(_WIDTH, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of the tempos."""
        x = self.enter(self.drop_in(x))
        for layer in self.layers:
            x = x + F.elu(layer(F.layer_norm(x.transpose(1, 2), (_WIDTH,)).transpose(1, 2)))
        logits: torch.Tensor = self.leave(self.drop_out(x))[:, 0, CLASSES]
        return logits


def stretch(song: Song, random: np.random.Generator) -> Picture:
    """Return the tempogram of a changed stretch of a song, (18, rates), and its tempo, beats a minute."""
    frames = song.mel.shape[2]
    size = min(int(random.uniform(_SHORTEST, _LONGEST) * FRAMES_A_SECOND), frames)
    part = slice(begin := int(random.integers(0, frames - size + 1)), begin + size)
    gain = 10 ** (random.normal(0, 5, 4) / 10)
    loud = song.mel[:3, :, part].sum(axis=(1, 2))
    playing = np.flatnonzero(loud > 1e-3 * loud.max())
    if len(playing) > 1 and random.random() < _LEFT_OUT:
        gain[random.choice(playing)] = 0
    gain[3] = 10 ** random.uniform(-3, 0) if random.random() < _DRUMMED else 0
    tilt = random.normal(0, 3) * np.linspace(-1, 1, MELS)
    colour = tilt + np.interp(np.arange(MELS), np.linspace(0, MELS - 1, 5), random.normal(0, 3, 5))
    mel = np.tensordot(gain, song.mel[:, :, part], 1) * 10 ** (colour / 10)[:, None]
    faster = 2 ** random.uniform(-0.5, 0.5)
    return tempo.tempogram(tempo.rises(mel, np.tensordot(gain, song.pitch[:, :, part], 1)), faster), song.bpm * faster


def pictures_of(song: Song, seed: int, count: int = 60) -> list[Picture]:
    """Return so many changed stretches of a song: the same for a seed, whatever else is trained on."""
    random = np.random.default_rng([seed, zlib.crc32(song.mel.tobytes())])
    return [stretch(song, random) for _ in range(count)]


def train(pool: Sequence[Sequence[Picture]], *, steps: int = 400, seed: int = 0) -> dict[str, np.ndarray]:
    """Train a network; return its weights by name, float32. One thread and one processor give a seed the same weights.

    Args:
        pool: for each song its pictures; songs are drawn with equal chances.
    """
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    net = TempoNetwork().train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.2)
    classes = np.arange(len(RATES[CLASSES]))
    for _ in range(steps):
        songs = [pool[int(song)] for song in random.integers(0, len(pool), _BATCH)]
        picked = [song[int(random.integers(len(song)))] for song in songs]
        at = np.log2([bpm / RATES[CLASSES][0] for _, bpm in picked]) * PER_OCTAVE
        wanted = np.exp(-0.5 * ((classes - at[:, None]) / _CLASS_WIDTH) ** 2) + 1e-12
        target = torch.from_numpy((wanted / wanted.sum(axis=1, keepdims=True)).astype(np.float32))
        loss = F.cross_entropy(net(torch.from_numpy(np.stack([picture for picture, _ in picked]))), target)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        plan.step()
    return {name: value.numpy() for name, value in net.eval().state_dict().items()}

"""Settings of the songs and of the spectrograms made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from p2p_dist.settings.fields import added, resource
from p2p_dist.settings.tasks import parse_task
from p2p_dist.settings.values import Positive, PositiveNumber, check, within


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
    sample_rate: Positive = 44100
    """of the spectrograms, Hz"""
    n_fft: Positive = 2048
    """length of one Fourier transform, samples"""
    hop_length: Positive = 512
    """samples from one frame to the next"""
    mels: Positive = 128
    """mel bands of a picture (its height)"""
    frames: Positive = 256
    """frames of a window (the width of a picture)"""
    window_hop: Positive = 128
    """frames from one window to the next"""
    channels: Literal["mono", "mid-side"] = "mono"
    """pictures of the mean of the channels, or of their mean and half their difference"""
    silent_share: Annotated[float, within(0, 1)] = 1.0
    """share kept of the training windows in which the target is silent"""
    copies: Annotated[int, within(0, 1000)] = 0
    """augmented copies of every training window: other levels, colour, side and tempo, the same relation"""
    seed: int = 0
    """of the choice of silent windows and of the copies"""
    shard_size: PositiveNumber = resource(256.0)
    """megabytes up to which songs are packed into one shard; a longer song is one shard"""
    stage: Literal["none", "node", "device"] = resource("none")
    """read shards where they are (none), from a copy in the node's memory (node), from the device's memory (device)"""

    @property
    def picture_channels(self) -> int:
        """Channels of a picture, of input and target alike."""
        return 2 if self.channels == "mid-side" else 1

    def __post_init__(self) -> None:
        check(self, "data.")
        parse_task(self.task)
        if self.n_fft % self.hop_length or self.n_fft == self.hop_length:
            raise ValueError(
                f"data.hop-length {self.hop_length} must divide data.n-fft {self.n_fft}, so that frames overlap evenly"
            )
        if self.window_hop > self.frames:
            raise ValueError(
                f"data.window-hop {self.window_hop} is over data.frames {self.frames}: some audio would be skipped"
            )
        if self.mels > (most := self._most_mels()):
            raise ValueError(
                f"data.mels {self.mels} is too many for data.n-fft {self.n_fft} at {self.sample_rate} Hz, bands would be "
                f"narrower than its bins and stay empty: at most {most}, or a longer data.n-fft"
            )
        if self.copies and self.sample_rate <= 8000:
            raise ValueError(
                f"data.copies change frequencies over 4 kHz, which data.sample-rate {self.sample_rate} does not contain"
            )
        if self.representation == "thesis" and (self.copies or self.channels != "mono"):
            raise ValueError("the representation thesis is mono and has no copies: use data.representation default")

    def _most_mels(self) -> int:
        """Mel bands of which even the narrowest, those below 1 kHz, where Slaney's scale is linear, span a Fourier bin."""
        top = self.sample_rate / 2
        mel = top * 3 / 200 if top < 1000 else 15 + 27 * math.log(top / 1000) / math.log(6.4)
        return max(math.ceil(mel * 400 / 3 * self.n_fft / self.sample_rate) - 2, 1)

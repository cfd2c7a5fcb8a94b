"""Settings of the songs and of their spectrograms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from p2p_dist.settings.address import check_address, scheme
from p2p_dist.settings.fields import added, resource
from p2p_dist.settings.tasks import parse_task
from p2p_dist.settings.values import Positive, PositiveNumber, check, within


@dataclass(frozen=True)
class Data:
    """The songs and how their spectrograms are computed."""

    root: Annotated[str | None, tyro.conf.arg(aliases=["--data"], help_behavior_hint="")] = resource(None)
    """folder of songs: MUSDB18, MUSDB18-HQ or the same layout; musdb7s: its free sample (default: $MUSDB_PATH, else a
    6-second excerpt)"""
    shards: str | None = resource(None)
    """a finished dataset in place of songs: a folder, https://HOST/SET, or a command: 'pipe:rclone cat STORE:SET/{name}'"""
    split_by_title: bool = added(False, implied=False)
    """the songs are in that folder itself, without train/ and test/: a hash of the title selects about a fifth for tests"""
    task: Annotated[str, tyro.conf.arg(aliases=["--task"])] = "drums"
    """drums, accompaniment, bass, vocals, or any 'vocals+other->drums+bass'"""
    representation: Literal["default", "thesis"] = "default"
    """default: the target is the stem, with one level reference per song; thesis: the mix, with one per window"""
    # Drums of five real songs converted to spectrograms and back: log-mel L1 at 44.1 kHz 0.55 dB, onset F1 0.999. With
    # 22.05 kHz, n_fft 1024, hop_length 256: 1.85 dB and 0.994 (cymbals are lost). tests/benchmarks/representation.py prints it.
    sample_rate: Positive = 44100
    """sample rate of the spectrograms, Hz"""
    n_fft: Positive = 2048
    """length of the Fourier transform, samples"""
    hop_length: Positive = 512
    """samples from one frame to the next"""
    mels: Positive = 128
    """number of mel bands (the height of a spectrogram)"""
    frames: Positive = 256
    """frames of a window (the width of a spectrogram)"""
    window_hop: Positive = 128
    """frames from one window to the next"""
    channels: Literal["mono", "mid-side"] = "mono"
    """spectrograms of the mean of the channels (mono), or of their mean and half their difference (mid-side)"""
    silent_share: Annotated[float, within(0, 1)] = 1.0
    """share of the training windows with a silent target that is kept"""
    copies: Annotated[int, within(0, 1000)] = 0
    """number of augmented copies of every training window, with random levels, equaliser, channel and tempo"""
    seed: int = 0
    """seed of the choice of silent windows and of the copies"""
    shard_size: PositiveNumber = resource(256.0)
    """megabytes up to which songs are packed into one shard; a song over this size has a shard of its own"""
    stage: Literal["none", "node", "disk", "device"] = resource("none")
    """where shards are read from: their folder (none), a copy in the node's memory (node) or on its disk, in $TMPDIR (disk),
    or the device's memory (device); sketches are read in the same way, but with device from their folder"""

    @property
    def elsewhere(self) -> frozenset[str]:
        """Splits whose shards each node fetches by itself, and which are not in the folder of the run's shards."""
        return frozenset({"train"} if self.shards is not None and self.stage in ("node", "disk") else ())

    @property
    def picture_channels(self) -> int:
        """Number of channels of input and target."""
        return 2 if self.channels == "mid-side" else 1

    def __post_init__(self) -> None:
        check(self, "data.")
        parse_task(self.task)
        if self.root is not None and scheme(self.root) is not None:
            raise ValueError(
                "--data (data.root) is a URL: it names a folder of songs; name a finished dataset with --data.shards"
            )
        if self.shards is not None:
            check_address(self.shards, "data.shards")
        if self.n_fft % self.hop_length or self.n_fft == self.hop_length:
            raise ValueError(
                f"data.hop-length {self.hop_length} must divide data.n-fft {self.n_fft}, so that frames overlap evenly"
            )
        if self.window_hop > self.frames:
            raise ValueError(
                f"data.window-hop {self.window_hop} is greater than data.frames {self.frames}: some audio would be skipped"
            )
        if self.mels > (most := self._most_mels()):
            raise ValueError(
                f"data.mels {self.mels} is too many for data.n-fft {self.n_fft} at {self.sample_rate} Hz, some bands would "
                f"contain no frequency bin: use at most {most}, or a longer data.n-fft"
            )
        if self.copies and self.sample_rate <= 8000:
            raise ValueError(
                f"data.copies change frequencies over 4 kHz, which data.sample-rate {self.sample_rate} does not contain"
            )
        if self.representation == "thesis" and (self.copies or self.channels != "mono"):
            raise ValueError("the representation thesis is mono and has no copies: use data.representation default")

    def _most_mels(self) -> int:
        """Return the largest number of mel bands with a Fourier bin in each; the narrowest are below 1 kHz (Slaney's scale)."""
        top = self.sample_rate / 2
        mel = top * 3 / 200 if top < 1000 else 15 + 27 * math.log(top / 1000) / math.log(6.4)
        return max(math.ceil(mel * 400 / 3 * self.n_fft / self.sample_rate) - 2, 1)

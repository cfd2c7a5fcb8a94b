"""The drummer of a model with sketches: it hears a song, decides what to play, and plays it with strokes of training songs.

FOLDER/drummer.json           written last: size and sha256 of the other two
FOLDER/pattern.safetensors    the weights of the pattern network, float32 or float16
FOLDER/strokes.safetensors    the bank of strokes

What it plays is the sketch from which the generator paints the stem; without a generator it is the stem.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from p2p_dist.audio import attacks, strokes
from p2p_dist.audio.beats import Beats
from p2p_dist.audio.drum_classes import Onset
from p2p_dist.audio.hits import CLOSED_HAT, KICK, MID_TOM, SNARE, Hit
from p2p_dist.audio.pattern_features import beat_positions, pattern_features
from p2p_dist.audio.rhythm import Rhythm
from p2p_dist.audio.spectrogram import mel_power_of_part
from p2p_dist.audio.stems import resample_blocks
from p2p_dist.audio.strokes import Bank, Kit, input_level
from p2p_dist.common import files, records, schemas
from p2p_dist.common.files import DamagedError
from p2p_dist.data import guides, pairs
from p2p_dist.generate import drummer_record
from p2p_dist.generate.drummer_record import CURE, NAME, PATTERN, STROKES
from p2p_dist.generate.request import Options
from p2p_dist.generate.sketch import DENSITY, LOUDEST, SOFT_DB, Sketch, choose_strokes
from p2p_dist.model.pattern import Pattern, predict
from p2p_dist.settings.config import Data, Model
from p2p_dist.train.seeding import number_from

_LARGEST = 64 << 20  # bytes of a pattern network; one has 0.3 MB (float16) to 0.7 MB

NOTES = {"kick": KICK, "snare": SNARE, "hat": CLOSED_HAT, "other": MID_TOM}
"""Class of strokes -> note of the General MIDI percussion map."""

AS_HEARD = Options()
"""The default options: the drummer plays to the beats that it detects."""

Blocks = Callable[[], Iterator[np.ndarray]]
"""Returns the sound of a song, mono, in blocks float32 (samples,); it is called once for each pass."""


@dataclass(frozen=True)
class Heard:
    """What is heard of a song without drums. level: see `strokes.input_level`, dB."""

    level: float
    beats: Beats | None
    features: np.ndarray


def listen(song: Blocks, rate: int, peak: float, options: Options = AS_HEARD) -> Heard:
    """Listen to a song: return its level, its beats, and the input of the pattern network. It takes three passes.

    Args:
        rate: samples a second. peak: its largest absolute sample. options: a tempo or beats that the listener named.

    Raises:
        ValueError: the tempo or the first beat can't be.
    """
    rhythm = Rhythm(peak)
    for block in resample_blocks((block[:, None] for block in song()), rate, attacks.RATE):
        rhythm.add(np.ascontiguousarray(block[:, 0], np.float32))
    rhythm.finish()
    first = None if options.first_beat is None else options.first_beat - options.begin
    beats = rhythm.beats(bpm=options.bpm, first=first, half_beat=options.half_beat)
    return Heard(input_level(song(), rate), beats, pattern_features(song(), rate, beats))


@dataclass(frozen=True)
class Guide:
    """What the generator sees of a song beside the song itself, computed window by window.

    sketch: at `data.sample_rate`. reference: power that is 0 dB in the song's pictures. beats: to play to, or None.
    """

    sketch: Sketch
    beats: Beats | None
    reference: float
    data: Data
    model: Model

    def rows(self, start: int, frames: int) -> np.ndarray:
        """Compute the rows of `frames` frames from `start` on, see data/guides.py; centred frames, as of the song."""
        data = self.data
        begin = start * data.hop_length - data.n_fft // 2
        part = self.sketch.part(begin, begin + (frames - 1) * data.hop_length + data.n_fft)
        part[: max(-begin, 0)] = 0  # before the song there is silence
        power = mel_power_of_part(part, data.sample_rate, data.n_fft, data.hop_length, data.mels)
        channels = [power, *[np.zeros_like(power)] * (data.picture_channels - 1)]  # strokes are mono: nothing at the sides
        picture = pairs.to_picture(np.stack(channels), self.reference, "default")
        times = (start + np.arange(frames)) * (data.hop_length / data.sample_rate)
        return guides.rows_of(picture, None if self.beats is None else beat_positions(self.beats, times))

    def cut(self, start: int) -> torch.Tensor:
        """Return the guide of the window that begins with frame `start`, (guide_channels, mels, frames)."""
        return torch.from_numpy(guides.to_guide(self.rows(start, self.data.frames), self.data.mels, self.model))


@dataclass(frozen=True)
class Performance:
    """What a drummer plays to one song. reference: power that is 0 dB in the song's pictures."""

    drummer: Drummer
    name: str
    heard: Heard
    onsets: list[Onset]
    reference: float

    def kit(self, seed: int) -> Kit:
        """Return the kit that it is played with."""
        kits = self.drummer.bank.kits
        names = sorted(kits)
        return kits[names[number_from("kit", seed, self.name) % len(names)]]

    def sketch(self, seed: int) -> Sketch:
        """Play it; other seeds choose other kits and other strokes."""
        level = self.heard.level + self.drummer.bank.offset
        return Sketch(self.onsets, self.kit(seed), self.drummer.data.sample_rate, level, seed, LOUDEST)

    def hits(self, seed: int) -> list[Hit]:
        """Return the notes of the sketch: a class of which the kit has no stroke is silent."""
        # General MIDI: the level goes with the square of the velocity.
        there, softly = self.kit(seed).strokes, 10 ** (-SOFT_DB / 40)
        return [
            Hit(max(one.time, 0.0), NOTES[one.kind], max(round(127 * one.strength * (softly if one.soft else 1)), 1))
            for one in self.onsets
            if there.get(one.kind)
        ]

    def guide(self, seed: int) -> Guide:
        """Return what the generator sees of it."""
        return Guide(self.sketch(seed), self.heard.beats, self.reference, self.drummer.data, self.drummer.model)


@dataclass(frozen=True)
class Drummer:
    """The network that decides what to play, and the strokes to play it with. data, model: settings of the run."""

    network: Pattern
    bank: Bank
    data: Data
    model: Model

    def play(
        self, song: Blocks, rate: int, peak: float, name: str, reference: float, options: Options = AS_HEARD
    ) -> Performance:
        """Hear a song and decide what to play. Args: see `listen` and `Performance`."""
        heard = listen(song, rate, peak, options)
        density = DENSITY if options.density is None else options.density
        activations = predict(self.network, heard.features)
        onsets = choose_strokes(activations, self.bank.rates, heard.beats, self.model, density)
        return Performance(self, name, heard, onsets, reference)


def save(folder: Path, drummer: Drummer, *, half: bool = False, codec: str = "flac") -> dict[str, Any]:
    """Write a drummer; return the content of its record.

    Args:
        half: the weights in float16. codec: of the strokes, see `strokes.save`.
    """
    kept = torch.float16 if half else torch.float32
    weights = {name: tensor.detach().to("cpu", kept).contiguous() for name, tensor in drummer.network.state_dict().items()}
    files.write_bytes(folder / PATTERN, safetensors.torch.save(weights))
    strokes.save(folder / STROKES, drummer.bank, codec)
    content = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": files.sha256_file(folder / name)}
        for name in (PATTERN, STROKES)
    }
    records.write(folder / NAME, schemas.DRUMMER, {"files": content})
    return content


def load(folder: Path, data: Data, model: Model) -> Drummer:
    """Read a drummer, which may come from anybody.

    Raises:
        DamagedError: a file is missing, or not the one that was written.
    """
    about = drummer_record.read(folder)
    for name, most, what in ((PATTERN, _LARGEST, "a pattern network"), (STROKES, strokes.MOST_BYTES, "a bank of strokes")):
        path = folder / name
        if not path.is_file() or path.stat().st_size != about[name]["bytes"]:
            raise DamagedError(f"{path} is missing, or has not the size that {NAME} gives; {CURE}")
        if about[name]["bytes"] > most:  # before it is read
            raise DamagedError(f"{path} is too large for {what}; {CURE}")
    path = folder / PATTERN
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != about[PATTERN]["sha256"] or (
        files.sha256_file(folder / STROKES) != about[STROKES]["sha256"]
    ):
        raise DamagedError(f"{folder}: the pattern network or the strokes are damaged: not those that {NAME} describes; {CURE}")
    network = Pattern()
    try:
        network.load_state_dict(safetensors.torch.load(content))
    except (safetensors.SafetensorError, RuntimeError, ValueError) as error:
        raise DamagedError(f"{path} does not hold a pattern network of this version; {CURE}") from error
    if not all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values()):
        raise DamagedError(f"{path} contains values that are not finite; {CURE}")
    return Drummer(network.eval(), strokes.load(folder / STROKES), data, model)

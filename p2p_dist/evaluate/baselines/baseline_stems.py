"""Make baseline stems without a network, for the same excerpt of the same song.

They depend only on the songs, so each run makes them once. If a baseline can't be made, the reason takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from p2p_dist.audio.attacks import attack_times
from p2p_dist.audio.beats import Beats, drums_late, track_beats
from p2p_dist.audio.invert import stem_for
from p2p_dist.audio.pattern_features import beat_positions
from p2p_dist.data import manifest
from p2p_dist.data.augment import random_for
from p2p_dist.data.index import Index
from p2p_dist.data.manifest import PARTS
from p2p_dist.data.pairs import FLOOR, silent_to_zero
from p2p_dist.data.song_record import read_record
from p2p_dist.evaluate.measures import onsets
from p2p_dist.settings.config import Data

if TYPE_CHECKING:
    import torch

COPY, SILENCE, NOISE = "copy the input", "silence", "noise hits"
GRID_TRACKED, GRID_KNOWN = "rock grid, tracked beats", "rock grid, known beats"
FAR, OTHER, LOOP, CEILING = "same song, far away", "another song, in time", "loop of another song", "ceiling"

BASELINES = {
    COPY: "the input itself, played as the stem",
    SILENCE: "no stem: the mix is the untouched input",
    NOISE: "bursts of noise at random times, eight a second",
    GRID_TRACKED: "kick, snare and hi-hat on the beats that a tempo tracker finds in the input",
    GRID_KNOWN: "the same on the beats of the true drums, which only an oracle knows",
    FAR: "the true stem of another part of the song, moved by whole bars",
    OTHER: "the stem of a training song, stretched to the true beats",
    LOOP: "four bars of a training song, stretched to the tracked tempo",
    CEILING: "the true stem through spectrogram and back: no model can do better",
}
"""Map name -> description, in the order of a table."""

NO_BEATS = "the song has no steady beat"
NO_LEVEL = "the dataset, which an earlier version made, does not tell how loud its stems are"
_HITS = 8.0  # per second: three times as many as in the songs that the measures were tested on
_BAR = 4  # beats
_FAR = 20.0  # seconds
_SONGS = 8  # training songs that are read; more would take longer than the measures

Stem = np.ndarray | str
"""A stem, float32 (samples, channels), or the reason why it is missing."""


@dataclass(frozen=True)
class Training:
    """Training data that the baselines use.

    songs: name, mel power (mels, frames) of the whole stem, and its beats. reason: why there are no songs, else "".
    level: median level of the stems relative to the inputs, dB; None if the dataset does not tell it.
    """

    songs: list[tuple[str, np.ndarray, Beats]]
    reason: str
    level: float | None


def training(dataset: Path, data: Data, held_out: set[str]) -> Training:
    """Read the stems of at most eight training songs, evenly spaced, from their spectrograms.

    Args:
        held_out: names of the evaluated songs; a training song with such a name is not used.
    """
    part = manifest.read(dataset)["splits"].get("train", {"songs": []})
    level = _median_level(dataset, part)
    if data.representation == "thesis":
        return Training([], "the thesis's spectrograms hold the mix, not the stem", level)
    if "train" in data.elsewhere:
        return Training([], "each node fetches the training shards by itself (data.stage), so they are not here", level)
    names = [song for song in part["songs"] if song["name"] not in held_out]
    chosen = [names[round(place)] for place in np.linspace(0, len(names) - 1, min(_SONGS, len(names)))]
    songs = []
    if chosen:
        index = Index(dataset, "train")
        for song in chosen:
            power = _stem_of(index, song["key"], data)
            beats = None if power is None else _beats_of(power, data)
            if power is not None and beats is not None and _beats_in(power, beats, data) >= 2 * _BAR:
                songs.append((song["name"], power, beats))
        index.close()
    reason = "" if songs else "no training song with two bars, other than the measured song"
    return Training(songs, reason, level)


def _median_level(dataset: Path, part: dict[str, Any]) -> float | None:
    """Return the median level of the training stems relative to their inputs, dB; None if it is not known.

    The records of the songs tell it; a dataset that was fetched has only the manifest.
    """
    finished = [record for path in sorted((dataset / PARTS).glob("train-*.json")) if (record := read_record(path))]
    levels = [r["levels"]["target"] - r["levels"]["input"] for r in finished if None not in r["levels"].values()]
    if not finished:
        levels = [song["level"] for song in part["songs"] if song.get("level") is not None]
    return float(np.median(levels)) if levels else 0.0 if finished else None


def _stem_of(index: Index, key: str, data: Data) -> np.ndarray | None:
    """Return the mel power (mels, frames) of a training song's whole stem; None if it has no windows."""
    numbers, windows = index.samples.originals_of(key)
    places = [(number, window * data.window_hop) for number, window in zip(numbers, windows, strict=True)]
    if not places:
        return None
    power = np.zeros((data.mels, places[-1][1] + data.frames), np.float32)
    for number, start in places:  # windows are equal where they overlap
        picture = index.read(np.array([number]))[0, 1, 0]
        power[:, start : start + data.frames] = silent_to_zero(np.maximum(picture, FLOOR), 1.0)
    return power if power.any() else None


def _beats_of(power: np.ndarray, data: Data) -> Beats | None:
    """Detect the beats in a stem's mel power: the tempo in frames of about 23 ms, the attacks in its own."""
    frame = data.hop_length / data.sample_rate
    together = max(1, round(onsets.FRAME / frame))
    whole = power[:, : power.shape[1] // together * together]
    rise = onsets.envelope(whole.reshape(len(power), -1, together).mean(axis=2))
    attack = attack_times(onsets.envelope(power), frame)
    return track_beats(rise, together * frame, attack=attack, late=drums_late(data.n_fft / data.sample_rate))


def _beats_in(power: np.ndarray, beats: Beats, data: Data) -> int:
    """Return the number of whole beats from the first one to the end."""
    return int((power.shape[1] * data.hop_length / data.sample_rate - beats.first) * beats.bpm / 60)


def noise_hits(input: np.ndarray, rate: int, level: float, key: str) -> np.ndarray:
    """Make noise hits at random times, which are always the same for a song."""
    random = random_for("noise hits", 0, key)
    seconds = len(input) / rate
    times = random.uniform(0, seconds, max(1, round(_HITS * seconds)))
    time = np.arange(round(0.15 * rate)) / rate
    hit = random.standard_normal(len(time)) * np.exp(-25 * time)
    return at_level(_played({0: hit}, [(t, 0) for t in times], len(input), rate), input, level)


def rock_grid(input: np.ndarray, rate: int, beats: Beats, level: float) -> np.ndarray:
    """Make alternating kick and snare on the beats, and hi-hat on all eighth notes. It needs only a tempo."""
    random = np.random.default_rng(0)
    time = np.arange(round(0.25 * rate)) / rate
    noise = random.standard_normal(len(time))
    kit = {
        0: np.sin(2 * np.pi * (55 * time + 2.5 * (1 - np.exp(-40 * time)))) * np.exp(-12 * time),
        1: (0.5 * noise + 0.5 * np.sin(2 * np.pi * 190 * time)) * np.exp(-18 * time),
        2: 0.2 * np.diff(noise, prepend=0) * np.exp(-60 * time),
    }
    seconds = len(input) / rate
    notes = [(t, 2) for t in beats.times(seconds, per_beat=2)]
    notes += [(t, n % 2) for n, t in enumerate(beats.times(seconds))]
    return at_level(_played(kit, notes, len(input), rate), input, level)


def _played(kit: dict[int, np.ndarray], notes: list[tuple[float, int]], samples: int, rate: int) -> np.ndarray:
    """Place sounds at given times, in seconds; return mono audio (samples,)."""
    result = np.zeros(samples + max(map(len, kit.values())), np.float32)
    for time, instrument in notes:
        begin = round(time * rate)
        if begin < samples:
            result[begin : begin + len(kit[instrument])] += kit[instrument]
    return result[:samples]


def at_level(stem: np.ndarray, input: np.ndarray, level: float) -> np.ndarray:
    """Copy a mono stem to all channels of `input`, and set its level to the given dB relative to `input`."""
    power = float((stem.astype(np.float64) ** 2).mean())
    wanted = float((input.astype(np.float64) ** 2).mean()) * 10 ** (level / 10)
    gain = np.sqrt(wanted / power) if power > 0 else 0.0
    return np.repeat((stem * gain).astype(np.float32)[:, None], input.shape[1], axis=1)


def far_away(target: np.ndarray, rate: int, begins: int, samples: int, beats: Beats | None) -> Stem:
    """Return the loudest other excerpt of a whole stem, shifted by whole bars and by at least 20 seconds.

    Args:
        target: (samples of the song, channels). begins, samples: the excerpt that is measured. beats: of the song; where
            their tempo drifts, the bars have its mean.
    """
    if beats is None:
        return NO_BEATS
    bar = _BAR * 60 / beats.bpm * rate
    bars = int(len(target) / bar)
    nearest = int(np.ceil(_FAR * rate / bar))
    # The song is repeated after its last whole bar.
    moves = [round(n * bar) for n in range(nearest, bars - nearest + 1)]
    if not moves:
        return f"the song is shorter than {2 * _FAR:g} s"
    size = round(bars * bar)
    at = np.arange(begins, begins + samples)
    energy = np.concatenate(([0.0], np.cumsum((target[:size].astype(np.float64) ** 2).mean(axis=1))))

    def loudness(move: int) -> float:
        first = (begins + move) % size
        end = min(first + samples, size)
        return energy[end] - energy[first] + energy[max(0, min(first + samples - size, size))]

    move = max(moves, key=loudness)
    return np.asarray(target[(at + move) % size])


def in_time(power: np.ndarray, source: Beats, beats: Beats, count: int, frames: int, data: Data) -> np.ndarray:
    """Stretch the loudest `count` beats of a song's mel power to other beats, and repeat them; (mels, frames).

    Args:
        source: the song's beats. beats: the times to stretch them to, in seconds from the first frame.
    """
    frame = data.hop_length / data.sample_rate
    loud = np.concatenate(([0.0], np.cumsum(power.sum(axis=0, dtype=np.float64))))
    own = source.times(power.shape[1] * frame + (count + 2) * 60 / source.bpm) / frame

    def loudness(begin: int) -> float:
        return loud[min(int(own[begin + count]), power.shape[1])] - loud[int(own[begin])]

    begin = max(range(max(_beats_in(power, source, data) - count, 0) + 1), key=loudness)
    wanted = beat_positions(beats, np.arange(frames) * frame) % count
    position = np.interp(begin + wanted, np.arange(len(own)), own)
    left = np.clip(position.astype(np.int64), 0, power.shape[1] - 2)
    share = np.clip(position - left, 0, 1).astype(np.float32)
    return power[:, left] * (1 - share) + power[:, left + 1] * share


def from_training(
    known: Training,
    input: np.ndarray,
    rate: int,
    beats: Beats | None,
    data: Data,
    iterations: int,
    device: torch.device | None = None,
    *,
    loop: bool,
) -> Stem:
    """Return a training song's stem in time with `beats`: four bars, repeated, or as much of it as fits.

    The song is the one nearest in tempo, so that it is stretched least; for the loop, the second nearest, if any.

    Args:
        iterations: of Griffin-Lim. device: see `inference.to_stem`.
    """
    if beats is None:
        return NO_BEATS
    if not known.songs:
        return known.reason
    if known.level is None:
        return NO_LEVEL
    order = sorted(known.songs, key=lambda song: abs(np.log(song[2].bpm / beats.bpm)))
    _, power, source = order[1 if loop and len(order) > 1 else 0]
    held = _beats_in(power, source, data)
    most = 4 * _BAR if loop else int(len(input) / rate * beats.bpm / 60) + 1
    count = max(1, min(most, held) // _BAR) * _BAR
    samples = -(-len(input) * data.sample_rate // rate)
    mel = in_time(power, source, beats, count, 1 + samples // data.hop_length, data)
    from p2p_dist.generate.phase import mel_to_audio_on  # imports torch, which the page does not need

    sound = mel_to_audio_on(device, mel, samples, data, iterations)
    return at_level(stem_for(input, rate, sound, data.sample_rate)[:, 0], input, known.level)

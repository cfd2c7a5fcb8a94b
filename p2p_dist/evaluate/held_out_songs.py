"""Read the excerpts of held-out songs that are evaluated, from the audio in the shards or from a folder of songs."""

from __future__ import annotations

import functools
import hashlib
import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from p2p_dist.audio import attacks, memory, stems
from p2p_dist.audio.beats import DRUMS_LATE, MUSIC_LATE, Beats
from p2p_dist.audio.layouts import Source, find_songs, is_split
from p2p_dist.audio.rhythm import beats_in
from p2p_dist.audio.stems import mono
from p2p_dist.common import files, records
from p2p_dist.data import manifest, pairs
from p2p_dist.data.song_record import slug
from p2p_dist.evaluate.measures import onsets
from p2p_dist.evaluate.measures.truth import Truth, real_windows
from p2p_dist.generate import inference
from p2p_dist.generate.drummer import AS_HEARD, Drummer, Performance
from p2p_dist.generate.request import Options
from p2p_dist.settings.config import Data, Evaluate, parse_task

Sound = tuple[np.ndarray, np.ndarray, int]
"""A whole song's input and target, each (samples, channels), and their rate."""


@dataclass(frozen=True)
class HeldOut:
    """A song that training did not use, not read yet. key: prefix of its files. split: valid or test."""

    name: str
    key: str
    split: str
    read: Callable[[], Sound]


@dataclass(frozen=True)
class Excerpt:
    """The part of a held-out song that is evaluated.

    input, target: (samples, channels) at `rate`. pictures: its windows, cut from the spectrograms of the whole song.
    begins: its first sample in the song. audible: its samples that are written as sound, see `Evaluate`.
    beats: beats of the song's true drums, in seconds from the start of the excerpt.
    real: descriptors of the windows of the whole true stem, (windows, 41).
    """

    song: HeldOut
    rate: int
    begins: int
    audible: slice
    input: np.ndarray
    target: np.ndarray
    pictures: pairs.Pictures
    beats: Beats | None
    truth: Truth
    real: np.ndarray
    performance: Performance | None = None
    """what the drummer of a model with a sketch plays to the whole song"""

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.input) / self.rate

    @property
    def peak(self) -> float:
        """Largest absolute sample of input, target and their sum."""
        return peak(self.input, self.target, self.input + self.target)

    def place(self) -> dict[str, Any]:
        """Position of what can be heard in the song, for JSON: in samples at `sample_rate`, and in seconds; and what
        is measured, if it is more."""
        begin, end = self.begins + self.audible.start, self.begins + self.audible.stop
        more = {"measured": {"begins": self.begins / self.rate, "seconds": self.seconds}}
        return {
            "begins": begin / self.rate,
            "seconds": (end - begin) / self.rate,
            "begin_sample": begin,
            "samples": end - begin,
            "sample_rate": self.rate,
            **(more if end - begin < len(self.input) else {}),
        }


def peak(*sounds: np.ndarray) -> float:
    """Return the largest absolute sample."""
    return max(float(np.abs(sound).max(initial=0)) for sound in sounds)


def from_shards(dataset: Path, split: str, most: int, allow_overlap: bool = True) -> list[HeldOut]:
    """List at most `most` songs of one split whose audio is in the shards. Empty if there is no such split.

    Args:
        allow_overlap: include songs with the audio of a training song.
    """
    content = manifest.read(dataset)
    part = content["splits"].get(split)
    if part is None:
        return []
    trained = {} if allow_overlap else manifest.overlap(content, split)
    found = []
    for song in part["songs"]:
        sound = _sound_of(dataset, split, part, song["key"])  # npz pairs have none
        if sound is not None and song["key"] not in trained:
            found.append(HeldOut(song["name"], song["key"], split, functools.partial(read_sound, sound)))
    return found[:most]


@dataclass(frozen=True)
class StoredSound:
    """The sound of a held-out song in a shard: the bytes from `begin` that its sample takes there, and their sha256."""

    shard: Path
    key: str
    begin: int
    bytes: int
    sha256: str


def _sound_of(dataset: Path, split: str, part: dict[str, Any], key: str) -> StoredSound | None:
    """Find the sound of a song; to manifest schema 3 a shard has one song."""
    for path, shard in manifest.files_of_part(part, "audio").items():
        if "songs" not in shard and shard["name"] == f"audio-{split}-{key}.tar":
            return StoredSound(dataset / path, key, 0, shard["bytes"], shard["sha256"])
        for name, begin, size, sha256 in shard.get("songs", ()):
            if name == key:
                return StoredSound(dataset / path, key, begin, size, sha256)
    return None


def from_folder(root: Path, task: str, split: str, most: int) -> list[HeldOut]:
    """List at most `most` songs of a folder in the layout of MUSDB18: those of test/, or all if there is no test/.

    Args:
        split: the split under which they are reported.

    Raises:
        ValueError: there is no such folder, or no song with audio in it.
    """
    by_folder = is_split(root)
    found = [source for source in find_songs(root, not by_folder) if not source.pairs]
    if by_folder and (testing := [source for source in found if source.split == "test"]):
        found = testing
    found = [replace(source, split=split) for source in found]
    if not found:
        raise ValueError(f"{root} contains only pairs of spectrograms: evaluation needs songs with audio")
    return [of_source(source, number, task) for number, source in enumerate(found)][:most]


def of_source(source: Source, number: int, task: str) -> HeldOut:
    """Return a song in a folder of stems. Its number makes its key unique."""

    def read() -> Sound:
        rate, (heard, made) = stems.load_sums(source, parse_task(task))
        return np.ascontiguousarray(heard.sound), np.ascontiguousarray(made.sound), rate

    return HeldOut(source.name, f"{number:05d}-{slug(source.name)}", source.split, read)


def measured_seconds(evaluate: Evaluate, songs: int) -> float:
    """Return how much of each of so many songs is measured, seconds; 0: the whole song."""
    return max(evaluate.seconds, evaluate.windows * onsets.WINDOW * onsets.FRAME / songs) if evaluate.seconds else 0.0


def read_excerpt(
    song: HeldOut,
    data: Data,
    seconds: float,
    drummer: Drummer | None = None,
    *,
    measured: float | None = None,
    known_beats: bool = False,
) -> Excerpt:
    """Return the excerpt of a song, about `seconds` long (0: all of it), in which its target is loudest.

    Args:
        measured: seconds of the song that are measured, of which the excerpt is part (default: the excerpt).
        drummer: of a model with a sketch; it hears the whole song, without the target.
        known_beats: give the drummer the beats of the true drums, which only an oracle knows.
    """
    heard, made, rate = song.read()
    performance = None
    pictures = pairs.make(heard, made, rate, data)
    pictures = inference.loudest_windows(pictures, seconds if measured is None else measured, data)
    # Convert frames of the spectrogram to samples of the song.
    ratio = data.hop_length * rate / data.sample_rate

    def samples_of(part: pairs.Pictures) -> tuple[int, int]:
        begin = round(int(part.starts[0]) * ratio)
        return begin, min(begin + round((part.frames - int(part.starts[0])) * ratio), len(heard))

    begin, end = samples_of(pictures)
    audible = slice(*(sample - begin for sample in samples_of(inference.loudest_windows(pictures, seconds, data))))
    # Detect beats in the drums, whether they are input or target.
    beats = beats_of(made if "drums" in parse_task(data.task)[1] else heard + made, rate, drums=True)
    if drummer is not None:
        alone = mono(heard, rate, rate)
        loudest = float(np.abs(alone).max(initial=0))
        told = Options(bpm=beats.bpm, first_beat=beats.first) if known_beats and beats is not None else AS_HEARD
        performance = drummer.play(lambda: iter([alone]), rate, loudest, song.key, float(pictures.references[0]), told)
    input, target = heard[begin:end].copy(), made[begin:end].copy()
    beats = from_there(beats, begin / rate)
    truth = Truth(target, input, rate, beats, data)
    real = real_windows(made, heard, rate)
    return Excerpt(song, rate, begin, audible, input, target, pictures, beats, truth, real, performance)


def beats_of(sound: np.ndarray, rate: int, *, drums: bool) -> Beats | None:
    """Detect the beats of a whole song, (samples, channels), with or without drums; None if it has no onsets."""
    return beats_in(mono(sound, rate, attacks.RATE), DRUMS_LATE if drums else MUSIC_LATE)


def from_there(beats: Beats | None, seconds: float) -> Beats | None:
    """Return the same beats relative to a later start."""
    return None if beats is None else beats.since(seconds)


def read_sound(sound: StoredSound) -> Sound:
    """Read a held-out song's input and target, each (samples, channels), and their rate, from its shard.

    Raises:
        DamagedError: the shard is missing, or the song is not what was written.
    """
    again = "remove it and run the launch command again, which rebuilds this shard"
    try:
        with sound.shard.open("rb") as file:
            file.seek(sound.begin)
            content = file.read(sound.bytes)
    except FileNotFoundError:
        raise files.DamagedError(f"{sound.shard}: the audio of {sound.key} is missing: {again}") from None
    if hashlib.sha256(content).hexdigest() != sound.sha256:
        raise files.DamagedError(f"{sound.shard} is damaged: the audio of {sound.key} does not match its sha256: {again}")
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        opened = {member.name.removeprefix(sound.key + "."): archive.extractfile(member) for member in archive}
        sounds = {suffix: file.read() for suffix, file in opened.items() if file is not None}
    gain = records.parse(sounds["json"], {"gain": float}, where=f"{sound.shard}: {sound.key}.json")["gain"]
    input, rate = soundfile.read(memory.descriptor(sounds["input.flac"]), dtype="float32", always_2d=True)
    target, _ = soundfile.read(memory.descriptor(sounds["target.flac"]), dtype="float32", always_2d=True)
    return input * np.float32(gain), target * np.float32(gain), rate

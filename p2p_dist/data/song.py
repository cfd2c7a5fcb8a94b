"""One song to its shards: what a worker does. It imports neither torch nor librosa, and may be killed at any instant.

A song is one shard, so the bytes do not depend on who made them; a shard has its name only when it is whole.
"""

from __future__ import annotations

import io
import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist import files
from p2p_dist.audio import stems
from p2p_dist.config import Data, parse_task
from p2p_dist.data import augment, foreign, index, pairs

PARTS = "parts"

_TOGETHER = 4e8
"""Bytes of decoded stems up to which several tasks are made from one decode; a longer song is decoded for each."""

_FULL_SCALE = 32767 / 32768
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Work:
    """One song to be made into shards."""

    source: stems.Source
    number: int
    """of the song in its split; with the title it makes the keys unique"""

    @property
    def key(self) -> str:
        """`00003-the-title`: ASCII without dots, since WebDataset cuts a key at its first dot."""
        return f"{self.number:05d}-{slug(self.source.name)}"

    def record(self, out: Path) -> Path:
        """Where it is written down that the song is finished."""
        return out / PARTS / f"{self.source.split}-{self.key}.json"

    def is_finished(self, out: Path) -> bool:
        """Whether the song, as it is now, has its record and all that the record names."""
        if not self.record(out).is_file():
            return False
        record = files.read_json(self.record(out))
        shards = [shard for shard in (record["shard"], record["audio"]) if shard]
        whole = all((p := out / shard["name"]).is_file() and p.stat().st_size == shard["bytes"] for shard in shards)
        return whole and record["song"] == self.source.name and record["source_bytes"] == self.source.size()


@dataclass(frozen=True)
class Result:
    """What became of one song: how much there was of it, or the reason why it was left out."""

    name: str
    seconds: float = 0.0
    bytes: int = 0
    error: str | None = None
    note: str = ""
    """how fast all is going, for people"""


@dataclass(frozen=True)
class _Sound:
    """What is known of a song's sound besides its pictures."""

    rate: int
    seconds: float
    clipped: int
    levels: dict[str, float | None]


def slug(title: str) -> str:
    """A title as at most 48 ASCII letters, digits and single dashes: for keys and file names, not for people."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:48].strip("-") or "song"


def make_song(item: Work, wanted: Sequence[tuple[Path, Data]]) -> Result:
    """Decode one song and write its shards and its record into each folder, under that folder's settings."""
    source = item.source
    try:
        if source.pairs:
            for out, data in wanted:
                _write_foreign(item, out, data)
            seconds = 0.0
        else:
            seconds = _make_sound(item, wanted)
    except ValueError as error:
        return Result(source.name, error=str(error))
    return Result(source.name, seconds, source.size())


def _make_sound(item: Work, wanted: Sequence[tuple[Path, Data]]) -> float:
    """From sound to shards; the song's seconds. One task takes the memory of two sums, however many stems they have."""
    source, seconds = item.source, 0.0
    if len(wanted) > 1 and source.path.is_file() and 25 * source.size() > _TOGETHER:  # AAC unpacks about 25 times
        for one in wanted:
            seconds = _make_sound(item, [one])
        return seconds
    if len(wanted) > 1:
        song = stems.load(source, {stem for _, data in wanted for side in parse_task(data.task) for stem in side})
    for out, data in wanted:
        if len(wanted) > 1:
            rate, sounds = song.sample_rate, list(pairs.heard_and_target(song, data.task))
        else:
            rate, sounds = stems.load_sums(source, parse_task(data.task))
        seconds = len(sounds[0]) / rate
        _write_song(item, out, data, rate, sounds)
    return seconds


def _write_song(item: Work, out: Path, data: Data, rate: int, sounds: list[np.ndarray]) -> None:
    split, audio = item.source.split, None
    clipped, levels = 0, {}
    for name, sound in zip(("input", "target"), sounds, strict=True):
        over, levels[name] = _level(sound)
        clipped += over
    about = {"song": item.source.name, "split": split, "task": data.task}
    if split != "train":
        # Rounded to what the file will hold, so that pictures made of it are those in the shards, bit for bit.
        gain = 2.0 ** max(0, *(int(np.ceil(np.log2(max(float(np.abs(s).max()), 1e-9)))) for s in sounds))
        audio = _write_shard(out, f"audio-{split}-{item.key}.tar", _sound_sample(item.key, rate, sounds, gain, about))
    seconds = len(sounds[0]) / rate
    pictures = pairs.make(sounds[0], sounds[1], rate, data)
    silent = pairs.silent_windows(pictures, sounds[1], rate, data)
    sounds.clear()
    kept = np.ones(len(silent), bool)
    if split == "train":
        chosen = [augment.random_for("silent", data.seed, item.source.name, n).random() for n in range(len(silent))]
        kept = ~silent | (np.array(chosen) < data.silent_share)
    samples = _pair_samples(item.key, pictures, kept, about)
    if split == "train" and data.copies:
        samples += _copies(item, pictures, kept, data, about)
    counts = {
        "silent_windows": int(silent.sum()),
        "silent_dropped": int((~kept).sum()),
        "padded_windows": int(kept[-1] and pictures.starts[-1] + data.frames > pictures.frames),
        "copies": int(kept.sum()) * data.copies if split == "train" else 0,
    }
    _finish(item, out, samples, audio, _Sound(rate, seconds, clipped, levels), counts)


def _write_foreign(item: Work, out: Path, data: Data) -> None:
    """Ready-made pairs into a shard, untouched."""
    if data.representation != "thesis":
        raise ValueError(f"{item.source.path}: npz pairs are the thesis's: give --preset thesis (data.representation thesis)")
    samples, kinds = [], {}
    for number, path in enumerate(item.source.pairs):
        input, target = foreign.read(path, data)
        kinds[input.dtype] = path
        if len(kinds) > 1:
            raise ValueError("the pairs differ in dtype: " + ", ".join(f"{kind} in {p}" for kind, p in kinds.items()))
        note = {"song": item.source.name, "split": item.source.split, "window": number, "file": path.name}
        samples.append(_pair(f"{item.key}-{number:05d}", input, target, note))
    counts = dict.fromkeys(("silent_windows", "silent_dropped", "padded_windows", "copies"), 0)
    seconds = len(samples) * data.hop_length * (data.frames - 1) / data.sample_rate
    sound = _Sound(data.sample_rate, seconds, 0, {"input": None, "target": None})
    _finish(item, out, samples, None, sound, counts)


def _finish(
    item: Work, out: Path, samples: list[dict[str, Any]], audio: dict[str, Any] | None, sound: _Sound, counts: dict[str, int]
) -> None:
    """Write the shard and then, last, the record that says that the song is finished."""
    if not samples:
        shard, rows = None, []
    else:
        shard = _write_shard(out, f"{item.source.split}-{item.key}.tar", samples)
        rows = index.index_shard(out / shard["name"])
        shard["samples"] = len(rows)
    record = {
        "song": item.source.name,
        "split": item.source.split,
        "key": item.key,
        "source_bytes": item.source.size(),
        "seconds": sound.seconds,
        "sample_rate": sound.rate,
        "clipped": sound.clipped,
        "levels": sound.levels,
        **counts,
        "dtype": rows[0]["dtype"] if rows else None,
        "shape": rows[0]["shape"] if rows else None,
        "shard": shard,
        "audio": audio,
        "samples": [[row["key"], shard["name"], row["input"], row["target"], row["checksum"]] for row in rows if shard],
    }
    files.write_json(item.record(out), record)


def _level(sound: np.ndarray) -> tuple[int, float | None]:
    """Samples at or over full scale, and the level in dBFS (root mean square; None for silence)."""
    clipped, power = 0, 0.0
    for channel in sound.T:
        power += float(np.dot(channel, channel)) / sound.size
        for start in range(0, len(channel), _BLOCK):
            part = channel[start : start + _BLOCK]
            if max(part.max(), -part.min()) >= _FULL_SCALE:
                clipped += int((np.abs(part) >= _FULL_SCALE).sum())
    return clipped, round(10 * float(np.log10(power)), 2) if power else None


def _pair_samples(key: str, pictures: pairs.Pictures, kept: np.ndarray, about: dict[str, Any]) -> list[dict[str, Any]]:
    samples = []
    for number in np.flatnonzero(kept):
        note = {**about, "window": int(number), "first_frame": int(pictures.starts[number])}
        note["reference"] = float(pictures.references[number])
        samples.append(_pair(f"{key}-{number:05d}", pictures.inputs[number], pictures.targets[number], note))
    return samples


def _copies(item: Work, pictures: pairs.Pictures, kept: np.ndarray, data: Data, about: dict[str, Any]) -> list[dict[str, Any]]:
    """Augmented copies of the windows kept. The stems come one by one, at the rate of the pictures: less memory."""
    heard, made = parse_task(data.task)
    apart = {}
    for name in (*heard, *made):
        rate, (sound,) = stems.load_sums(item.source, [(name,)])
        apart[name] = stems.resample(np.ascontiguousarray(sound), rate, data.sample_rate)
    samples = []
    for number in map(int, np.flatnonzero(kept)):
        start, reference = int(pictures.starts[number]), float(pictures.references[number])
        for copy in range(1, data.copies + 1):
            input, target = augment.copy_of(apart, start, reference, data, item.source.name, number, copy)
            note = {**about, "window": number, "first_frame": start, "reference": reference, "copy": copy}
            samples.append(_pair(f"{item.key}-{number:05d}-copy{copy}", input, target, note))
    return samples


def _pair(key: str, input: np.ndarray, target: np.ndarray, note: dict[str, Any]) -> dict[str, Any]:
    npz = io.BytesIO()
    np.savez(npz, input=input, target=target)
    return {"__key__": key, "npz": npz.getvalue(), "json": _json(note)}


def _sound_sample(
    key: str, rate: int, sounds: list[np.ndarray], gain: float, about: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """A song's input and target as flac of 24 bits, at its own rate and channels; `gain` undoes the scaling below 1.

    The parts of one sample, one after another, since a long song's flac is large. The sounds become what the files hold.
    """
    import soundfile

    yield {"__key__": key, "json": _json({**about, "gain": gain})}
    for name, sound in zip(("input", "target"), sounds, strict=True):
        flac = io.BytesIO()
        with soundfile.SoundFile(flac, "w", rate, sound.shape[1], format="FLAC", subtype="PCM_24") as file:
            for start in range(0, len(sound), _BLOCK):
                part = sound[start : start + _BLOCK]
                whole = np.clip(np.rint(part * np.float32(2**23 / gain)), -(2**23), 2**23 - 1)
                file.write(np.ascontiguousarray(whole.astype(np.int32) << 8))
                part[...] = whole * np.float32(gain / 2**23)
        yield {"__key__": key, f"{name}.flac": flac.getvalue()}


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode()


def _write_shard(out: Path, name: str, samples: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Write one tar whole or not at all; its name, size and sha256."""
    with files.replacing(out / name) as temporary, temporary.open("wb") as stream:
        with _tar_writer()(stream, mtime=0, encoder=False) as writer:
            for sample in samples:
                writer.write(sample)
    return {"name": name, "bytes": (out / name).stat().st_size, "sha256": files.sha256_file(out / name)}


def _tar_writer() -> Any:
    """webdataset's own TarWriter. It imports torch where it finds it (1 to 2 s a worker) and can do without."""
    hide = "webdataset" not in sys.modules and "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from webdataset.writer import TarWriter
    finally:
        if hide:
            del sys.modules["torch"]
    return TarWriter

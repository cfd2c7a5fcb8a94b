"""Preprocess one song to its shards, in a worker process. It imports neither torch nor librosa and may be killed at any time.

A song is one shard, so the bytes do not depend on who made them; a shard has its name only when it is whole.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.audio import stems
from p2p_dist.audio.layouts import Source
from p2p_dist.audio.stems import Sum
from p2p_dist.common import files, records, schemas
from p2p_dist.data import augment, index, npz_pairs, overlap, pairs, tar
from p2p_dist.data.tar import Sample
from p2p_dist.settings import science
from p2p_dist.settings.config import Data, parse_task

PARTS = "parts"

_TOGETHER = 3e8
"""Bytes of decoded sums up to which several tasks are made from one decode; a longer song is decoded more than once."""

_BLOCK = 1 << 16


@dataclass(frozen=True)
class Work:
    """One song to preprocess."""

    source: Source
    number: int
    """of the song in its split; with the title it makes the keys unique"""

    @property
    def key(self) -> str:
        """`00003-the-title`: ASCII without dots, since WebDataset cuts a key at its first dot."""
        return f"{self.number:05d}-{slug(self.source.name)}"

    @functools.cached_property
    def stamp(self) -> str:
        """The song's, as it was when first asked for, before it is made: one that is replaced meanwhile is the old one."""
        return self.source.stamp()

    def record(self, out: Path) -> Path:
        """The path of the record that the song is finished."""
        return out / PARTS / f"{self.source.split}-{self.key}.json"

    @functools.cached_property
    def stamp_of_version_0_1(self) -> str:
        return self.source.stamp_of_version_0_1()

    def finished(self, out: Path, data: Data, *, stands: bool = False) -> dict[str, Any] | None:
        """The record of the song where it, as it is now, was made by these settings, and all that its record names is there.

        Args:
            stands: the folder is named after these very songs and its manifest stands: what is there is not asked again.
        """
        now = self.stamp  # whether there is a record or not: later it may be another
        record = read_record(self.record(out))
        if record is None or science.are_those(record["settings"], data):
            return None
        if not stands and record["source"] != (now if record["schema"] > 1 else self.stamp_of_version_0_1):
            return None
        shards = [shard for shard in (record["shard"], record["audio"]) if shard]
        whole = all((p := out / shard["name"]).is_file() and p.stat().st_size == shard["bytes"] for shard in shards)
        return record if whole else None

    def forget(self, out: Path) -> None:
        """Remove what an earlier call made of the song: first the manifest and the record, then the shards."""
        shards = [out / f"{self.source.split}-{self.key}.tar", out / f"audio-{self.source.split}-{self.key}.tar"]
        if any(path.exists() for path in (self.record(out), *shards)):
            for path in (out / index.MANIFEST, self.record(out), *shards):
                path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Result:
    """The result of preprocessing one song: its amount of data, or the reasons why it was left out."""

    name: str
    seconds: float = 0.0
    bytes: int = 0
    errors: dict[Path, str] = field(default_factory=dict)
    """by the folder that it is left out of"""
    note: str = ""
    """how fast all is going, for people"""

    @property
    def error(self) -> str | None:
        """Why it was left out, of whatever folder."""
        return "; ".join(dict.fromkeys(self.errors.values())) or None


@dataclass(frozen=True)
class _Sound:
    """What is recorded of a song's audio besides its spectrograms."""

    rate: int
    seconds: float
    clipped: int
    levels: dict[str, float | None]
    filled: float = 0.0
    """seconds of silence at the end of a stem that was shorter than the others"""
    by_position: bool = False
    """whether stems are streams that the file does not name"""
    fingerprint: str | None = None
    """see `overlap.fingerprint`; None of ready-made pairs"""


def read_record(path: Path) -> dict[str, Any] | None:
    """Read the record of a finished song; None if there is none, or if it is damaged or was changed."""
    try:
        content = records.read(path)
        found: dict[str, Any] = records.read(path, schemas.SONG)
    except (OSError, ValueError):
        return None
    return found if files.is_sealed(content) else None


def slug(title: str) -> str:
    """Convert a title to at most 48 ASCII letters, digits and single dashes, for keys and file names."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:48].strip("-") or "song"


def make_song(item: Work, wanted: Sequence[tuple[Path, Data]]) -> Result:
    """Decode one song and write its shards and its record into each folder, under that folder's settings."""
    source, seconds, errors = item.source, 0.0, {}
    for out, _ in wanted:
        item.forget(out)
    groups = [[one] for one in wanted] if source.pairs else _groups(source, wanted)
    while groups:
        group = groups.pop(0)
        try:
            if source.pairs:
                _write_foreign(item, *group[0])
            else:
                seconds = _make_sound(item, group)
        except ValueError as error:
            if len(group) > 1:  # a stem that one of them needs may not matter to the others
                groups += [[one] for one in group]
            else:
                errors[group[0][0]] = str(error)
    return Result(source.name, seconds, source.size(), errors)


def _make_sound(item: Work, group: Sequence[tuple[Path, Data]]) -> float:
    """Make the shards of all these tasks from one decode. Returns the song's length in seconds."""
    downmix = _is_downmixed(item.source, group)
    rate, sums = stems.load_sums(item.source, _sums(group), downmix=downmix)
    found = dict(zip(_sums(group), sums, strict=True))
    seconds = len(sums[0].sound) / rate
    del sums
    for number, (out, data) in enumerate(group):
        later = _sums(group[number + 1 :])
        parts = [_copy(found[side]) if side in later else found.pop(side) for side in parse_task(data.task)]
        _write_song(item, out, data, rate, parts)
    return seconds


def _copy(part: Sum) -> Sum:
    """Copy the audio for a task that is not the last to need it, because writing a held-out song changes it."""
    return replace(part, sound=part.sound.copy())


def _sums(wanted: Sequence[tuple[Path, Data]]) -> list[tuple[str, ...]]:
    """The sums of stems that these tasks need, without duplicates."""
    return list(dict.fromkeys(side for _, data in wanted for side in parse_task(data.task)))


def _is_downmixed(source: Source, wanted: Sequence[tuple[Path, Data]]) -> bool:
    """Whether the mean of the channels is all that is needed: no sound is kept, no sides are shown."""
    return source.split == "train" and all(data.channels == "mono" for _, data in wanted)


def _groups(source: Source, wanted: Sequence[tuple[Path, Data]]) -> list[list[tuple[Path, Data]]]:
    """The tasks by decodes: those whose sums fit into memory together."""
    if len(wanted) == 1:
        return [list(wanted)]
    _, channels, samples = stems.header(source)
    size = 4 * samples * (1 if _is_downmixed(source, wanted) else channels)
    groups: list[list[tuple[Path, Data]]] = [[]]
    for one in wanted:
        if groups[-1] and size * len(_sums([*groups[-1], one])) > _TOGETHER:
            groups.append([])
        groups[-1].append(one)
    return groups


def _write_song(item: Work, out: Path, data: Data, rate: int, parts: list[Sum]) -> None:
    """One task of a decoded song. `parts`, what is heard and what is to be made, is emptied: sound takes much memory."""
    split, audio = item.source.split, None
    heard, made = parts
    about = {"song": item.source.name, "split": split, "task": data.task}
    levels = {"input": _db(heard), "target": _db(made)}
    filled, by_position = max(heard.filled, made.filled) / rate, heard.by_position or made.by_position
    known_by = overlap.fingerprint([heard.sound, made.sound], rate)
    sound = _Sound(rate, len(made.sound) / rate, heard.clipped + made.clipped, levels, filled, by_position, known_by)
    if split != "train":
        # Rounded to what the file will hold, so that pictures made of it are those in the shards, bit for bit.
        gain = 2.0 ** max(0, int(np.ceil(np.log2(max(heard.peak, made.peak, 1e-9)))))
        content = _sound_sample(item.key, rate, [heard.sound, made.sound], gain, about)
        audio, _ = tar.write(out / f"audio-{split}-{item.key}.tar", content)
    pictures = pairs.make(heard.sound, made.sound, rate, data)
    silent = pairs.silent_windows(pictures, made.sound, rate, data)
    del heard, made
    parts.clear()
    kept = np.ones(len(silent), bool)
    if split == "train":
        chosen = [augment.random_for("silent", data.seed, item.source.name, n).random() for n in range(len(silent))]
        kept = ~silent | (np.array(chosen) < data.silent_share)
    samples = _pair_samples(item.key, pictures, kept, about)
    if split == "train" and data.copies:
        samples = itertools.chain(samples, _copies(item, pictures, kept, data, about))
    counts = {
        "silent_windows": int(silent.sum()),
        "silent_dropped": int((~kept).sum()),
        "padded_windows": int(kept[-1] and pictures.starts[-1] + data.frames > pictures.frames),
        "copies": int(kept.sum()) * data.copies if split == "train" else 0,
    }
    _finish(item, out, data, samples if kept.any() else [], audio, sound, counts)


def _write_foreign(item: Work, out: Path, data: Data) -> None:
    """Write npz pairs into a shard, unchanged."""
    if data.representation != "thesis":
        raise ValueError(f"{item.source.path}: npz pairs need --preset thesis (data.representation thesis)")
    kinds: dict[np.dtype[Any], Path] = {}

    def samples() -> Iterator[Sample]:
        for number, path in enumerate(item.source.pairs):
            input, target = npz_pairs.read(path, data)
            kinds[input.dtype] = path
            if len(kinds) > 1:
                raise ValueError("the pairs differ in dtype: " + ", ".join(f"{kind} in {p}" for kind, p in kinds.items()))
            note = {"song": item.source.name, "split": item.source.split, "window": number, "file": path.name}
            yield _pair(f"{item.key}-{number:05d}", input, target, note)

    counts = dict.fromkeys(("silent_windows", "silent_dropped", "padded_windows", "copies"), 0)
    seconds = len(item.source.pairs) * data.hop_length * (data.frames - 1) / data.sample_rate
    sound = _Sound(data.sample_rate, seconds, 0, {"input": None, "target": None})
    _finish(item, out, data, samples(), None, sound, counts)


def _finish(
    item: Work,
    out: Path,
    data: Data,
    samples: Iterable[Sample],
    audio: dict[str, Any] | None,
    sound: _Sound,
    counts: dict[str, int],
) -> None:
    """Write the shard and then, last, the record that says that the song is finished."""
    shard: dict[str, Any] | None = None
    rows: list[dict[str, Any]] = []
    if samples:
        shard, rows = tar.write(out / f"{item.source.split}-{item.key}.tar", samples)
        shard["samples"] = len(rows)
    record = {
        "song": item.source.name,
        "split": item.source.split,
        "key": item.key,
        "source": item.stamp,
        "settings": science.recorded(data),
        "seconds": sound.seconds,
        "sample_rate": sound.rate,
        "clipped": sound.clipped,
        "levels": sound.levels,
        "filled": sound.filled,
        "by_position": sound.by_position,
        "fingerprint": sound.fingerprint,
        **counts,
        "dtype": rows[0]["dtype"] if rows else None,
        "shape": rows[0]["shape"] if rows else None,
        "shard": shard,
        "audio": audio,
        "samples": [
            [row["key"], shard["name"], row["input"], row["target"], row["checksum"]] for row in rows if shard is not None
        ],
    }
    files.write_json(item.record(out), files.sealed({"schema": schemas.SONG.schema, **record}))


def _db(part: Sum) -> float | None:
    """Level in dBFS (root mean square); None for silence."""
    return round(10 * float(np.log10(part.power)), 2) if part.power else None


def _pair_samples(key: str, pictures: pairs.Pictures, kept: np.ndarray, about: dict[str, Any]) -> Iterator[Sample]:
    for number in np.flatnonzero(kept):
        note = {**about, "window": int(number), "first_frame": int(pictures.starts[number])}
        note["reference"] = float(pictures.references[number])
        yield _pair(f"{key}-{number:05d}", pictures.inputs[number], pictures.targets[number], note)


def _copies(item: Work, pictures: pairs.Pictures, kept: np.ndarray, data: Data, about: dict[str, Any]) -> Iterator[Sample]:
    """Augmented copies of the windows kept. All stems of a long song take much memory: it is decoded again for each part."""
    names = [name for side in parse_task(data.task) for name in side]
    rate, channels, _ = stems.header(item.source)
    at_once = max(int(_TOGETHER / (4 * len(names) * channels * max(rate, data.sample_rate))), 1)  # seconds
    margin = 1 + -(-augment.reach(data) // data.sample_rate)  # and a second for the filter of another rate

    def part_of(number: int) -> int:
        return int(pictures.starts[number]) * data.hop_length // data.sample_rate // at_once

    apart: dict[str, np.ndarray] = {}
    for part, numbers in itertools.groupby(map(int, np.flatnonzero(kept)), part_of):
        apart.clear()  # before the next part takes as much
        begin, end = max(part * at_once - margin, 0), (part + 1) * at_once + margin
        rate, sums = stems.load_sums(item.source, [(name,) for name in names], part=(begin, end))
        for name in names:
            apart[name] = stems.resample(np.ascontiguousarray(sums.pop(0).sound), rate, data.sample_rate)
        for number in numbers:
            start, reference = int(pictures.starts[number]), float(pictures.references[number])
            for copy in range(1, data.copies + 1):
                before = begin * data.sample_rate
                input, target = augment.copy_of(apart, start, reference, data, item.source.name, number, copy, before)
                note = {**about, "window": number, "first_frame": start, "reference": reference, "copy": copy}
                yield _pair(f"{item.key}-{number:05d}-copy{copy}", input, target, note)


def _pair(key: str, input: np.ndarray, target: np.ndarray, note: dict[str, Any]) -> Sample:
    npz = io.BytesIO()
    np.savez(npz, input=input, target=target)
    return key, {"json": _json(note), "npz": npz.getbuffer()}


def _sound_sample(key: str, rate: int, sounds: list[np.ndarray], gain: float, about: dict[str, Any]) -> Iterator[Sample]:
    """A song's input and target as flac of 24 bits, at its own rate and channels; `gain` undoes the scaling below 1.

    The parts of one sample, one after another, since a long song's flac is large. The sounds become what the files hold.
    """
    import soundfile

    yield key, {"json": _json({**about, "gain": gain})}
    for name, sound in zip(("input", "target"), sounds, strict=True):
        flac = io.BytesIO()
        try:
            file = soundfile.SoundFile(flac, "w", rate, sound.shape[1], format="FLAC", subtype="PCM_24")
        except soundfile.LibsndfileError as error:
            kind = f"{sound.shape[1]} channels at {rate} Hz"
            raise ValueError(f"{about['song']}: held-out songs are stored as flac, which does not support {kind}") from error
        with file:
            for start in range(0, len(sound), _BLOCK):
                part = sound[start : start + _BLOCK]
                whole = np.clip(np.rint(part * np.float32(2**23 / gain)), -(2**23), 2**23 - 1)
                file.write(np.ascontiguousarray(whole.astype(np.int32) << 8))
                part[...] = whole * np.float32(gain / 2**23)
        yield key, {f"{name}.flac": flac.getbuffer()}
        del flac


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode()

"""Songs as stems: MUSDB18 (`.stem.mp4`), MUSDB18-HQ (folders of wav) and folders laid out like them.

The only module that knows these layouts. The mixture stream is never read: a mix is always the sum of stems, because
MUSDB18's own mixture is mastered (15 dB off).
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from p2p_dist.config import STEMS

SPLITS = ("train", "valid", "test")
EXCERPT = "The Easton Ellises - Falcon 69.stem.mp4"
"""The six seconds of MUSDB18 that the package stempeg ships for its own tests."""

VALID_SHARE = 0.14
"""Share of the training titles held out for validation where the songs are not MUSDB18 (which has 14 of 100)."""

SUFFIX = ".stem.mp4"


@dataclass(frozen=True)
class Song:
    """One song, decoded.

    stems: name -> float32 of shape (samples, channels), all of one length, rate and channel count; full scale is 1.
    """

    name: str
    sample_rate: int
    stems: dict[str, np.ndarray]

    def sum_of(self, names: Iterable[str]) -> np.ndarray:
        """The mix of the named stems, (samples, channels)."""
        parts = [self.stems[name] for name in names]
        total = parts[0].copy()
        for part in parts[1:]:
            total += part
        return total


@dataclass(frozen=True)
class Source:
    """Where one song lies, not yet decoded: a `.stem.mp4` file, or a folder with one sound file a stem."""

    name: str
    split: str
    path: Path

    def size(self) -> int:
        """Bytes of all its files: with name and split, the identity of the song."""
        files = [self.path] if self.path.is_file() else stem_files(self.path).values()
        return sum(file.stat().st_size for file in files)


def stem_files(folder: Path) -> dict[str, Path]:
    """The sound file of each stem found in the folder of one song."""
    found: dict[str, Path] = {}
    for stem in STEMS:
        for suffix in (".wav", ".flac"):
            if (file := folder / f"{stem}{suffix}").is_file():
                found.setdefault(stem, file)
    return found


def find_songs(root: Path) -> list[Source]:
    """All songs under `root`/train and `root`/test, sorted by split and name; part of train becomes valid.

    Raises:
        ValueError: no such folder, or no song in it; the message says what is expected.
    """
    layout = f"{root}/train and {root}/test with SONG{SUFFIX} files, or SONG folders of {', '.join(STEMS)} as wav or flac"
    if not root.is_dir():
        raise ValueError(f"no folder {root}: --data names the folder of MUSDB18, or one laid out like it ({layout})")
    songs = []
    for split in ("train", "test"):
        for path in sorted((root / split).iterdir()) if (root / split).is_dir() else []:
            if path.name.startswith("."):
                continue
            if path.is_dir() and stem_files(path):
                songs.append(Source(path.name, split, path))
            elif path.name.endswith(SUFFIX):
                songs.append(Source(path.name.removesuffix(SUFFIX), split, path))
    if not songs:
        raise ValueError(f"no song in {root}: expected {layout}")
    valid = _validation_titles([song.name for song in songs if song.split == "train"])
    songs = [Source(s.name, "valid" if s.split == "train" and s.name in valid else s.split, s.path) for s in songs]
    return sorted(songs, key=lambda song: (SPLITS.index(song.split), song.name))


def _validation_titles(titles: list[str]) -> set[str]:
    """Which training songs are held out for validation: MUSDB18's own 14 if it is MUSDB18, else by hash of the title.

    The hash decides each title by itself, so that adding songs moves none.
    """
    known = set(musdb_settings()["validation_tracks"])
    if known & set(titles):
        return known
    return {title for title in titles if hashlib.sha256(title.encode()).digest()[0] < 256 * VALID_SHARE}


def _installed(package: str) -> Path:
    """Folder of an installed package, found without importing it.

    Raises:
        ValueError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"the package {package} is not installed: pip install 'p2p_dist[run]'")
    return Path(spec.submodule_search_locations[0])


def musdb_settings() -> dict:  # type: ignore[type-arg]
    """musdb's own `mus.yaml`: stem order and validation titles. `import musdb` raises where ffmpeg is missing."""
    settings = yaml.safe_load((_installed("musdb") / "configs" / "mus.yaml").read_text(encoding="utf-8"))
    assert isinstance(settings, dict)
    return settings


def excerpt_file() -> Path:
    """The six-second excerpt inside stempeg.

    Raises:
        ValueError: stempeg is not installed, or came without it.
    """
    file = _installed("stempeg") / "data" / EXCERPT
    if not file.is_file():
        raise ValueError(f"stempeg came without its excerpt ({file}): name a folder of songs with --data")
    return file


def load(source: Source, stems: Iterable[str] = STEMS) -> Song:
    """Decode the named stems of one song.

    Raises:
        ValueError: a stem is missing, cut short, or differs from the others in length, rate or channels; a file is not
            what its name says; the song has no samples, or samples that are no numbers. The message names file and stem.
    """
    names = [stem for stem in STEMS if stem in set(stems)]
    if source.path.is_file():
        rate, decoded = _decode_stem_mp4(source.path, names)
    else:
        rate, decoded = _read_folder(source.path, names)
    lengths = {name: len(samples) for name, samples in decoded.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length / rate:.3f} s" for name, length in lengths.items())
        raise ValueError(f"{source.path}: the stems differ in length ({listed})")
    if not next(iter(lengths.values())):
        raise ValueError(f"{source.path}: no samples")
    for name, samples in decoded.items():
        if not np.isfinite(samples).all():
            raise ValueError(f"{source.path}: stem {name} holds samples that are no numbers (NaN or infinite)")
    return Song(source.name, rate, decoded)


def _read_folder(folder: Path, names: list[str]) -> tuple[int, dict[str, np.ndarray]]:
    """Read one wav or flac a stem; all must have one rate and channel count."""
    import soundfile

    files = stem_files(folder)
    if missing := [name for name in names if name not in files]:
        raise ValueError(f"{folder}: no {', '.join(f'{name}.wav or .flac' for name in missing)}")
    rates, decoded = {}, {}
    for name in names:
        try:
            decoded[name], rates[name] = soundfile.read(files[name], dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{files[name]}: not readable as sound ({error.error_string})") from error
    kinds = {name: (rates[name], decoded[name].shape[1]) for name in names}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{name} {rate} Hz x {channels}" for name, (rate, channels) in kinds.items())
        raise ValueError(f"{folder}: the stems differ in rate or channels ({listed})")
    return next(iter(rates.values())), decoded


def _decode_stem_mp4(path: Path, names: list[str]) -> tuple[int, dict[str, np.ndarray]]:
    """Decode the named audio streams of a stem file in one pass, with PyAV (no ffmpeg binary is needed).

    A stream that ends more than one AAC frame before the length in its header was cut short.
    """
    import av
    from av.error import FFmpegError

    order = musdb_settings()["stem_ids"]
    pieces: dict[int, list[np.ndarray]] = {order[name]: [] for name in names}
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            streams = container.streams.audio
            if len(streams) < len(order):
                raise ValueError(f"{path}: {len(streams)} sound streams, a stem file has {len(order)}")
            wanted = [streams[order[name]] for name in names]
            kinds = {(stream.rate, stream.codec_context.channels) for stream in wanted}
            if len(kinds) > 1:
                raise ValueError(f"{path}: the stems differ in rate or channels ({sorted(kinds)})")
            ((rate, channels),) = kinds
            number = {stream.index: order[name] for stream, name in zip(wanted, names, strict=True)}
            expected = {number[s.index]: int((s.duration or 0) * s.time_base * rate) for s in wanted}
            for packet in container.demux(*wanted):
                for frame in packet.decode():
                    pieces[number[packet.stream.index]].append(_samples(frame))
    except FFmpegError as error:
        raise ValueError(f"{path}: not decodable as a stem file, or cut short ({error.strerror})") from error
    decoded = {}
    for name in names:
        parts = pieces[order[name]] or [np.zeros((channels, 0), np.float32)]
        decoded[name] = np.ascontiguousarray(np.concatenate(parts, axis=1).T)
        if len(decoded[name]) < expected[order[name]] - 2048:
            got, full = len(decoded[name]) / rate, expected[order[name]] / rate
            raise ValueError(f"{path}: cut short, stem {name} ends at {got:.1f} of {full:.1f} s")
    return rate, decoded


def _samples(frame) -> np.ndarray:  # type: ignore[no-untyped-def]
    """One decoded frame as float32 (channels, samples), whatever the codec's own sample format."""
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, len(frame.layout.channels)).T
    if array.dtype == np.float32:
        return array
    if np.issubdtype(array.dtype, np.integer):
        return array.astype(np.float32) / -float(np.iinfo(array.dtype).min)
    return array.astype(np.float32)


def mono(samples: np.ndarray, rate: int, target_rate: int) -> np.ndarray:
    """(samples, channels) at `rate` to float32 (samples,) at `target_rate`: mean of the channels, then soxr HQ.

    Equal to `librosa.load(..., mono=True)`, the order that the thesis used.
    """
    return resample(samples.mean(axis=1, dtype=np.float32), rate, target_rate)


def resample(samples: np.ndarray, rate: int, target_rate: int) -> np.ndarray:
    """Resample (samples,) or (samples, channels) with soxr HQ."""
    if rate == target_rate:
        return samples
    import soxr

    return np.asarray(soxr.resample(samples, rate, target_rate, quality="HQ"), dtype=np.float32)

"""Songs as stems: MUSDB18 (`.stem.mp4`), MUSDB18-HQ (folders of wav), folders laid out like them, ready-made npz pairs.

The only module that knows these layouts. The mixture stream is never read: a mix is always the sum of stems, because
MUSDB18's own mixture is mastered (15 dB off).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
PAIRS_SUFFIX = ".npz"

_HELD = 8  # frames gathered before they are added: few calls of numpy, and still in the cache
_BLOCK = 1 << 16


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
    """Where one song lies, not yet decoded: a `.stem.mp4` file, a folder with one sound file a stem, or ready-made pairs.

    pairs: the npz files, where the song comes as pictures and has no sound.
    """

    name: str
    split: str
    path: Path
    pairs: tuple[Path, ...] = ()

    def size(self) -> int:
        """Bytes of all its files: with name and split, the identity of the song."""
        files = self.pairs or ([self.path] if self.path.is_file() else stem_files(self.path).values())
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
    layout = (
        f"{root}/train and {root}/test with SONG{SUFFIX} files, or SONG folders of {', '.join(STEMS)} as wav or flac, "
        f"or the {PAIRS_SUFFIX} pairs of the thesis"
    )
    if not root.is_dir():
        raise ValueError(f"no folder {root}: --data names the folder of MUSDB18, or one laid out like it ({layout})")
    songs = []
    for split in ("train", "test"):
        loose = []
        for path in sorted((root / split).iterdir()) if (root / split).is_dir() else []:
            if path.name.startswith("."):
                continue
            if path.is_dir() and stem_files(path):
                songs.append(Source(path.name, split, path))
            elif path.is_dir() and (pairs := sorted(path.glob("*" + PAIRS_SUFFIX))):
                songs.append(Source(path.name, split, path, tuple(pairs)))
            elif path.name.endswith(SUFFIX):
                songs.append(Source(path.name.removesuffix(SUFFIX), split, path))
            elif path.name.endswith(PAIRS_SUFFIX):
                loose.append(path)
        songs += [Source(name, split, root / split, pairs) for name, pairs in _by_song(loose).items()]
    if not songs:
        raise ValueError(f"no song in {root}: expected {layout}")
    valid = _validation_titles([song.name for song in songs if song.split == "train"])
    songs = [replace(s, split="valid") if s.split == "train" and s.name in valid else s for s in songs]
    return sorted(songs, key=lambda song: (SPLITS.index(song.split), song.name, song.path))


def _by_song(pairs: list[Path]) -> dict[str, tuple[Path, ...]]:
    """Loose npz files of one folder by song: what stands before the number at the end of a name."""
    songs: dict[str, list[Path]] = {}
    for path in pairs:
        name = path.name.removesuffix(PAIRS_SUFFIX)
        songs.setdefault(re.sub(r"[\s._-]*\d+$", "", name) or name, []).append(path)
    return {name: tuple(sorted(paths)) for name, paths in songs.items()}


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


@functools.cache
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
    """Decode the named stems of one song, each by itself.

    Raises:
        ValueError: see `load_sums`.
    """
    wanted = set(stems)
    names = [stem for stem in STEMS if stem in wanted]
    rate, sounds = load_sums(source, [(name,) for name in names])
    return Song(source.name, rate, dict(zip(names, sounds, strict=True)))


def load_sums(source: Source, sums: Sequence[Sequence[str]]) -> tuple[int, list[np.ndarray]]:
    """Decode every stem once and add it to each of the sums that names it: a song takes the memory of its sums.

    Returns:
        sample rate, and for each sum float32 (samples, channels), a view of memory laid out channel by channel.

    Raises:
        ValueError: a stem is missing, cut short, or differs from the others in length, rate or channels; a file is not
            what its name says; the song has no samples, or samples that are no numbers. The message names file and stem.
    """
    named = {stem for part in sums for stem in part}
    names = [stem for stem in STEMS if stem in named]
    adders = [_Adder(set(part)) for part in sums]
    decode = _decode_stem_mp4 if source.path.is_file() else _read_folder
    rate, lengths = decode(source.path, names, adders)
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length / rate:.3f} s" for name, length in lengths.items())
        raise ValueError(f"{source.path}: the stems differ in length ({listed})")
    samples = next(iter(lengths.values()))
    if not samples:
        raise ValueError(f"{source.path}: no samples")
    for adder in adders:
        if not all(np.isfinite(np.dot(channel, channel)) for channel in adder.total[:, : adder.filled]):
            stems = " + ".join(name for name in STEMS if name in adder.names)
            raise ValueError(f"{source.path}: stem {stems} holds samples that are no numbers (NaN or infinite)")
    return rate, [adder.total[:, :samples].T for adder in adders]


class _Adder:
    """The sum of some stems that arrive in pieces, each at its own pace; planar, so that each piece is one run of memory."""

    def __init__(self, names: set[str]) -> None:
        self.names, self.total, self.filled = names, np.empty((0, 0), np.float32), 0

    def reserve(self, channels: int, samples: int) -> None:
        """Make room; the pages are touched only when they are written."""
        grown = np.empty((channels, samples), np.float32)
        if self.filled:
            grown[:, : self.filled] = self.total[:, : self.filled]
        self.total = grown

    def add(self, piece: np.ndarray, start: int) -> None:
        """Add (channels, samples) at `start`: to what is there, or as the first to come so far."""
        end = start + piece.shape[1]
        if end > self.total.shape[1]:
            self.reserve(len(piece), 2 * end)
        there = min(max(self.filled - start, 0), piece.shape[1])
        self.total[:, start : start + there] += piece[:, :there]
        self.total[:, start + there : end] = piece[:, there:]
        self.filled = max(self.filled, end)


def _read_folder(folder: Path, names: list[str], adders: list[_Adder]) -> tuple[int, dict[str, int]]:
    """Read one wav or flac a stem; all must have one rate and channel count. Returns the rate and samples of each."""
    import soundfile

    files = stem_files(folder)
    if missing := [name for name in names if name not in files]:
        raise ValueError(f"{folder}: no {', '.join(f'{name}.wav or .flac' for name in missing)}")
    kinds, lengths = {}, {}
    for name in names:
        try:
            with soundfile.SoundFile(files[name]) as file:
                kinds[name] = (file.samplerate, file.channels)
                if kinds[name] != kinds[names[0]]:
                    continue
                mine = [adder for adder in adders if name in adder.names]
                for adder in mine:
                    if not adder.filled:
                        adder.reserve(file.channels, file.frames)
                lengths[name] = 0
                while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                    if not np.isfinite(block.sum()):
                        raise ValueError(f"{files[name]}: stem {name} holds samples that are no numbers (NaN or infinite)")
                    for adder in mine:
                        adder.add(block.T, lengths[name])
                    lengths[name] += len(block)
                if lengths[name] < file.frames:
                    raise ValueError(f"{files[name]}: cut short, {lengths[name]} of {file.frames} samples")
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{files[name]}: not readable as sound ({error.error_string})") from error
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{name} {rate} Hz x {channels}" for name, (rate, channels) in kinds.items())
        raise ValueError(f"{folder}: the stems differ in rate or channels ({listed})")
    return kinds[names[0]][0], lengths


def _decode_stem_mp4(path: Path, names: list[str], adders: list[_Adder]) -> tuple[int, dict[str, int]]:
    """Decode the named audio streams of a stem file in one pass, with PyAV (no ffmpeg binary is needed).

    The library itself drops the encoder's delay and what an edit list cuts, as ffmpeg does. A stream that ends more
    than one AAC frame before the length in its header was cut short. Returns the rate and samples of each stem.
    """
    import av
    from av.error import FFmpegError

    order = musdb_settings()["stem_ids"]
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            streams = container.streams.audio
            if len(streams) < len(order):
                raise ValueError(f"{path}: {len(streams)} sound streams, a stem file has {len(order)}")
            wanted = {name: streams[order[name]] for name in names}
            kinds = {(stream.rate, stream.codec_context.channels) for stream in wanted.values()}
            if len(kinds) > 1:
                raise ValueError(f"{path}: the stems differ in rate or channels ({sorted(kinds)})")
            ((rate, channels),) = kinds
            expected = {name: int((s.duration or 0) * (s.time_base or 0) * rate) for name, s in wanted.items()}
            for adder in adders:
                adder.reserve(channels, max(expected.values()) + 4096)
            tracks = {name: _Track([adder for adder in adders if name in adder.names], channels) for name in names}
            by_index = {stream.index: tracks[name] for name, stream in wanted.items()}
            for packet in container.demux(*wanted.values()):
                if frames := packet.decode():
                    by_index[packet.stream.index].take(frames)
            for track in tracks.values():
                track.flush()
    except FFmpegError as error:
        raise ValueError(f"{path}: not decodable as a stem file, or cut short ({error.strerror})") from error
    lengths = {name: track.samples for name, track in tracks.items()}
    for name, length in lengths.items():
        if length < expected[name] - 2048:
            raise ValueError(f"{path}: cut short, stem {name} ends at {length / rate:.1f} of {expected[name] / rate:.1f} s")
    return rate, lengths


class _Track:
    """One stream being decoded: holds a few frames and hands them on together, with few calls into Python for each."""

    def __init__(self, adders: list[_Adder], channels: int) -> None:
        self.adders, self.channels, self.samples = adders, channels, 0
        self.held: list = []  # type: ignore[type-arg]

    def take(self, frames: list) -> None:  # type: ignore[type-arg]
        self.held += frames
        if len(self.held) >= _HELD:
            self.flush()

    def flush(self) -> None:
        if not self.held:
            return
        size, samples = self.held[0].planes[0].buffer_size // 4, self.held[0].samples
        planes = [plane for frame in self.held for plane in frame.planes]
        raw = b""
        if self.held[0].format.name == "fltp" and all(frame.samples == samples for frame in self.held):
            raw = b"".join(planes)
        if raw and len(raw) == 4 * size * self.channels * len(self.held):
            # A plane is longer than what it holds.
            pieces = np.frombuffer(raw, np.float32).reshape(len(self.held), self.channels, size)[:, :, :samples]
            self._add(pieces.transpose(1, 0, 2).reshape(self.channels, -1))
        else:  # frames of other lengths, or a codec with another sample format than AAC's
            for frame in self.held:
                self._add(_samples(frame))
        self.held = []

    def _add(self, piece: np.ndarray) -> None:
        for adder in self.adders:
            adder.add(piece, self.samples)
        self.samples += piece.shape[1]


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

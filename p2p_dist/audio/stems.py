"""Songs as stems: MUSDB18 (`.stem.mp4`), MUSDB18-HQ (folders of wav), folders laid out like them, ready-made npz pairs.

The only module that knows these layouts. The mixture stream is never read: a mix is always the sum of stems, because
MUSDB18's own mixture is mastered (15 dB off).
"""

from __future__ import annotations

import contextlib
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

_HELD = 8  # frames gathered before they are handed on: few calls of numpy
_BLOCK = 1 << 13  # samples added up at once: all stems of them stay in the cache


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
    mixer = _Mixer(sums)
    decode = _decode_stem_mp4 if source.path.is_file() else _read_folder
    rate = decode(source.path, mixer)
    mixer.mix(min(mixer.waiting.values()))
    if len(set(mixer.lengths.values())) > 1:
        listed = ", ".join(f"{name} {length / rate:.3f} s" for name, length in mixer.lengths.items())
        raise ValueError(f"{source.path}: the stems differ in length ({listed})")
    if not mixer.mixed:
        raise ValueError(f"{source.path}: no samples")
    sounds = [total[:, : mixer.mixed] for total in mixer.totals]
    for names, sound in zip(mixer.sums, sounds, strict=True):
        if not all(np.isfinite(np.dot(channel, channel)) for channel in sound):
            raise ValueError(f"{source.path}: stem {' + '.join(names)} holds samples that are no numbers (NaN or infinite)")
    return rate, [sound.T for sound in sounds]


class _Mixer:
    """Sums of stems that arrive in pieces, each at its own pace.

    What all stems have come to is added up, in the order of `STEMS`, while it is in the cache; only the sums go to memory.
    """

    def __init__(self, sums: Sequence[Sequence[str]]) -> None:
        self.sums = [[stem for stem in STEMS if stem in set(part)] for part in sums]
        self.names = [stem for stem in STEMS if any(stem in part for part in self.sums)]
        self.pending: dict[str, list[np.ndarray]] = {name: [] for name in self.names}
        self.waiting = dict.fromkeys(self.names, 0)
        self.lengths = dict.fromkeys(self.names, 0)
        self.totals: list[np.ndarray] = []
        self.mixed = 0

    def reserve(self, channels: int, samples: int) -> None:
        """Make room, planar: a channel is one run of memory. The pages are touched only when they are written."""
        grown = [np.empty((channels, samples), np.float32) for _ in self.sums]
        for new, old in zip(grown, self.totals, strict=False):
            new[:, : self.mixed] = old[:, : self.mixed]
        self.totals = grown

    def take(self, name: str, piece: np.ndarray) -> None:
        """The next piece of a stem, (channels, samples)."""
        self.pending[name].append(piece)
        self.waiting[name] += piece.shape[1]
        self.lengths[name] += piece.shape[1]
        if self.waiting[name] >= _BLOCK and (ready := min(self.waiting.values())) >= _BLOCK:
            self.mix(ready)

    def mix(self, samples: int) -> None:
        """Add up so many samples of every stem."""
        if not samples:
            return
        end = self.mixed + samples
        if end > self.totals[0].shape[1]:
            self.reserve(len(self.totals[0]), 2 * end)
        stems = {}
        for name, pieces in self.pending.items():
            whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)
            stems[name] = whole[:, :samples]
            self.pending[name] = [whole[:, samples:]] if whole.shape[1] > samples else []
            self.waiting[name] -= samples
        for total, (first, *others) in zip(self.totals, self.sums, strict=True):
            place = total[:, self.mixed : end]
            place[...] = stems[first]
            for name in others:
                place += stems[name]
        self.mixed = end


def _read_folder(folder: Path, mixer: _Mixer) -> int:
    """Read one wav or flac a stem, all side by side; all must have one rate and channel count. Returns the rate."""
    import soundfile

    files = stem_files(folder)
    if missing := [name for name in mixer.names if name not in files]:
        raise ValueError(f"{folder}: no {', '.join(f'{name}.wav or .flac' for name in missing)}")
    with contextlib.ExitStack() as stack:
        opened = {}
        name = mixer.names[0]
        try:
            for name in mixer.names:
                opened[name] = stack.enter_context(soundfile.SoundFile(files[name]))
            if len({(file.samplerate, file.channels) for file in opened.values()}) > 1:
                listed = ", ".join(f"{name} {file.samplerate} Hz x {file.channels}" for name, file in opened.items())
                raise ValueError(f"{folder}: the stems differ in rate or channels ({listed})")
            first = opened[mixer.names[0]]
            mixer.reserve(first.channels, max(file.frames for file in opened.values()))
            while opened:
                for name, file in list(opened.items()):
                    block = file.read(_BLOCK, dtype="float32", always_2d=True)
                    if not np.isfinite(block.sum()):
                        raise ValueError(f"{files[name]}: stem {name} holds samples that are no numbers (NaN or infinite)")
                    if len(block):
                        mixer.take(name, block.T)
                    else:
                        del opened[name]
                        if mixer.lengths[name] < file.frames:
                            raise ValueError(f"{files[name]}: cut short, {mixer.lengths[name]} of {file.frames} samples")
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{files[name]}: not readable as sound ({error.error_string})") from error
        return int(first.samplerate)


def _decode_stem_mp4(path: Path, mixer: _Mixer) -> int:
    """Decode the audio streams that are needed of a stem file in one pass, with PyAV (no ffmpeg binary is needed).

    The library itself drops the encoder's delay and what an edit list cuts, as ffmpeg does. A stream that ends more
    than one AAC frame before the length in its header was cut short. Returns the rate.
    """
    import av
    from av.error import FFmpegError

    order = musdb_settings()["stem_ids"]
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            streams = container.streams.audio
            if len(streams) < len(order):
                raise ValueError(f"{path}: {len(streams)} sound streams, a stem file has {len(order)}")
            wanted = {name: streams[order[name]] for name in mixer.names}
            kinds = {(stream.rate, stream.codec_context.channels) for stream in wanted.values()}
            if len(kinds) > 1:
                raise ValueError(f"{path}: the stems differ in rate or channels ({sorted(kinds)})")
            ((rate, channels),) = kinds
            expected = {name: int((s.duration or 0) * (s.time_base or 0) * rate) for name, s in wanted.items()}
            mixer.reserve(channels, max(expected.values()) + 4096)
            tracks = {stream.index: _Track(mixer, name, channels) for name, stream in wanted.items()}
            for packet in container.demux(*wanted.values()):
                if frames := packet.decode():
                    tracks[packet.stream.index].take(frames)
            for track in tracks.values():
                track.flush()
    except FFmpegError as error:
        raise ValueError(f"{path}: not decodable as a stem file, or cut short ({error.strerror})") from error
    for name, length in mixer.lengths.items():
        if length < expected[name] - 2048:
            raise ValueError(f"{path}: cut short, stem {name} ends at {length / rate:.1f} of {expected[name] / rate:.1f} s")
    return int(rate)


class _Track:
    """One stream being decoded: holds a few frames and hands them on together, with few calls into Python for each."""

    def __init__(self, mixer: _Mixer, name: str, channels: int) -> None:
        self.mixer, self.name, self.channels = mixer, name, channels
        self.held: list = []  # type: ignore[type-arg]

    def take(self, frames: list) -> None:  # type: ignore[type-arg]
        self.held += frames
        if len(self.held) >= _HELD:
            self.flush()

    def flush(self) -> None:
        if not self.held:
            return
        size, samples = self.held[0].planes[0].buffer_size // 4, self.held[0].samples
        raw = b""
        if self.held[0].format.name == "fltp" and all(frame.samples == samples for frame in self.held):
            raw = b"".join([plane for frame in self.held for plane in frame.planes])
        if raw and len(raw) == 4 * size * self.channels * len(self.held):
            # A plane is longer than what it holds.
            pieces = np.frombuffer(raw, np.float32).reshape(len(self.held), self.channels, size)[:, :, :samples]
            self.mixer.take(self.name, pieces.transpose(1, 0, 2).reshape(self.channels, -1))
        else:  # frames of other lengths, or a codec with another sample format than AAC's
            for frame in self.held:
                self.mixer.take(self.name, _samples(frame))
        self.held = []


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

"""Decode songs: sum stems while reading, mix down to mono, resample.

The mixture stream is never read: a mix is always the sum of stems, because MUSDB18's own mixture is mastered (15 dB off).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.audio import stem_streams, wav
from p2p_dist.audio.layouts import Source, contents
from p2p_dist.settings.config import STEMS

FULL_SCALE = 32767 / 32768
"""Samples that reach it count as clipped."""

_UNTOLD = 2**63 - 1  # libsndfile's length of a flac whose header does not say; it can't read that to its end
_HELD = 16  # frames gathered before they are handed on: few calls of numpy, and all stems of them stay in the cache
_BLOCK = 1 << 14  # samples of a wav or flac read at once
_LOUDEST = 1e6  # times full scale; larger values are not audio, and their power overflows float32
_FORETOLD = 1 << 28  # values for which a header's word is taken; room for more is made when they come

UNEQUAL = 1.0
"""Maximum difference in length of the stems of a song, seconds. Shorter stems are padded with silence."""


@dataclass
class Sum:
    """The sum of several stems of a song.

    sound: float32 (samples, channels), a view of memory laid out channel by channel; (samples, 1) where only the mean of
        the channels was asked for. What follows is of all channels.
    peak: the largest absolute value. clipped: samples at full scale or over. power: mean square.
    filled: samples of silence added to its shortest stem. by_position: the file does not name its streams, so MUSDB18's
        order was assumed.
    """

    sound: np.ndarray
    peak: float
    clipped: int
    power: float
    filled: int = 0
    by_position: bool = False


def header(source: Source) -> tuple[int, int, int]:
    """Read rate, channels and samples from a song's headers; zeros if unknown: decoding reports what is wrong."""
    import soundfile

    if source.stem_file is not None:
        return _header_of_stem_mp4(source.stem_file)
    try:
        longest = max((soundfile.info(file) for file in source.sounds()), key=lambda file: file.frames)
        return longest.samplerate, longest.channels, longest.frames
    except (soundfile.LibsndfileError, ValueError):
        return 0, 0, 0


def _header_of_stem_mp4(path: Path) -> tuple[int, int, int]:
    import av
    from av.error import FFmpegError

    try:
        with _open(path) as container:
            stream = next(stream for stream in container.streams.audio if stream.codec_context is not None)
            rate = stream.rate or 0
            return rate, stream.codec_context.channels, (container.duration or 0) * rate // av.time_base
    except (FFmpegError, StopIteration, ValueError):
        return 0, 0, 0


def load_sums(
    source: Source, sums: Sequence[Sequence[str]], *, downmix: bool = False, part: tuple[int, int] | None = None
) -> tuple[int, list[Sum]]:
    """Decode every stem once and add it to the sums that include it. Only the sums are kept in memory.

    Args:
        downmix: keep the mean of the channels only, the same bits as `mono` gives of the whole.
        part: keep only the audio between these times, in seconds. The other fields describe the whole song.

    Returns:
        sample rate, and the sums in the order asked for.

    Raises:
        ValueError: a stem is missing, cut short, or differs from the others in rate, channels, where it begins, or by more
            than `UNEQUAL` in length;
            a file is not what its name says, or can't be read; the song has no samples, or NaN samples.
            The message names file and stem.
    """
    _check_readable(source)
    mixer = _Mixer(sums, downmix, part)
    if source.stem_file is not None:
        rate, by_position = _decode_stem_mp4(source.stem_file, mixer)
    else:
        rate, by_position = _read_files(source, mixer), False
    filled = mixer.fill(round(UNEQUAL * rate))
    if len(set(mixer.lengths.values())) > 1:
        listed = ", ".join(f"{name} {length / rate:.3f} s, {length} samples" for name, length in mixer.lengths.items())
        raise ValueError(f"{source.path}: the stems differ in length ({listed}), by more than {UNEQUAL:g} s")
    if not mixer.mixed:
        raise ValueError(f"{source.path}: no samples")
    for names, total in zip(mixer.sums, mixer.totals, strict=True):
        if not np.isfinite(total.power):
            raise ValueError(f"{source.path}: stem {' + '.join(names)} contains NaN or infinite samples")
    begin, end = mixer.kept
    found = [total.finish(mixer.mixed, max(min(mixer.mixed, end) - begin, 0)) for total in mixer.totals]
    for names, each in zip(mixer.sums, found, strict=True):
        each.filled, each.by_position = max(filled[name] for name in names), by_position
    return rate, found


def _check_readable(source: Source) -> None:
    """Turn a file that cannot be read into a reason to leave the song out."""
    path = source.path
    if source.wrong is not None:
        raise ValueError(source.wrong)
    if path.is_symlink() and not path.exists():
        raise ValueError(f"{path}: broken link (target {path.readlink()})")
    try:
        beside = [] if path.is_file() else [p for p in path.iterdir() if p.stem.lower() in STEMS and not p.is_dir()]
        for file in dict.fromkeys([*beside, *source.sounds()]):
            file.open("rb").close()
    except OSError as error:
        raise ValueError(f"{error.filename}: can't be read ({error.strerror})") from error
    if nothing := [file for file in source.files() if not file.stat().st_size]:
        raise ValueError(f"{nothing[0]}: it is empty: copy it again")


class _Total:
    """A sum that is filled block by block. Each block is measured and stored while it is in the cache."""

    def __init__(self, downmix: bool) -> None:
        self.downmix = downmix
        self.memory = np.empty((0, 0), np.float32)
        self.channels, self.peak, self.clipped, self.power = 0, 0.0, 0, 0.0

    def reserve(self, channels: int, samples: int) -> None:
        """Allocate memory, planar: each channel is contiguous. Pages are used only when they are written."""
        old, self.channels = self.memory, channels
        self.memory = np.empty((1 if self.downmix else channels, samples), np.float32)
        if old.size:
            self.memory[:, : old.shape[1]] = old

    def add(self, sound: np.ndarray) -> None:
        """Measure the next samples, (channels, samples)."""
        for channel in sound:
            self.power += float(np.dot(channel, channel))
        peak = max(float(sound.max()), -float(sound.min()))
        if peak >= FULL_SCALE:
            self.clipped += int((np.abs(sound) >= FULL_SCALE).sum())
        self.peak = max(self.peak, peak)

    def keep(self, sound: np.ndarray, begin: int) -> None:
        """Store the block."""
        self.memory[:, begin : begin + sound.shape[1]] = mean_of(sound) if self.downmix else sound

    def finish(self, samples: int, kept: int) -> Sum:
        return Sum(self.memory[:, :kept].T, self.peak, self.clipped, self.power / (samples * self.channels))


class _Mixer:
    """Sums of stems that are read in pieces of different lengths; stems are added in the order of `STEMS`."""

    def __init__(self, sums: Sequence[Sequence[str]], downmix: bool, part: tuple[int, int] | None) -> None:
        self.sums = [[stem for stem in STEMS if stem in set(part)] for part in sums]
        self.totals = [_Total(downmix) for _ in sums]
        self.names = [stem for stem in STEMS if any(stem in part for part in self.sums)]
        self.pending: dict[str, list[np.ndarray]] = {name: [] for name in self.names}
        self.lengths = dict.fromkeys(self.names, 0)
        self.channels = self.room = self.mixed = 0
        self.part, self.kept = part, (0, sys.maxsize)

    def expect(self, rate: int, channels: int, samples: int) -> None:
        """Allocate memory for the length in the headers, which may be wrong."""
        if self.part is not None:
            self.kept = (self.part[0] * rate, self.part[1] * rate)
        self._reserve(channels, min(samples, _FORETOLD // channels, self.kept[1] - self.kept[0]))

    def _reserve(self, channels: int, samples: int) -> None:
        self.channels, self.room = channels, samples
        for total in self.totals:
            total.reserve(channels, samples)

    def take(self, name: str, piece: np.ndarray) -> None:
        """Add the next block of a stem, (channels, samples), to the sums as far as all stems have been read."""
        self.pending[name].append(piece)
        self.lengths[name] += piece.shape[1]
        while all(self.pending.values()):
            samples = min(pieces[0].shape[1] for pieces in self.pending.values())
            parts = {}
            for stem, pieces in self.pending.items():
                first = pieces.pop(0)
                parts[stem] = first[:, :samples]
                if first.shape[1] > samples:
                    pieces.insert(0, first[:, samples:])
            self._mix(parts, samples)

    def fill(self, most: int) -> dict[str, int]:
        """Pad stems that are at most so many samples too short with silence; return the added samples by stem."""
        longest = max(self.lengths.values())
        missing = {name: longest - length for name, length in self.lengths.items()}
        if max(missing.values()) > most:
            return dict.fromkeys(self.names, 0)
        for name, samples in missing.items():
            if samples:
                self.take(name, np.zeros((self.channels, samples), np.float32))
        return missing

    def _mix(self, parts: dict[str, np.ndarray], samples: int) -> None:
        begin, end = (min(max(place, self.kept[0]), self.kept[1]) for place in (self.mixed, self.mixed + samples))
        if end - self.kept[0] > self.room:
            self._reserve(self.channels, (end - self.kept[0]) * 9 // 8)
        for total, (first, *others) in zip(self.totals, self.sums, strict=True):
            sound = parts[first]
            for number, name in enumerate(others):
                sound = np.add(sound, parts[name], out=sound if number else None)
            total.add(sound)
            if begin < end:
                total.keep(sound[:, begin - self.mixed : end - self.mixed], begin - self.kept[0])
        self.mixed += samples


class _Stem:
    """The files of a stem, read side by side and added up. Behind the end of a file is silence.

    file: of the last error or the first file, for messages.
    """

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name, self.paths, self.file = name, paths, paths[0] if paths else None
        self.files: list[Any] = []
        self.read = 0

    def open(self, stack: contextlib.ExitStack) -> None:
        """Open the files."""
        import soundfile

        for path in self.paths:
            self.file = path
            opened = stack.enter_context(soundfile.SoundFile(wav.whole(self.file)))
            self.files.append(opened)
            if opened.frames == _UNTOLD:
                cure = "write it again, for example with ffmpeg -i FILE NEW.flac"
                raise ValueError(f"{self.file}: a streamed flac without a length in its header: {cure}")

    def block(self, channels: int, frames: int) -> np.ndarray | None:
        """Return the next block, (samples, channels); None after so many frames."""
        wanted = min(_BLOCK, frames - self.read)
        if wanted <= 0:
            return None
        total: np.ndarray | None = None
        for path, opened in zip(self.paths, self.files, strict=True):
            self.file = path
            block = opened.read(wanted, dtype="float32", always_2d=True)
            if len(block) < min(wanted, opened.frames - self.read):
                raise ValueError(f"{self.file}: cut short, {self.read + len(block)} of {opened.frames} samples")
            peak = float(np.abs(block).max(initial=0))
            if not np.isfinite(peak):
                raise ValueError(f"{self.file}: stem {self.name} contains NaN or infinite samples")
            if peak > _LOUDEST:
                raise ValueError(f"{self.file}: stem {self.name} contains samples of {peak:.3g}, full scale is 1")
            if total is None and len(block) == wanted:
                total = block
            else:
                total = np.zeros((wanted, channels), np.float32) if total is None else total
                total[: len(block)] += block
        self.read += wanted
        return np.zeros((wanted, channels), np.float32) if total is None else total


def _read_files(source: Source, mixer: _Mixer) -> int:
    """Read the wav or flac files of all stems side by side; all must have one rate and channel count, the rate is returned."""
    import soundfile

    folder = source.path
    if missing := [name for name in mixer.names if name not in source.stems]:
        raise ValueError(
            f"{folder}: no {', '.join(f'{name}.wav or .flac' for name in missing)} "
            f"(where the song has none, a silent file); {contents(folder)}"
        )
    with contextlib.ExitStack() as stack:
        stems = [_Stem(name, [one] if isinstance(one := source.stems[name], Path) else one) for name in mixer.names]
        stem = stems[0]
        try:
            for stem in stems:
                stem.open(stack)
            if len({(file.samplerate, file.channels) for stem in stems for file in stem.files}) > 1:
                told = [f"{stem.name} {file.samplerate} Hz x {file.channels}" for stem in stems for file in stem.files]
                raise ValueError(f"{folder}: the stems differ in rate or channels ({', '.join(dict.fromkeys(told))})")
            opened = [file for stem in stems for file in stem.files]
            alone = {stem.name for stem in stems if isinstance(source.stems[stem.name], Path)}
            rate, channels, longest = (0, 0, 0) if len(alone) == len(stems) else header(source)
            if opened:
                rate, channels = opened[0].samplerate, opened[0].channels
            if not channels:
                raise ValueError(f"{folder}: none of its files can be read as audio; {contents(folder)}")
            longest = max([longest, *(file.frames for file in opened)])
            frames = {stem.name: stem.files[0].frames if stem.name in alone else longest for stem in stems}
            mixer.expect(rate, channels, longest)
            while stems:
                for stem in list(stems):
                    if (block := stem.block(channels, frames[stem.name])) is None:
                        stems.remove(stem)
                    else:
                        mixer.take(stem.name, np.ascontiguousarray(block.T))
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{stem.file}: can't be read as audio ({error.error_string})") from error
        return int(rate)


def _open(path: Path) -> Any:
    """Open a stem file with PyAV, whatever the encoding of its tags."""
    import av

    try:
        return av.open(str(path), metadata_errors="replace")
    except TypeError:  # from 19 on it is not asked, and decodes them so by itself
        return av.open(str(path))


def _decode_stem_mp4(path: Path, mixer: _Mixer) -> tuple[int, bool]:
    """Decode the audio streams that are needed of a stem file in one pass, with PyAV (no ffmpeg binary is needed).

    The library removes the encoder's delay and applies edit lists, as ffmpeg does. A stream is truncated if it ends more
    than one AAC frame before the length in its header.

    Returns:
        the rate; and whether stems were taken by their position, because the file does not name them.
    """
    from av.error import FFmpegError

    try:
        with _open(path) as container:
            streams = container.streams.audio
            places, by_position = stem_streams.find(path, [stream.metadata for stream in streams])
            wanted = {name: streams[places[name]] for name in mixer.names}
            if unknown := [name for name, stream in wanted.items() if stream.codec_context is None]:
                raise ValueError(
                    f"{path}: no decoder for {', '.join(unknown)}: the header is damaged or the codec is not supported"
                )
            kinds = {(stream.rate, stream.codec_context.channels) for stream in wanted.values()}
            if len(kinds) > 1:
                raise ValueError(f"{path}: the stems differ in rate or channels ({sorted(kinds)})")
            ((rate, channels),) = kinds
            expected = {name: int((s.duration or 0) * (s.time_base or 0) * rate) for name, s in wanted.items()}
            # Headers are not exact, and room that is not used costs nothing.
            mixer.expect(rate, channels, max(expected.values()) * 51 // 50 + rate)
            held: dict[int, tuple[str, list[Any]]] = {stream.index: (name, []) for name, stream in wanted.items()}
            begins: dict[str, int] = {}
            for packet in container.demux(*wanted.values()):
                name, frames = held[packet.stream.index]
                frames += packet.decode()
                if frames and (len(frames) >= _HELD or not packet.size):  # the last packet of each stream is an empty one
                    begins.setdefault(name, round((frames[0].pts or 0) * (frames[0].time_base or 0) * rate))
                    mixer.take(name, _samples(path, frames, channels))
                    frames.clear()
    except FFmpegError as error:
        raise ValueError(f"{path}: not decodable as a stem file, or cut short ({error.strerror})") from error
    if len(set(begins.values())) > 1:
        listed = ", ".join(f"{name} {begin / rate:.3f} s" for name, begin in begins.items())
        raise ValueError(f"{path}: the stems start at different times ({listed}): write the file again so that all start at 0")
    for name, length in mixer.lengths.items():
        if length < expected[name] - 2048:
            raise ValueError(f"{path}: cut short, stem {name} ends at {length / rate:.1f} of {expected[name] / rate:.1f} s")
    return int(rate), by_position


def _samples(path: Path, frames: list[Any], channels: int) -> np.ndarray:
    """Convert decoded frames to float32 (channels, samples) from any sample format."""
    planar = frames[0].format.is_planar
    planes = [(frame.planes, 4 * frame.samples) for frame in frames]
    if any(len(plane) != (channels if planar else 1) for plane, _ in planes):
        raise ValueError(f"{path}: the number of channels changes within a stem: the file is damaged")
    if frames[0].format.name == "fltp":  # AAC's; a plane is longer than the samples that it holds
        raw = b"".join([memoryview(plane[channel])[:size] for channel in range(channels) for plane, size in planes])
        return np.frombuffer(raw, np.float32).reshape(channels, -1)
    parts = [frame.to_ndarray() if planar else frame.to_ndarray().reshape(-1, channels).T for frame in frames]
    whole = np.concatenate(parts, axis=1)
    scale = -float(np.iinfo(whole.dtype).min) if np.issubdtype(whole.dtype, np.integer) else 1.0
    return whole.astype(np.float32) / np.float32(scale)


def mean_of(sound: np.ndarray) -> np.ndarray:
    """The mean of channels, (channels, samples) to float32 (samples,): the same bits however the memory is laid out."""
    if len(sound) == 1:
        return sound[0]
    total = sound[0] + sound[1]
    for channel in sound[2:]:
        total += channel
    total /= np.float32(len(sound))
    return total


def side_of(sound: np.ndarray) -> np.ndarray:
    """Half the difference of two channels, (2, samples) to float32 (samples,)."""
    half = np.subtract(sound[0], sound[1])
    half *= np.float32(0.5)
    return half


def mono(samples: np.ndarray, rate: int, target_rate: int) -> np.ndarray:
    """(samples, channels) at `rate` to float32 (samples,) at `target_rate`: mean of the channels, then soxr HQ.

    Equal to `librosa.load(..., mono=True)`, the order that the thesis used.
    """
    return resample(mean_of(samples.T.astype(np.float32, copy=False)), rate, target_rate)


def resample(samples: np.ndarray, rate: int, target_rate: int) -> np.ndarray:
    """Resample (samples,) or (samples, channels) with soxr HQ."""
    if rate == target_rate:
        return samples
    import soxr

    return np.asarray(soxr.resample(samples, rate, target_rate, quality="HQ"), dtype=np.float32)


def resample_blocks(blocks: Iterable[np.ndarray], rate: int, target_rate: int) -> Iterator[np.ndarray]:
    """Like `resample`, of a signal that comes in blocks (samples, channels), all of one channel count."""
    import soxr

    stream = None
    for block in blocks:
        if rate == target_rate:
            yield block
            continue
        if stream is None:
            stream = soxr.ResampleStream(rate, target_rate, block.shape[1], dtype="float32", quality="HQ")
        made = stream.resample_chunk(np.ascontiguousarray(block, np.float32))
        if len(made):
            yield made
    if stream is not None:
        rest = stream.resample_chunk(np.empty((0, block.shape[1]), np.float32), last=True)
        if len(rest):
            yield rest

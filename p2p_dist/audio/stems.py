"""Decode songs: sum stems while reading, mix down to mono, resample.

The mixture stream is never read: a mix is always the sum of stems, because MUSDB18's own mixture is mastered (15 dB off).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.audio import stem_mp4, wav
from p2p_dist.audio.layouts import Source, contents
from p2p_dist.audio.mixer import Mixer, Sum, mean_of
from p2p_dist.settings.config import STEMS

_UNTOLD = 2**63 - 1  # libsndfile's length of a flac whose header does not say; it can't read that to its end
_BLOCK = 1 << 14  # samples of a wav or flac read at once

LOUDEST = 1e6
"""Times full scale: larger samples are not audio, and their power overflows float32."""

UNEQUAL = 1.0
"""Maximum difference in length of the stems of a song, seconds. Shorter stems are padded with silence."""


def header(source: Source) -> tuple[int, int, int]:
    """Read rate, channels and samples from a song's headers; zeros if unknown: decoding reports what is wrong.

    They are also unknown where only a stem that is not needed is damaged, which decoding does not read.
    """
    import soundfile

    if source.stem_file is not None:
        return stem_mp4.header(source.stem_file)
    try:
        longest = max((soundfile.info(file) for file in source.sounds()), key=lambda file: file.frames)
        return longest.samplerate, longest.channels, longest.frames
    except (soundfile.LibsndfileError, ValueError):
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
    mixer = Mixer(sums, downmix, part)
    if source.stem_file is not None:
        rate, by_position = stem_mp4.decode(source.stem_file, mixer)
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
        beside = [p for p in path.iterdir() if p.stem.lower() in STEMS and not p.is_dir()] if path.is_dir() else []
        for file in dict.fromkeys([*beside, *source.sounds()]):
            if file.exists() and not file.is_file():  # opening a pipe would wait for ever
                raise ValueError(f"{file}: not a file that can be read as audio: remove it, or copy the song again")
            file.open("rb").close()
    except OSError as error:
        raise ValueError(f"{error.filename}: can't be read ({error.strerror})") from error
    if nothing := [file for file in source.files() if not file.stat().st_size]:
        raise ValueError(f"{nothing[0]}: it is empty: copy it again")


def check_length(path: Path, opened: Any) -> None:
    """Check that the header of a file, opened with soundfile, says how long it is.

    Raises:
        ValueError: it does not.
    """
    if opened.frames == _UNTOLD:
        cure = "write it again, for example with ffmpeg -i FILE NEW.flac"
        raise ValueError(f"{path}: a streamed flac without a length in its header: {cure}")


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
            check_length(self.file, opened)

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
            if peak > LOUDEST:
                raise ValueError(f"{self.file}: stem {self.name} contains samples of {peak:.3g}, full scale is 1")
            if total is None and len(block) == wanted:
                total = block
            else:
                total = np.zeros((wanted, channels), np.float32) if total is None else total
                total[: len(block)] += block
        self.read += wanted
        return np.zeros((wanted, channels), np.float32) if total is None else total


def _read_files(source: Source, mixer: Mixer) -> int:
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

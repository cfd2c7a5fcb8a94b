"""Decode any sound file that PyAV opens, block by block, in constant memory. A file can be decoded several times."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from p2p_dist.audio import wav
from p2p_dist.audio.media import check_samples, open_media, samples_of
from p2p_dist.audio.stems import LOUDEST, resample_blocks

_BLOCK = 1 << 16
"""Approximate number of samples in a block."""

_EXACT = ("wav", "w64", "aiff", "flac", "mov", "mp4", "m4a")
"""Formats whose header states the length of the audio; for others it may be estimated."""

_LARGEST_PAGE = 27 + 255 + 255 * 255  # bytes of one of an Ogg file

_LOWEST_RATE = 4000  # Hz: half of the rate of a telephone


@dataclass
class Decoded:
    """A sound file, opened once to look at its header.

    path: as the user gave it. rate: Hz. channels: names of its channels in order, such as FL and FR, or numbers if they have no
        names. told: seconds according to the header, 0 if unknown. is_exact: whether this format states an exact length. cut:
        how the file is truncated, if it is. begin, end: first sample and end of the part that is decoded.
    samples, peak, powers, notes: results of the last complete decoding: number of samples, largest absolute value, sums of
        squares of the left channel and of the mean of left and right, notes for the user.
    """

    path: Path
    rate: int
    channels: tuple[str, ...]
    told: float
    is_exact: bool
    cut: str | None = None
    begin: int = 0
    end: int | None = None
    samples: int = 0
    peak: float = 0.0
    powers: tuple[float, float] = (0.0, 0.0)
    notes: list[str] = field(default_factory=list)

    @property
    def front(self) -> tuple[int, ...]:
        """The places of front left and front right; of one channel, its own."""
        if len(self.channels) == 1:
            return (0,)
        named = tuple(self.channels.index(name) for name in ("FL", "FR") if name in self.channels)
        return named if len(named) == 2 else (0, 1)

    def blocks(self) -> Iterator[np.ndarray]:
        """Decode the file in blocks float32 (samples, channels); full scale is 1.

        It stops at data that can't be decoded, and adds a note with the position.

        Raises:
            ValueError: nothing can be decoded, or there are NaN samples; names the file.
        """
        self.notes.clear()
        self.samples, self.peak, at = 0, 0.0, 0
        self.powers = (0.0, 0.0)
        for block in _gathered(self._frames()):
            if not (peak := float(np.abs(block).max())) < LOUDEST:
                what = "NaN samples" if math.isnan(peak) else f"samples of {peak:.3g}, where full scale is 1,"
                first = at + int((~(np.abs(block) < LOUDEST)).any(axis=1).argmax())
                raise ValueError(f"{self.path} contains {what} from {first / self.rate:.1f} s on: repair the file")
            part = block[max(self.begin - at, 0) : None if self.end is None else max(self.end - at, 0)]
            at += len(block)
            if len(part):
                self.samples += len(part)
                self.peak = max(self.peak, float(np.abs(part).max()))
                left, mean = part[:, self.front[0]], part[:, self.front].mean(axis=1)
                self.powers = (self.powers[0] + float(left @ left), self.powers[1] + float(mean @ mean))
                yield part
            if self.end is not None and at >= self.end:
                return
        if not at:
            raise ValueError(f"{self.path} has no audio that can be decoded{self._why()}")
        if self.cut is not None:
            self.notes.append(self.cut)
        elif not self.notes and self.is_exact and at / self.rate < self.told - 0.1:
            self.notes.append(f"the file is cut short: it ends at {at / self.rate:.1f} s, its header says {self.told:.1f} s")
        if at <= self.begin:
            raise ValueError(f"{self.path} ends at {at / self.rate:.1f} s, before the requested start")

    def heard(self, rate: int, channels: int) -> Iterator[np.ndarray]:
        """Downmix for a model: see `downmix`, and for 2 channels half the difference of front left and right.

        Args:
            rate: Hz. channels: 1, or 2 for the difference, too.

        Returns:
            blocks float32 (samples, channels) at `rate`.
        """

        def mixed() -> Iterator[np.ndarray]:
            for block in self.blocks():
                parts = [downmix(block)]
                if channels == 2:
                    front = block[:, self.front]
                    parts.append((front[:, 0] - front[:, -1]) / 2)
                yield np.stack(parts, axis=1)

        return resample_blocks(mixed(), self.rate, rate)

    def _why(self) -> str:
        return f" ({'; '.join(self.notes)})" if self.notes else ""

    def _frames(self) -> Iterator[np.ndarray]:
        """Decoded frames (samples, channels), until the end or what can't be decoded."""
        import av.error

        at = 0
        with open_media(self.path) as container:
            stream = container.streams.audio[0]
            try:
                for frame in container.decode(stream):
                    if (frame.sample_rate, len(frame.layout.channels)) != (self.rate, len(self.channels)):
                        self.notes.append(
                            f"everything after {at / self.rate:.1f} s is skipped: it has {len(frame.layout.channels)} "
                            f"channels at {frame.sample_rate} Hz"
                        )
                        return
                    sound = samples_of(frame, len(self.channels))
                    at += len(sound)
                    yield sound
            except av.error.FFmpegError as error:
                # Some formats have other data after the audio.
                if not at or at / self.rate < self.told - 0.1:
                    self.notes.append(
                        f"the file is damaged after {at / self.rate:.1f} s ({error.strerror}): only the part before is used"
                    )


def downmix(block: np.ndarray) -> np.ndarray:
    """Return a block (samples, channels) as mono (samples,): the mean of one or two channels, or half the sum of more.

    The new stem is in two channels. So it is as loud beside a song in 5.1 as beside the same song in stereo.
    """
    mean: np.ndarray = block.mean(axis=1)
    return mean if block.shape[1] <= 2 else mean * np.float32(block.shape[1] / 2)


def look(path: Path) -> Decoded:
    """Read the header of a sound file.

    Raises:
        ValueError: it is no file with sound, or can't be read; names it.
    """
    import av
    import av.error

    if not path.is_file():
        raise ValueError(f"{path} is not a file: name a sound file or a folder of sound files")
    try:
        path.open("rb").close()
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror})") from error
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty: copy it again")
    try:
        with open_media(path) as container:
            if not container.streams.audio:
                raise ValueError(f"{path} contains no audio")
            stream = container.streams.audio[0]
            context = stream.codec_context
            if context is None or not stream.rate or not context.channels:
                raise ValueError(f"{path}: no decoder for its audio, or the header is damaged")
            check_samples(path, context)
            if stream.rate < _LOWEST_RATE:
                low = f"the sample rate, {stream.rate} Hz, is below the minimum of {_LOWEST_RATE} Hz"
                raise ValueError(f"{path}: {low}; the header of the file may be damaged")
            told = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            told = told or (container.duration or 0) / av.time_base
            cut = _cut_wav(path) or _cut_ogg(path, told)
            formats = container.format.name.split(",")
            exact = any(name in _EXACT for name in formats) or _is_counted_mp3(path)
            if "matroska" in formats:  # its length is that of the longest stream, such as a picture
                exact = len(container.streams) == 1
            names = tuple(one.name for one in context.layout.channels)
            if len(set(names)) < len(names):
                names = tuple(str(number) for number in range(1, len(names) + 1))
            return Decoded(path, int(stream.rate), names, told, exact, cut)
    except av.error.FFmpegError as error:
        raise ValueError(f"{path} is not a sound file that can be decoded ({error.strerror})") from error


def _cut_wav(path: Path) -> str | None:
    """Describe how a WAV file is truncated; None for a whole one. FFmpeg reads a truncated WAV file without an error."""
    try:
        wav.whole(path, read=False)
    except ValueError as error:
        return f"the file is {str(error).removeprefix(f'{path}: ').removesuffix(': copy it again')}"
    return None


def _cut_ogg(path: Path, told: float) -> str | None:
    """Describe how an Ogg file is truncated: its last page is not marked as the last one (RFC 3533, 6)."""
    with path.open("rb") as file:
        if file.read(4) != b"OggS":
            return None
        file.seek(max(path.stat().st_size - _LARGEST_PAGE, 0))
        page = file.read()
    page = page[page.rfind(b"OggS") :]
    if len(page) > 5 and page[5] & 4:
        return None
    return f"the file is cut short: it ends at {told:.1f} s, without a last page"


def _is_counted_mp3(path: Path) -> bool:
    """Whether an MP3 file states its number of frames in its first frame, in a tag called Xing or Info."""
    with path.open("rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3":  # whose size has 7 bits in each byte
            file.seek(sum((byte & 0x7F) << 7 * place for place, byte in enumerate(reversed(head[6:]))) + len(head))
        else:
            file.seek(0)
        frame = file.read(64)
    return frame[:1] == b"\xff" and any(tag in frame for tag in (b"Xing", b"Info"))


def _gathered(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    held: list[np.ndarray] = []
    for frame in frames:
        held.append(frame)
        if sum(map(len, held)) >= _BLOCK:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)

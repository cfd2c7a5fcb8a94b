"""Write the audio of a listening page: short segments in script files, which a browser loads and decodes one by one.

A page opened from disk can load files only through its elements, and two <audio> elements are not synchronous. So each segment
is a script that passes its bytes, in base64, to the page, which decodes them and plays all tracks with one clock.

FOLDER/0.js, 1.js, ...   segments of `SEGMENT` seconds, each with `MARGIN` seconds of its neighbours at both ends
FOLDER/overview.js       the waveform and the spectrogram, see overview.py
FOLDER/track.json        identifies the source, so that an unchanged track is not written again
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import soxr

from p2p_dist.audio import sound_file
from p2p_dist.common import files, records, schemas
from p2p_dist.evaluate.report import loudness
from p2p_dist.evaluate.report.loudness import Level
from p2p_dist.evaluate.report.overview import Overview

SEGMENT = 10.0
"""Seconds of a track per file."""

MARGIN = 0.1
"""Seconds by which segments overlap on each side, because the start of an encoded or resampled segment is not exact."""

BIT_RATE = 96_000
"""Bit rate of Opus, bits per second: transparent for most listeners with stereo music."""

FLAC, OPUS = "flac", "opus"

_RATES = (8000, 48000)  # Hz that every browser's AudioContext takes; others are resampled
_BLOCK = 1 << 16
_MEASURED = 180.0  # seconds of which the loudness is measured; of a longer sound, these many in parts from all over it
_PARTS = 12


@dataclass(frozen=True)
class Sound:
    """An audio source that is read block by block when needed, so that a long one needs little memory.

    label: its name on the page. meaning: a short description. rate: Hz. samples: its length. blocks: returns an iterator over
    float32 (any number of samples, channels), from the first sample. Only the first two channels are played.
    """

    label: str
    meaning: str
    rate: int
    samples: int
    blocks: Callable[[], Iterator[np.ndarray]]

    @property
    def seconds(self) -> float:
        return self.samples / self.rate


def of_file(path: Path, label: str, meaning: str, factor: float = 1.0, seconds: float | None = None) -> Sound:
    """Return the audio of a FLAC or WAV file, multiplied by a factor, and cut to a number of seconds."""
    info = soundfile.info(path)
    samples = info.frames if seconds is None else min(info.frames, round(seconds * info.samplerate))

    def blocks() -> Iterator[np.ndarray]:
        with soundfile.SoundFile(path) as file:
            for start in range(0, samples, _BLOCK):
                yield file.read(min(_BLOCK, samples - start), dtype="float32", always_2d=True) * np.float32(factor)

    return Sound(label, meaning, info.samplerate, samples, blocks)


@dataclass(frozen=True)
class Track:
    """A written track. alone: its level. mixed: the level of its mix with the input; None for the input."""

    rate: int
    samples: int
    segments: int
    format: str
    alone: Level
    mixed: Level | None

    @property
    def seconds(self) -> float:
        return self.samples / self.rate


def write(folder: Path, sound: Sound, format: str, stamp: str | None = None, beside: Sound | None = None) -> Track:
    """Write a track, replacing an earlier one. A complete track with the same stamp is kept.

    Args:
        format: FLAC (16 bits) or OPUS. stamp: identifies the source; None: always write.
        beside: the input, with which it is mixed.
    """
    if stamp is not None and (known := _read(folder, stamp, format)) is not None:
        return known
    files.remove_tree(folder)
    rate, samples = _played(sound)
    address = f"{folder.parent.name}/{folder.name}"
    with files.new_folder(folder) as temporary:
        overview, segments = Overview(rate, samples), 0
        for segment in _segments(_overviewed(_fitted(sound), overview), rate, samples):
            data = (sound_file.flac if format == FLAC else _opus)(segment, rate)
            _write_script(temporary / f"{segments}.js", f"{address}/{segments}", base64.b64encode(data).decode())
            segments += 1
        _write_script(temporary / "overview.js", f"{address}/overview", overview.finish())
        alone, mixed = level(sound), None if beside is None else level(sound, beside)
        content = {
            "schema": schemas.TRACK.schema,
            "stamp": stamp or "",
            "format": format,
            "rate": rate,
            "samples": samples,
            "bytes": {path.name: path.stat().st_size for path in sorted(temporary.glob("*.js"))},
            "alone": [alone.lufs, alone.peak],
            "mixed": None if mixed is None else [mixed.lufs, mixed.peak],
        }
        files.write_json(temporary / "track.json", content)
    return Track(rate, samples, segments, format, alone, mixed)


def level(*sounds: Sound) -> Level:
    """Measure the level of sounds of equal length that are played together: the loudness of parts, the peak of the whole."""
    rate, samples = _played(sounds[0])
    peak = 0.0

    def mixed() -> Iterator[np.ndarray]:
        nonlocal peak
        for first, *others in zip(*(_equal(_fitted(sound)) for sound in sounds), strict=True):
            block: np.ndarray = sum(others, first)
            peak = max(peak, float(np.abs(block).max()))
            yield block

    measured = loudness.measure(measured_part(mixed(), rate, samples), rate)
    return Level(measured.lufs, peak)


def measured_part(blocks: Iterator[np.ndarray], rate: int, samples: int) -> Iterator[np.ndarray]:
    """Yield the parts of a sound that its loudness is measured on, float32 (samples, channels). blocks: the whole sound."""
    most = round(_MEASURED * rate)
    size = most // _PARTS if samples > most else samples
    begins, at = np.linspace(0, samples - size, _PARTS).astype(int) if samples > most else np.zeros(1, int), 0
    for block in blocks:
        for begin in begins[(begins < at + len(block)) & (begins + size > at)]:
            yield block[max(0, begin - at) : begin + size - at]
        at += len(block)


def _equal(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the samples in blocks of equal length; the last one may be shorter."""
    held = None
    for block in blocks:
        held = block if held is None else np.concatenate([held, block])
        for start in range(0, len(held) - _BLOCK + 1, _BLOCK):
            yield held[start : start + _BLOCK]
        held = held[len(held) // _BLOCK * _BLOCK :].copy()
    if held is not None and len(held):
        yield held


def _read(folder: Path, stamp: str, format: str) -> Track | None:
    """Return the track that an earlier page wrote, if it is complete and has the same stamp."""
    try:
        content = records.read(folder / "track.json", schemas.TRACK)
        whole = all((folder / name).stat().st_size == size for name, size in content["bytes"].items())
    except (OSError, ValueError):
        return None
    if not whole or (content["stamp"], content["format"]) != (stamp, format):
        return None
    alone, mixed = (None if level is None else Level(*level) for level in (content["alone"], content["mixed"]))
    assert alone is not None
    return Track(content["rate"], content["samples"], len(content["bytes"]) - 1, format, alone, mixed)


def _played(sound: Sound) -> tuple[int, int]:
    """Return rate and length for playing."""
    if _RATES[0] <= sound.rate <= _RATES[1]:
        return sound.rate, sound.samples
    return _RATES[1], round(sound.samples * _RATES[1] / sound.rate)


def _fitted(sound: Sound) -> Iterator[np.ndarray]:
    """Yield blocks with one or two channels at a rate that browsers support, with the total length of `_played`."""
    rate, left = _played(sound)
    resampler, channels = None, 1
    for block in sound.blocks():
        block = np.ascontiguousarray(block[:, :2])
        channels = block.shape[1]
        if rate != sound.rate:
            resampler = resampler or soxr.ResampleStream(sound.rate, rate, channels, dtype="float32")
            block = resampler.resample_chunk(block).reshape(-1, channels)
        yield block[:left]
        left -= min(left, len(block))
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros((0, channels), np.float32), last=True).reshape(-1, channels)[:left]


def _overviewed(blocks: Iterator[np.ndarray], overview: Overview) -> Iterator[np.ndarray]:
    for block in blocks:
        overview.add(block)
        yield block


def _segments(blocks: Iterator[np.ndarray], rate: int, samples: int) -> Iterator[np.ndarray]:
    """Yield segments with margins: segment n has the samples from n * SEGMENT - MARGIN to (n + 1) * SEGMENT + MARGIN."""
    size, margin = round(SEGMENT * rate), round(MARGIN * rate)
    held, begin, number = None, 0, 0  # `held` starts at sample `begin`
    for block in blocks:
        held = block if held is None else np.concatenate([held, block])
        while begin + len(held) >= min((number + 1) * size + margin, samples) and number * size < samples:
            end = min((number + 1) * size + margin, samples)
            yield held[: end - begin]
            number += 1
            if number * size >= samples:
                return
            drop = number * size - margin - begin
            held, begin = held[drop:], begin + drop


def _opus(sound: np.ndarray, rate: int) -> bytes:
    layout = "mono" if sound.shape[1] == 1 else "stereo"
    written = io.BytesIO()
    with av.open(written, "w", format="ogg") as container:
        stream: Any = container.add_stream("libopus", rate=48000)
        stream.layout, stream.bit_rate = layout, BIT_RATE if layout == "stereo" else BIT_RATE // 2
        resampler = av.AudioResampler(format="flt", layout=layout, rate=48000, frame_size=960)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound).reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = rate
        for resampled in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(resampled))
        container.mux(stream.encode(None))
    return written.getvalue()


def _write_script(path: Path, address: str, content: Any) -> None:
    path.write_text(f"mediaLoaded({json.dumps(address)}, {json.dumps(content)});\n", encoding="ascii")

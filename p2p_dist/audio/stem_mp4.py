"""Decode the files of MUSDB18 that hold all stems of a song (`.stem.mp4`), with PyAV: no ffmpeg binary is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.audio import stem_streams
from p2p_dist.audio.media import check_samples, open_media, samples_of
from p2p_dist.audio.mixer import Mixer

_HELD = 16  # frames gathered before they are handed on: few calls of numpy, and all stems of them stay in the cache


def header(path: Path) -> tuple[int, int, int]:
    """Read rate, channels and samples from the header of a file; zeros if it can't be read."""
    import av
    from av.error import FFmpegError

    try:
        with open_media(path) as container:
            stream = next(stream for stream in container.streams.audio if stream.codec_context is not None)
            rate = stream.rate or 0
            return rate, stream.codec_context.channels, (container.duration or 0) * rate // av.time_base
    except (FFmpegError, StopIteration, ValueError):
        return 0, 0, 0


def decode(path: Path, mixer: Mixer) -> tuple[int, bool]:
    """Decode the audio streams that are needed of a stem file in one pass, into the mixer.

    The library removes the encoder's delay and applies edit lists, as ffmpeg does. A stream is truncated if it ends more
    than one AAC frame before the length in its header.

    Returns:
        the rate; and whether stems were taken by their position, because the file does not name them.

    Raises:
        ValueError: it is no stem file, damaged or cut short, or its stems differ. The message names file and stem.
    """
    from av.error import FFmpegError

    try:
        with open_media(path) as container:
            streams = container.streams.audio
            places, by_position = stem_streams.find(path, [stream.metadata for stream in streams])
            wanted = {name: streams[places[name]] for name in mixer.names}
            if unknown := [name for name, stream in wanted.items() if stream.codec_context is None]:
                raise ValueError(
                    f"{path}: no decoder for {', '.join(unknown)}: the header is damaged or the codec is not supported"
                )
            for stream in wanted.values():
                check_samples(path, stream.codec_context)
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
    return np.concatenate([samples_of(frame, channels).T for frame in frames], axis=1)

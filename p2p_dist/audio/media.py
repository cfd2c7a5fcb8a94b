"""Open sound files with PyAV. FFmpeg detects the format from the content; a file must not make it read other files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_LISTS = frozenset(("concat", "hls", "applehttp", "dash", "imf", "sdp", "rtsp"))
"""FFmpeg's names of the formats that refer to other files or addresses."""

_SAMPLES = frozenset(("u8", "s16", "s32", "flt", "dbl"))
"""FFmpeg's names of the sample formats that PyAV converts; with a p at the end, the channels are apart."""


def open_media(path: Path) -> Any:
    """Open a file and return PyAV's container. Tags may have any encoding. The network is not used.

    Raises:
        ValueError: it names other files. The message names it.
        av.error.FFmpegError: it can't be opened.
    """
    import av

    options = {"protocol_whitelist": "file"}
    where = str(path.absolute())  # which FFmpeg can't read as an address
    try:
        container = av.open(where, metadata_errors="replace", options=options)
    except TypeError:  # from 19 on it is not asked, and decodes them so by itself
        container = av.open(where, options=options)
    if container.format.name == "wav" and _is_big_endian(path):
        container.close()
        raise ValueError(f"{path} is a big-endian wav file (RIFX), which FFmpeg reads as noise: convert it to wav or flac")
    if _LISTS.intersection(container.format.name.split(",")):
        container.close()
        raise ValueError(f"{path} is a list of other files, not a sound file")
    return container


def check_samples(path: Path, codec: Any) -> None:
    """Check the sample format of a stream, by its codec context.

    Raises:
        ValueError: `samples_of` can't convert it, as integers of 64 bits. The message names the file.
    """
    name = codec.format.name if codec.format is not None else ""
    if name and name.removesuffix("p") not in _SAMPLES:
        raise ValueError(f"{path}: samples of the format {name} are not supported: convert it to flac, or to wav of 24 bits")


def samples_of(frame: Any, channels: int) -> np.ndarray:
    """Convert a decoded frame to float32 (samples, channels); full scale is 1. Each sample is rounded once."""
    raw = frame.to_ndarray()
    sound = raw.T if frame.format.is_planar else raw.reshape(-1, channels)
    if sound.dtype == np.uint8:
        return (sound.astype(np.float32) - 128) / 128
    if np.issubdtype(sound.dtype, np.integer):
        return (sound / -float(np.iinfo(sound.dtype).min)).astype(np.float32)
    return np.asarray(sound, np.float32)


def _is_big_endian(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"RIFX"

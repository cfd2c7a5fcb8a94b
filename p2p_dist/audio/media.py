"""Open sound files with PyAV. FFmpeg detects the format from the content; a file must not make it read other files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_LISTS = frozenset(("concat", "hls", "applehttp", "dash", "imf", "sdp", "rtsp"))
"""FFmpeg's names of the formats that refer to other files or addresses."""


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


def _is_big_endian(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"RIFX"

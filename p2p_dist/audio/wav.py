"""Check the length that the header of a wav file states; libsndfile reads a truncated file without an error.

So it does with AIFF, Wave64 and AU, which may have the name of a wav file.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import IO

from p2p_dist.audio import memory

_UNTOLD = 0x7FFFF000
"""Lengths from this one on, and 0, are placeholders written to pipes: this one by sox, 2^32 - 1 by ffmpeg."""


_TAGS = (b"ID3", b"TAG", b"APETAGEX")
_WAVE64 = bytes.fromhex("726966662e91cf11a5d628db04c10000")


def whole(path: Path, *, read: bool = True) -> Path | int:
    """Return a wav file that libsndfile reads to its end: where its header has a placeholder length, a copy in memory.

    Any other file is given back as it is. Of a copy its descriptor is returned, which soundfile closes.

    Args:
        read: else nothing but the header is, and such a file is given back as it is, too.

    Raises:
        ValueError: the header states more sound than there is, or much less; libsndfile reads both without an error.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(24).ljust(24, b"\0")
        kind, form = struct.unpack("<4s4x4s", head[:12])
        if kind not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or form != b"WAVE":
            if (told := _of_other_formats(head)) > size + 1:  # a last odd chunk may lack its padding
                raise ValueError(f"{path}: cut short, its header says {told} bytes, {size} are there: copy it again")
            return path
        file.seek(12)
        order = ">" if kind == b"RIFX" else "<"
        wide, rate, block = 0, 1, 1
        while len(header := file.read(8)) == 8:
            name, length = struct.unpack(f"{order}4sI", header)
            begin = file.tell()
            if not _is_name(name):
                break  # a damaged file, which may have thousands of such chunks
            if name == b"ds64":  # lengths of 64 bits, which a file of over 4 GB needs
                (wide,) = struct.unpack("<8xQ", file.read(16).ljust(16, b"\0"))
            elif name == b"fmt ":
                rate, block = (max(value, 1) for value in struct.unpack(f"{order}4xI4xH", file.read(14).ljust(14, b"\0")))
            elif name == b"data":
                told = wide if length == 0xFFFFFFFF and kind in (b"RF64", b"BW64") else 0 if length >= _UNTOLD else length
                there = size - begin
                if told - there >= block:
                    raise ValueError(
                        f"{path}: cut short, its header says {told / rate / block:.3f} s, {there / rate / block:.3f} s are "
                        "there: copy it again"
                    )
                if (
                    told
                    and there - told >= max(rate * block // 10, 1)
                    and _is_sound(file, begin + told + told % 2, size, order)
                ):
                    raise ValueError(
                        f"{path}: damaged, its header says {told / rate / block:.3f} s, {there / rate / block:.3f} s are "
                        "there: repair its header"
                    )
                file.seek(begin)
                if length or not there or not read or _are_chunks(file, size, order):
                    return path
                file.seek(0)
                content = bytearray(file.read())
                content[begin - 4 : begin] = b"\xff" * 4
                return memory.descriptor(content)
            file.seek(begin + length + length % 2)
    return path


def _of_other_formats(head: bytes) -> int:
    """Return the size in bytes that the header of an AIFF, Wave64 or AU file states, whatever its name; 0 if unknown."""
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        length = int.from_bytes(head[4:8], "big")
        return 8 + length if length < _UNTOLD else 0
    if head[:16] == _WAVE64:
        length = int.from_bytes(head[16:24], "little")
        return length if length < 1 << 62 else 0
    if head[:4] == b".snd":
        begin, length = struct.unpack(">4xII", head[:12])
        return begin + length if length < _UNTOLD else 0
    return 0


def _is_sound(file: IO[bytes], begin: int, size: int, order: str) -> bool:
    """Whether the file contains samples from `begin` to its end, rather than chunks, tags or padding."""
    file.seek(begin)
    first = file.read(1 << 16)
    file.seek(begin)
    return not (first.startswith(_TAGS) or len(set(first)) <= 1 or _are_chunks(file, size, order))


def _are_chunks(file: IO[bytes], size: int, order: str) -> bool:
    """Whether only further chunks follow to the end of the file, so that it really has no samples."""
    while file.tell() < size:
        header = file.read(8)
        if len(header) < 8 or not _is_name(header[:4]):
            return False
        (length,) = struct.unpack(f"{order}4xI", header)
        file.seek(length + length % 2, io.SEEK_CUR)
    return size <= file.tell() <= size + 1


def _is_name(chunk: bytes) -> bool:
    return all(0x20 <= byte < 0x7F for byte in chunk)

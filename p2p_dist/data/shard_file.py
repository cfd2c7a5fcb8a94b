"""Write the samples of a song: a tar by webdataset's TarWriter, hashed and indexed while it is written.

The tar lacks the blocks of zeros that end an archive: those of several songs, one after another, are a shard (packing.py).
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import sys
import tarfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from p2p_dist.audio import memory
from p2p_dist.audio.mixer import Sum
from p2p_dist.common import files
from p2p_dist.data import index, samples


@dataclass(frozen=True)
class Sample:
    """A sample to be written: its key, the content of its files by suffix, and the numbers of its window and copy."""

    key: str
    members: dict[str, bytes | memoryview]
    window: int = 0
    copy: int = 0


ROW = ("window", "copy", "begin", "input", "target", "length", "checksum")
"""What is known of a sample with arrays: see columns.py; `begin` is that in the song's own tar."""

_BLOCK = 1 << 16


def pair(song: str, input: np.ndarray, target: np.ndarray, note: dict[str, Any]) -> Sample:
    """Return the sample of a pair of spectrograms.

    Args:
        song: its key. note: the sample's json, with `window` and `copy`.
    """
    npz = io.BytesIO()
    np.savez(npz, input=input, target=target)
    key = samples.key_of(song, note["window"], note["copy"])
    return Sample(key, {"json": _json(note), "npz": npz.getbuffer()}, note["window"], note["copy"])


def sound(key: str, rate: int, sides: Sequence[Sum], note: dict[str, Any]) -> Iterator[Sample]:
    """Encode input and target of a song as 24-bit flac, scaled below full scale; the json's `gain` reverts the scaling.

    Yields the files of one sample one after another, because the flac of a long song is large. The audio in `sides` is
    replaced by the encoded audio, so spectrograms made from it equal those made from the shard, bit for bit.

    Raises:
        ValueError: flac does not support the number of channels or the sample rate.
    """
    import soundfile

    from p2p_dist.audio.sound_file import errors_of

    gain = 2.0 ** max(0, int(np.ceil(np.log2(max(*(side.peak for side in sides), 1e-9)))))
    yield Sample(key, {"json": _json({**note, "gain": gain})})
    for name, side in zip(("input", "target"), sides, strict=True):
        whole = side.sound
        with memory.file() as flac:
            try:
                file = soundfile.SoundFile(
                    flac.fileno(), "w", rate, whole.shape[1], format="FLAC", subtype="PCM_24", closefd=False
                )
            except soundfile.LibsndfileError as error:
                kind = f"{whole.shape[1]} channels at {rate} Hz"
                raise ValueError(f"{note['song']}: held-out songs are stored as flac, which does not support {kind}") from error
            with errors_of(None), file:
                for start in range(0, len(whole), _BLOCK):
                    block = whole[start : start + _BLOCK]
                    stored = np.clip(np.rint(block * np.float32(2**23 / gain)), -(2**23), 2**23 - 1)
                    file.write(np.ascontiguousarray(stored.astype(np.int32) << 8))
                    block[...] = stored * np.float32(gain / 2**23)
            flac.seek(0)
            content = flac.read()
        yield Sample(key, {f"{name}.flac": content})
        del content


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode()


def write_pairs(path: Path, made: Iterable[Sample]) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Write a song's pairs, and return their number too; no file where the song has none. See `write`."""
    if not made:
        return None, []
    piece, rows = write(path, made)
    return {**piece, "samples": len(rows)}, rows


def write(path: Path, made: Iterable[Sample]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write samples in one atomic replacement.

    Returns:
        name, bytes and sha256 of the file; and of each sample with arrays its `ROW`, and their dtype and shape.
    """
    rows: list[dict[str, Any]] = []
    arrays: dict[int, dict[str, Any]] = {}  # by length: npz files of one song with one length are laid out alike
    numbers: list[int | None] = []  # of each sample, that of its row
    end = 0
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        stream = _Stream(file)
        writer = tar_writer()(stream, encoder=False, mtime=0)
        try:
            for sample in made:
                begin, inside = end, 0
                for suffix, content in sorted(sample.members.items()):  # the order in which TarWriter writes them
                    if suffix == "npz":
                        if len(content) not in arrays:
                            arrays[len(content)] = index.arrays_of(content)
                        inside = end + tarfile.BLOCKSIZE - begin
                    end += tarfile.BLOCKSIZE + -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                writer.write({"__key__": sample.key, **sample.members})
                stream.end_sample(end)
                if inside:
                    row = dict(arrays[len(sample.members["npz"])])
                    row |= {"input": row["input"] + inside, "target": row["target"] + inside}
                    rows.append({**row, "window": sample.window, "copy": sample.copy, "begin": begin, "length": end - begin})
                numbers.append(len(rows) - 1 if inside else None)
                del sample, content  # a long song's flac, which else would stay until the next is there
            stream.until = end
        except BaseException:
            stream.until = 0  # the disk may be full: what TarWriter holds back is not written
            raise
        finally:
            writer.close()
    for number, checksum in zip(numbers, stream.checksums, strict=True):
        if number is not None:
            rows[number]["checksum"] = checksum
    return {"name": path.name, "bytes": end, "sha256": stream.sha256.hexdigest()}, rows


class _Stream:
    """What TarWriter writes to: hashes what comes before `until`, and takes the checksum of each sample.

    TarWriter holds back up to 10 kB, so a sample may end before all of it is here.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.sha256 = hashlib.sha256()
        self.until: int | None = None
        self.checksums: list[int] = []
        self._file, self._position, self._checksum = file, 0, 0
        self._ends: deque[int] = deque()

    def write(self, block: bytes) -> int:
        """Write a block, as a file does."""
        view = memoryview(block)
        if self.until is not None:
            view = view[: max(self.until - self._position, 0)]
        if not view:
            return len(block)
        self._file.write(view)
        self.sha256.update(view)
        while view:
            size = min(self._ends[0] - self._position, len(view)) if self._ends else len(view)
            self._checksum = zlib.crc32(view[:size], self._checksum)
            self._position += size
            view = view[size:]
            self._end()
        return len(block)

    def end_sample(self, end: int) -> None:
        """Take note that a sample ends at this byte, perhaps of those that are still to come."""
        self._ends.append(end)
        self._end()

    def _end(self) -> None:
        if self._ends and self._ends[0] == self._position:
            self.checksums.append(self._checksum)
            self._checksum = 0
            self._ends.popleft()


def tar_writer() -> Any:
    """Return webdataset's TarWriter, without importing torch.

    webdataset imports torch only for classes that readers use, and works without it. The import takes 200 MB and a second in
    each worker, so it is blocked here.
    """
    if "webdataset" not in sys.modules and "torch" not in sys.modules:
        sys.modules["torch"] = None  # type: ignore[assignment]
        try:
            importlib.import_module("webdataset")
        finally:
            del sys.modules["torch"]
    from webdataset import TarWriter

    return TarWriter

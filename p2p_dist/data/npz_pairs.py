"""Read existing pairs: npz files with one array `arr_0` (2 x mels, frames) in dB, the target above the input, as in the thesis.

They are written to shards unchanged, values and dtype.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from p2p_dist.settings.config import Data

ARRAY = "arr_0"


def read(path: Path, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Read input and target of one file, each (1, mels, frames) in the file's own dtype.

    Raises:
        ValueError: the file cannot be read, is no npz or a damaged one, has no `arr_0`, contains pickled objects (they are
            never unpickled), or `arr_0` has another shape, is not floating point or not finite. The message names the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{ARRAY}.npy" not in archive.namelist():
                raise ValueError(f"no array {ARRAY!r} (it has {', '.join(archive.namelist()) or 'none'})")
            with archive.open(f"{ARRAY}.npy") as file:
                _check_header(file, data)
                file.seek(0)
                array = np.lib.format.read_array(file, allow_pickle=False)
                file.read(1)  # at the end of the file zipfile compares the checksum
    except OSError as error:
        raise ValueError(f"{path}: can't be read ({error.strerror or error})") from error
    except Exception as error:  # zipfile, zlib and numpy's header parser raise many types for damaged bytes
        raise ValueError(f"{path}: not a pair of spectrograms ({error})") from error
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: {ARRAY} contains NaN or infinite values")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)  # another machine may have written it
    target, input = np.ascontiguousarray(array[: data.mels]), np.ascontiguousarray(array[data.mels :])
    return input[None], target[None]


def _check_header(file: IO[bytes], data: Data) -> None:
    """Check the header before memory is allocated and before numpy could unpickle objects."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    wanted = (2 * data.mels, data.frames)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are refused")
    if shape != wanted:
        raise ValueError(
            f"{ARRAY} has shape {shape}, with data.mels {data.mels} and data.frames {data.frames} it must be {wanted}: "
            "the target above the input"
        )
    if not np.issubdtype(dtype, np.floating) or dtype.itemsize > 8:
        raise ValueError(f"{ARRAY} is of {dtype}, not of floating point numbers (dB) of 16, 32 or 64 bits")

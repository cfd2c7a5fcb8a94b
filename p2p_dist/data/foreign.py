"""Ready-made pairs: npz files of one array `arr_0` (2 x mels, frames) in dB, the target above the input, as the thesis had.

They are put into shards as they are: not a value and not the dtype is touched.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from p2p_dist.config import Data

ARRAY = "arr_0"


def read(path: Path, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Input and target of one file, each (1, mels, frames) in the file's own dtype.

    Raises:
        ValueError: not an npz, no `arr_0`, pickled objects (never unpickled), another shape, no real numbers, or some that
            are not finite. The message names the file.
    """
    wanted = (2 * data.mels, data.frames)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if ARRAY not in arrays:
                raise ValueError(f"no array {ARRAY!r} (it has {', '.join(arrays) or 'none'})")
            array = arrays[ARRAY]
    except (ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        reason = "it holds pickled objects, which are refused" if "allow_pickle" in str(error) else str(error)
        raise ValueError(f"{path}: not a pair of pictures ({reason})") from error
    if array.shape != wanted:
        raise ValueError(
            f"{path}: {ARRAY} has shape {array.shape}, with data.mels {data.mels} and data.frames {data.frames} "
            f"it must be {wanted}: the target above the input"
        )
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{path}: {ARRAY} is of {array.dtype}, not of floating point numbers (dB)")
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: {ARRAY} holds values that are no numbers (NaN or infinite)")
    target, input = np.ascontiguousarray(array[: data.mels]), np.ascontiguousarray(array[data.mels :])
    return input[None], target[None]

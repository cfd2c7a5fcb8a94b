"""What was made for a song."""

import json

import soundfile

from p2p_dist.common import schemas
from p2p_dist.common.records import wrong

STEP = 2**-23


def read(path):
    return soundfile.read(path, dtype="float64", always_2d=True)


def made(folder, name="song", kind="flac"):
    """Stem, mix and record of a song."""
    stem, rate = read(folder / f"{name}-drums.{kind}")
    mix, same = read(folder / f"{name}-mix.{kind}")
    assert rate == same
    record = json.loads((folder / f"{name}.json").read_text())
    assert wrong(record, schemas.GENERATED.shape) is None and record["schema"] == 1
    return stem, mix, rate, record

"""The index of a split as a file: written, read back, and refused where a bit of it changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2p_dist.common import files
from p2p_dist.data import columns

SAMPLES = 5


def some(samples: int = SAMPLES) -> dict[str, np.ndarray]:
    """Columns with every value another one, up to the largest that fit."""
    made = {name: np.arange(samples, dtype=np.uint64) + 1000 * place for place, name in enumerate(columns.COLUMNS)}
    if samples:
        for name, dtype in columns.COLUMNS.items():
            made[name][-1] = np.iinfo(dtype).max
    return made


def test_what_is_written_is_read(tmp_path: Path) -> None:
    entry = columns.write(tmp_path, "train", some())
    content = (tmp_path / entry["name"]).read_bytes()
    assert entry == {
        "name": f"index-train-{hashlib.sha256(content).hexdigest()[:16]}.bin",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "samples": SAMPLES,
    }
    found = columns.read(tmp_path, entry)
    assert list(found) == list(columns.COLUMNS)
    for name, column in some().items():
        np.testing.assert_array_equal(found[name], column)
        assert found[name].dtype == columns.COLUMNS[name] and found[name].flags.aligned and not found[name].flags.writeable
    assert not list(tmp_path.glob(files.TEMPORARY + "*"))


def test_the_file_is_as_its_table_says(tmp_path: Path) -> None:
    """Other programs may read it: 8 bytes of `begin` for every sample, then 4 bytes for every other column, little-endian."""
    entry = columns.write(tmp_path, "test", some(2))
    content = (tmp_path / entry["name"]).read_bytes()
    assert len(content) == 2 * 40
    assert content[:16] == bytes(8) + b"\xff" * 8
    assert content[16:24] == (1000).to_bytes(4, "little") + b"\xff" * 4
    assert list(columns.COLUMNS)[-1] == "checksum" and content[-8:-4] == (8000).to_bytes(4, "little")
    rows = [line.split("|")[1:3] for line in str(columns.__doc__).splitlines() if line.startswith("|")][2:]
    assert [(name.strip(), kind.strip()) for name, kind in rows] == [(n, d.str[1:]) for n, d in columns.COLUMNS.items()]


def test_an_empty_split_has_an_empty_index(tmp_path: Path) -> None:
    entry = columns.write(tmp_path, "train", some(0))
    assert entry["bytes"] == 0 and all(len(column) == 0 for column in columns.read(tmp_path, entry).values())


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, SAMPLES * columns.WIDTH * 8 - 1))
def test_a_flipped_bit_is_found(tmp_path: Path, bit: int) -> None:
    entry = columns.write(tmp_path, "train", some())
    path = tmp_path / entry["name"]
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    with pytest.raises(files.DamagedError, match=rf"{entry['name']} is damaged: its sha256 .*; remove it .* launch again"):
        columns.read(tmp_path, entry)


@pytest.mark.parametrize("size", [0, 1, SAMPLES * columns.WIDTH - 1, SAMPLES * columns.WIDTH + 1])
def test_an_index_of_another_size_is_found(tmp_path: Path, size: int) -> None:
    entry = columns.write(tmp_path, "train", some())
    path = tmp_path / entry["name"]
    with pytest.raises(files.DamagedError, match="it has 200 bytes, the manifest says 200, and 4 samples take 160"):
        columns.read(tmp_path, {**entry, "samples": 4})
    path.write_bytes((path.read_bytes() + b"\0")[:size])
    with pytest.raises(files.DamagedError, match=f"it has {size} bytes, the manifest says 200, and 5 samples take 200"):
        columns.read(tmp_path, entry)
    with pytest.raises(files.DamagedError, match=r"bytes, the manifest says 200, and 4 samples take 160"):
        columns.read(tmp_path, {**entry, "samples": 4})
    path.unlink()
    with pytest.raises(files.DamagedError, match="it is missing"):
        columns.read(tmp_path, entry)


@pytest.mark.parametrize(("name", "value"), [("length", 2**32), ("shard", -1), ("begin", -1)])
def test_a_value_that_does_not_fit_is_refused(tmp_path: Path, name: str, value: int) -> None:
    made = {key: np.zeros(2, np.int64) for key in columns.COLUMNS}
    made[name][1] = value
    with pytest.raises(ValueError, match=f"{name} {value} of a train sample does not fit"):
        columns.write(tmp_path, "train", made)
    assert not list(tmp_path.iterdir())

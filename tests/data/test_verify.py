"""Damage in a dataset is found and named."""

from __future__ import annotations

import os
import random
import shutil
import tarfile
from pathlib import Path

import pytest

from p2p_dist.data import manifest as manifests
from p2p_dist.data.verify import verify_dataset
from tests.data.preprocess_command import damaged, many, undisturbed

__all__ = ["many", "undisturbed"]


def test_any_flipped_bit_is_found_and_its_sample_named(undisturbed: Path, tmp_path: Path) -> None:
    assert verify_dataset(undisturbed) == sum(map(manifests.windows, manifests.read(undisturbed)["splits"].values()))
    shard = sorted(undisturbed.glob("train-*.tar"))[1]
    with tarfile.open(shard) as archive:
        members = archive.getmembers()
    ends = [member.offset_data + 512 * -(-member.size // 512) for member in members]
    dice = random.Random(1)
    for number in range(14):
        place = dice.choice(range(len(members))) if number else 0
        where = dice.randrange(members[place].offset, ends[place])
        out = Path(shutil.copytree(undisturbed, tmp_path / str(number)))
        damaged(out, where)
        key = members[place].name.split(".")[0]
        with pytest.raises(ValueError, match=rf"{shard.name} is damaged: .*{key}"):
            verify_dataset(out)


def test_cut_and_missing_shards_and_sounds_are_found(undisturbed: Path, tmp_path: Path) -> None:
    for number, pattern in enumerate(("train-*.tar", "audio/audio-test-*.tar")):
        out = Path(shutil.copytree(undisturbed, tmp_path / str(number)))
        shard = next(out.glob(pattern))
        os.truncate(shard, shard.stat().st_size - 12000)
        with pytest.raises(ValueError, match=f"{shard.name} is damaged"):
            verify_dataset(out)
        shard.unlink()
        with pytest.raises(ValueError, match=f"{shard.name} is damaged: it is missing"):
            verify_dataset(out)


def test_of_several_damaged_shards_the_first_is_named_with_its_sample(undisturbed: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    names = [shard["name"] for shard in manifests.read(out)["splits"]["train"]["shards"]]
    first, second = sorted((damaged(out, 5000, number) for number in (0, 1)), key=lambda path: names.index(path.name))
    with pytest.raises(
        ValueError, match=rf"{first.name} is damaged: sample song-\d-[0-9a-f]{{10}}-00000: its checksum does not match"
    ):
        verify_dataset(out)
    os.truncate(first, 10)
    with pytest.raises(ValueError, match=rf"{first.name} is damaged: sample song-\d-[0-9a-f]{{10}}-00000"):
        verify_dataset(out)
    assert second.name in names

"""The manifest of a folder of shards."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from p2p_dist.common import records
from p2p_dist.data import manifest as manifests
from p2p_dist.data.index import Index
from p2p_dist.data.verify import verify_dataset
from tests.data.preprocess_command import many, undisturbed

__all__ = ["many", "undisturbed"]


def test_the_manifest_counts_and_names_everything(dataset: Path) -> None:
    manifest = manifests.read(dataset)
    assert {split: [song["name"] for song in part["songs"]] for split, part in manifest["splits"].items()} == {
        "train": ["A", "C"],
        "valid": ["M"],
        "test": ["D"],
    }
    named = manifests.files_of(dataset, manifest)
    assert named.keys() == {*dataset.glob("*.tar"), *dataset.glob("audio/*"), *dataset.glob("index-*.bin")}
    for path, entry in named.items():
        data = path.read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    for split, part in manifest["splits"].items():
        assert sum(shard["samples"] for shard in part["shards"]) == manifests.windows(part) == len(Index(dataset, split))
    told = (dataset / "DATASET.md").read_text()
    assert "| train | 2 |" in told and "non-commercial" in told


def test_a_manifest_that_was_edited_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    content = records.read(out / manifests.NAME)
    content["splits"]["train"]["songs"][0]["seconds"] += 1
    changed = "was changed after it was written"
    for text, wrong in ((json.dumps(content), changed), ('{"schema": 3}', changed), ("[]", "is damaged: it is a list")):
        (out / manifests.NAME).write_text(text)
        with pytest.raises(ValueError, match=f"manifest.json {wrong}.*preprocess or launch again"):
            verify_dataset(out)


def test_another_schema_is_refused(copy: Path) -> None:
    manifest = records.read(copy / manifests.NAME)
    manifests.write(copy, {**manifest, "schema": 99})
    with pytest.raises(ValueError, match=r"schema 99.*a newer version wrote it: use that version"):
        Index(copy, "train")
    manifests.write(copy, {**manifest, "schema": 2})
    with pytest.raises(ValueError, match=r"schema 2, .*preprocess or launch again"):
        Index(copy, "train")


def test_a_split_without_songs_is_named(copy: Path) -> None:
    manifest = records.read(copy / manifests.NAME)
    del manifest["splits"]["train"]
    manifests.write(copy, manifest)
    with pytest.raises(ValueError, match="no training songs"):
        Index(copy, "train")
    for odd in (None, "index", {"": ""}, []):
        manifests.write(copy, {**manifest, "splits": {**manifest["splits"], "": odd}})
        with pytest.raises(ValueError, match=r"manifest\.json is damaged: it has other splits"):
            manifests.read(copy)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        (0, 5, "has no key"),
        (1, "other.tar", "names a shard that is not listed"),
        *((column, value, "not a whole number") for column in (2, 3, 4) for value in (-1, True, "x")),
    ],
)
def test_a_row_of_an_earlier_manifest_that_says_nothing_is_damage(column: int, value: object, said: str) -> None:
    row: list[object] = ["a-00000", "train-00000.tar", 1536, 4096, 7]
    row[column] = value
    assert said in str(manifests._wrong_rows({"samples": [row], "shards": [{"name": "train-00000.tar"}]}))

"""A shard is a tar that others read."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import numpy as np

from p2p_dist.data import index
from p2p_dist.data import manifest as manifests
from p2p_dist.data.index import Index, Sample


def test_plain_webdataset_reads_the_shards(dataset: Path) -> None:
    import webdataset

    for split, part in manifests.read(dataset)["splits"].items():
        urls = [str(dataset / shard["name"]) for shard in part["shards"]]
        samples = {sample["__key__"]: sample for sample in webdataset.WebDataset(urls, shardshuffle=False).decode()}
        found = Index(dataset, split)
        assert len(samples) == len(found)
        for number in range(len(found)):
            sample = samples[found.sample(number).key]
            np.testing.assert_array_equal(sample["npz"]["input"], found.read(np.array([number]))[0, 0])
            fields = {"song", "split", "task", "window", "copy", "first_frame", "reference"}
            assert sample["json"].keys() == fields and sample["json"]["split"] == split


def test_plain_tar_reads_the_shards(dataset: Path) -> None:
    tars = list(dataset.rglob("*.tar"))
    assert tars
    for shard in tars:
        listed = subprocess.run(["tar", "-tf", str(shard)], capture_output=True, text=True, check=True).stdout.split()
        assert listed and all(name.count(".") <= 2 for name in listed)
        with tarfile.open(shard) as archive:
            assert {member.mtime for member in archive} == {0}


def test_a_shard_is_what_webdatasets_own_writer_makes_of_its_samples(dataset: Path, tmp_path: Path) -> None:
    from webdataset import TarWriter

    tars = list(dataset.rglob("*.tar"))
    assert tars
    for shard in tars:
        with tarfile.open(shard) as archive, TarWriter(str(tmp_path / "theirs.tar"), mtime=0, encoder=False) as writer:
            for member in archive:
                key, _, suffix = member.name.partition(".")
                writer.write({"__key__": key, suffix: archive.extractfile(member).read()})  # type: ignore[union-attr]
        assert (tmp_path / "theirs.tar").read_bytes() == shard.read_bytes()


def test_what_is_known_of_a_shard_as_it_is_written_is_what_is_found_in_it(dataset: Path) -> None:
    for split, part in manifests.read(dataset)["splits"].items():
        rows = {
            row["key"]: (shard["name"], row) for shard in part["shards"] for row in index.index_shard(dataset / shard["name"])
        }
        found = Index(dataset, split)
        assert len(rows) == len(found) > 0
        for number in range(len(found)):
            sample = found.sample(number)
            shard, row = rows[sample.key]
            assert sample == Sample(sample.key, shard, row["input"], row["target"], row["checksum"])
            assert found.byte_range(number) == (row["begin"], row["begin"] + row["length"])

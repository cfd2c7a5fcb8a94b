"""A shard is a tar that others read."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import numpy as np

from p2p_dist.data import index
from p2p_dist.data import manifest as manifests
from p2p_dist.data.index import Index


def test_plain_webdataset_reads_the_shards(dataset: Path) -> None:
    import webdataset

    url = str(next(dataset.glob("train-00000-*.tar")))
    samples = list(webdataset.WebDataset(url, shardshuffle=False).decode())
    found = Index(dataset, "train")
    for number, sample in enumerate(samples):
        assert sample["__key__"] == found.sample(number).key
        np.testing.assert_array_equal(sample["npz"]["input"], found.read(np.array([number]))[0, 0])
        assert sample["json"]["song"] == "A" and sample["json"]["window"] == number
    assert len(samples) == sum(sample.shard == Path(url).name for sample in map(found.sample, range(len(found))))


def test_plain_tar_reads_the_shards(dataset: Path) -> None:
    for shard in dataset.glob("*.tar"):
        listed = subprocess.run(["tar", "-tf", str(shard)], capture_output=True, text=True, check=True).stdout.split()
        assert listed and all(name.count(".") <= 2 for name in listed)
        with tarfile.open(shard) as archive:
            assert {member.mtime for member in archive} == {0}


def test_a_shard_is_what_webdatasets_own_writer_makes_of_its_samples(dataset: Path, tmp_path: Path) -> None:
    from webdataset import TarWriter

    for shard in dataset.glob("*.tar"):
        with tarfile.open(shard) as archive, TarWriter(str(tmp_path / "theirs.tar"), mtime=0, encoder=False) as writer:
            for member in archive:
                key, _, suffix = member.name.partition(".")
                writer.write({"__key__": key, suffix: archive.extractfile(member).read()})  # type: ignore[union-attr]
        assert (tmp_path / "theirs.tar").read_bytes() == shard.read_bytes()


def test_what_is_known_of_a_shard_as_it_is_written_is_what_is_found_in_it(dataset: Path) -> None:
    for split, part in manifests.read(dataset)["splits"].items():
        found = [[r["key"], s["name"], r["input"], r["target"], r["checksum"]] for s in part["shards"]
                 for r in index.index_shard(dataset / s["name"])]  # fmt: skip
        assert found == part["samples"], split

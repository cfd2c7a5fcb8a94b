"""Verify a whole dataset and report the first damaged shard or sample."""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.common import files
from p2p_dist.data import index, samples
from p2p_dist.data import manifest as manifests


def verify_dataset(
    folder: Path, on_shard: Callable[[int, int, str], None] = lambda *_: None, without: Collection[str] = ()
) -> int:
    """Check every shard against the manifest: sha256, checksum of every sample, offsets, every array, finite numbers.

    Args:
        on_shard: called after each intact shard with the number of shards done, the number of all shards, and its name.
        without: splits whose pairs are not there, because each node fetches them by itself.

    Returns:
        the number of samples, all of them intact.

    Raises:
        FileNotFoundError: no manifest.
        ValueError: names the damaged index, or the first damaged shard and its first damaged sample, and says how to make
            it again.
    """
    manifest = manifests.read(folder)
    found = 0
    parts = manifest["splits"].items()
    total = sum(len(part["audio"]) + (split not in without) * len(part["shards"]) for split, part in parts)
    for number, (path, shard, of_shard) in enumerate(_shards(folder, manifest, without), 1):
        try:
            _verify_shard(path, shard, of_shard, manifest)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}; {manifests.ANEW}") from error
        found += len(of_shard)
        on_shard(number, total, shard["name"])
    named = manifests.files_of(folder, manifest).keys()
    if others := sorted({*folder.glob("*.tar"), *folder.glob(f"{manifests.AUDIO}/*.tar")} - named):
        raise ValueError(f"{others[0]} is not in the manifest, but programs that read all *.tar files would read it: remove it")
    return found


def _shards(
    folder: Path, manifest: dict[str, Any], without: Collection[str]
) -> Iterator[tuple[Path, dict[str, Any], list[samples.Sample]]]:
    """Yield path, entry and samples of each shard; a shard of audio has no samples."""
    for split, part in manifest["splits"].items():
        for path, shard in manifests.files_of_part(part, "audio").items():
            yield folder / path, shard, []
        if split in without:
            continue
        found = samples.of_split(folder, part)
        order = np.argsort(found.shard, kind="stable")
        bounds = np.searchsorted(found.shard[order], np.arange(len(part["shards"]) + 1))
        for place, shard in enumerate(part["shards"]):
            here = map(found.sample, order[bounds[place] : bounds[place + 1]].tolist())
            # As they lie there: in the index a window is before its copies, and songs are in the order of their keys.
            yield folder / shard["name"], shard, sorted(here, key=lambda sample: sample.input)


def _verify_shard(path: Path, shard: dict[str, Any], wanted: list[index.Sample], manifest: dict[str, Any]) -> None:
    if not path.is_file():
        raise ValueError("it is missing")
    if wanted:
        try:
            rows = index.index_shard(path)
        except ValueError as error:
            # Which sample is broken is in the message, but for a tar that can't even be begun.
            raise ValueError(str(error) if "sample" in str(error) else f"sample {wanted[0].key}: {error}") from error
        for sample, row in zip_longest(wanted, rows):
            if row is None:
                raise ValueError(f"sample {sample.key}: missing, or its header is damaged")
            if sample is None:
                raise ValueError(f"sample {row['key']}: not in the manifest")
            found = index.Sample(row["key"], shard["name"], row["input"], row["target"], row["checksum"])
            if found != sample:
                what = "its checksum does not match" if found.key == sample.key else f"found {found.key} there"
                raise ValueError(f"sample {sample.key}: {what}")
        _verify_arrays(path, wanted, manifest)
    if files.sha256_file(path) != shard["sha256"]:
        raise ValueError("its sha256 differs from the manifest" + ("; all its samples are intact" if wanted else ""))


def _verify_arrays(path: Path, wanted: list[index.Sample], manifest: dict[str, Any]) -> None:
    """Check every array as numpy loads it: dtype, shape, finite values, and the bytes at its offset."""
    content = path.read_bytes()
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        for sample in wanted:
            opened = archive.extractfile(f"{sample.key}.npz")
            assert opened is not None
            try:
                with np.load(io.BytesIO(opened.read()), allow_pickle=False) as arrays:
                    loaded = {"input": arrays["input"], "target": arrays["target"]}
            except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                raise ValueError(f"sample {sample.key}: {error}") from error
            for name, array in loaded.items():
                if array.dtype != np.dtype(manifest["dtype"]) or list(array.shape) != manifest["shape"]:
                    raise ValueError(f"sample {sample.key}: {name} is {array.dtype} {array.shape}")
                if not np.isfinite(array).all():
                    raise ValueError(f"sample {sample.key}: {name} contains NaN or infinite values")
                offset = getattr(sample, name)
                if content[offset : offset + array.nbytes] != array.tobytes():
                    raise ValueError(f"sample {sample.key}: {name} is not at its offset {offset}")

"""Verify a whole dataset and report the first damaged shard or sample."""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.common import files
from p2p_dist.data import index
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
        FileNotFoundError: there is no manifest.
        ValueError: the message names the first damaged shard and its first damaged sample, and says how to rebuild it.
    """
    manifest = manifests.read(folder)
    parts = manifest["splits"].items()
    shards = [(shard, part) for split, part in parts for shard in ([] if split in without else part["shards"]) + part["audio"]]
    for number, (shard, part) in enumerate(shards, 1):
        samples = [index.Sample(*row) for row in part["samples"] if row[1] == shard["name"]]
        try:
            _verify_shard(folder / shard["name"], shard, samples, manifest)
        except ValueError as error:
            raise ValueError(
                f"{folder / shard['name']} is damaged: {error}; remove this shard and preprocess again: only this "
                "shard is rebuilt"
            ) from error
        on_shard(number, len(shards), shard["name"])
    if others := sorted({path.name for path in folder.glob("*.tar")} - {shard["name"] for shard, _ in shards}):
        raise ValueError(
            f"{folder / others[0]} is not in the manifest, but programs that read all *.tar files would read it: remove it"
        )
    return sum(len(part["samples"]) for split, part in parts if split not in without)


def _verify_shard(path: Path, shard: dict[str, Any], samples: list[index.Sample], manifest: dict[str, Any]) -> None:
    if not path.is_file():
        raise ValueError("it is missing")
    if samples:
        try:
            rows = index.index_shard(path)
        except ValueError as error:
            # The message names the damaged sample, unless the first header of the tar is damaged.
            raise ValueError(str(error) if "sample" in str(error) else f"sample {samples[0].key}: {error}") from error
        for sample, row in zip_longest(samples, rows):
            if row is None:
                raise ValueError(f"sample {sample.key}: missing, or its header is damaged")
            if sample is None:
                raise ValueError(f"sample {row['key']}: not in the manifest")
            found = index.Sample(row["key"], shard["name"], row["input"], row["target"], row["checksum"])
            if found != sample:
                what = "its checksum does not match" if found.key == sample.key else f"found {found.key} there"
                raise ValueError(f"sample {sample.key}: {what}")
        _verify_arrays(path, samples, manifest)
    if files.sha256_file(path) != shard["sha256"]:
        raise ValueError("its sha256 differs from the manifest" + ("; all its samples are intact" if samples else ""))


def _verify_arrays(path: Path, samples: list[index.Sample], manifest: dict[str, Any]) -> None:
    """Check every array that numpy loads: dtype, shape, finite values, and the bytes at its offset."""
    content = path.read_bytes()
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        for sample in samples:
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

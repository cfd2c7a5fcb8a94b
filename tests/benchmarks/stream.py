"""Random pairs from shards: ours in place (with checksums the first time), plain preadv, webdataset, a folder of npz files.

python tests/benchmarks/stream.py --data DIR

CPU seconds of all threads, the readers take turns in one process. Files are in the page cache: this measures the program, not
the disk. `before` is the way of earlier versions: a whole batch at once, in new memory, in the thread of the training.

Then a loop like a training's whose device takes 5 000 pairs a second, while the processor is free: the share of its time in
which it waits for batches. This is wall time, and says something only where two cores are free.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from p2p_dist.audio import musdb18
from p2p_dist.data import shards
from p2p_dist.data.index import Index
from p2p_dist.data.stream import Stream, to_network
from p2p_dist.settings.config import Data
from p2p_dist.settings.presets import preset

BATCH = 64

CONSUMED = 5000
"""Pairs a second."""


def lay_out(folder: Path) -> Path:
    """The excerpt inside stempeg as a folder of songs."""
    for number in range(4):
        (folder / "train").mkdir(parents=True, exist_ok=True)
        (folder / "train" / f"Excerpt {number}{musdb18.SUFFIX}").symlink_to(musdb18.excerpt_file())
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of songs (default: the excerpt inside stempeg)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--pairs", type=int, default=1024, help="read by every reader in a round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = preset("default").data
    with tempfile.TemporaryDirectory() as folder:
        root = options.data or lay_out(Path(folder) / "songs")
        shards.preprocess(root, Path(folder) / "set", data, workers=1)
        index = Index(Path(folder) / "set", "train")
        thesis = _as_npz_files(Path(folder) / "npz", index)
        rates = _compare(index, Path(folder) / "set", thesis, data, options)
        shares = _waiting(index, data, max(1, options.pairs // BATCH), options.rounds)
    print(f"{len(index)} pairs of {index.read(np.array([0])).nbytes / 1000:.0f} kB, median of {options.rounds} rounds\n")
    print("| reader | pairs a core-second | of the first |\n| --- | --- | --- |")
    first: dict[str, float] = {}
    for name, rate in rates.items():
        first.setdefault(name.split(":")[0], rate)
        print(f"| {name} | {rate:,.0f} | {rate / first[name.split(':')[0]]:.2f} |")
    print(f"\n| a loop of {CONSUMED} pairs a second | waits |\n| --- | --- |")
    for name, share in shares.items():
        print(f"| {name} | {100 * share:.1f} % |")
    if options.json:
        options.json.write_text(json.dumps({**rates, "waiting": shares}, indent=1))


def _as_before(stream: Stream, step: int) -> torch.Tensor:
    """A batch as earlier versions made it."""
    pairs = torch.from_numpy(stream.index.read(stream.samples(stream.positions(step))))
    return to_network(pairs.float(), stream.low, stream.high)


def _waiting(index: Index, data: Data, steps: int, rounds: int) -> dict[str, float]:
    """The share of a loop's time in which it waits for batches; the best of some rounds, which took turns."""
    streams = [Stream(index, data, seed=0, global_batch_size=BATCH) for _ in range(2)]
    ways: dict[str, Callable[[int], object]] = {
        "before": lambda step: _as_before(streams[0], step),
        "ours": streams[1].batch,
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, batch in ways.items():
            waited, begun = 0.0, time.monotonic()
            for step in range(turn * steps, (turn + 1) * steps):
                asked = time.monotonic()
                batch(step)
                waited += time.monotonic() - asked
                time.sleep(BATCH / CONSUMED)
            if turn:  # the first compares the checksums
                found[name].append(waited / (time.monotonic() - begun))
    return {name: min(shares) for name, shares in found.items()}


def _as_npz_files(folder: Path, index: Index) -> list[Path]:
    """The same pairs as the thesis had them: a float32 npz each, stored."""
    folder.mkdir()
    paths = []
    for number in range(len(index)):
        input, target = index.read(np.array([number]))[0, :, 0].astype(np.float32)
        paths.append(folder / f"{number}.npz")
        np.savez(paths[-1], np.concatenate([target, input]))
    return paths


def _compare(index: Index, folder: Path, thesis: list[Path], data, options) -> dict[str, float]:  # type: ignore[no-untyped-def]
    import webdataset

    stream = Stream(index, data, seed=0, global_batch_size=BATCH)
    random = np.random.default_rng(0)
    urls = [str(folder / shard) for shard in index.shards]
    plan: list[np.ndarray] = []
    opened = {name: os.open(folder / name, os.O_RDONLY) for name in index.shards}
    size = index.read(np.array([0])).nbytes // 2

    def preadv() -> None:
        for numbers in plan:
            batch = np.empty((len(numbers), 2, size), np.uint8)
            for row, shard, *offsets in zip(batch, *index.samples.offsets(numbers), strict=True):
                for array, offset in zip(row, offsets, strict=True):
                    os.preadv(opened[index.samples.shards[shard]], [array], offset)

    def in_place() -> None:
        for numbers in plan:
            index.read(numbers)

    def first_time() -> None:
        unread = Index(folder, "train")
        for number in np.concatenate(plan):
            unread.read(np.array([number]))
        unread.close()

    def scale(pairs: torch.Tensor) -> torch.Tensor:
        return (pairs.float() - stream.low) * (2 / (stream.high - stream.low)) - 1

    def ours() -> None:
        for step in range(len(plan)):
            stream.batch(step)

    def before() -> None:
        for step in range(len(plan)):
            _as_before(stream, step)

    def webdataset_reader() -> None:
        pipeline = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode().repeat()
        rows = []
        for _, sample in zip(range(len(plan) * BATCH), pipeline, strict=False):
            rows.append(np.stack([sample["npz"]["input"], sample["npz"]["target"]]))
            if len(rows) == BATCH:
                scale(torch.from_numpy(np.stack(rows)))
                rows.clear()

    def npz_files() -> None:
        for numbers in plan:
            scale(torch.from_numpy(np.stack([np.load(thesis[number])["arr_0"] for number in numbers])))

    readers: dict[str, Callable[[], None]] = {
        "bytes: plain preadv": preadv,
        "bytes: ours, in place": in_place,
        "bytes: ours, in place, the first time": first_time,
        "float32 batch: ours": ours,
        "float32 batch: before": before,
        "float32 batch: webdataset's reader": webdataset_reader,
        "float32 batch: folder of npz files": npz_files,
    }
    found: dict[str, list[float]] = {name: [] for name in readers}
    for turn in range(options.rounds + 1):
        plan[:] = [random.integers(len(index), size=BATCH) for _ in range(options.pairs // BATCH)]
        for name, read in readers.items():
            begun = time.process_time()
            read()
            if turn:  # the first warms up
                found[name].append(len(plan) * BATCH / (time.process_time() - begun))
    return {name: statistics.median(values) for name, values in found.items()}


if __name__ == "__main__":
    main()

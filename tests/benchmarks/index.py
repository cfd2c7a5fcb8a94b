"""Open a dataset's index and locate batches in it, for datasets of 10^4 to 10^7 windows: of schema 4, and of schema 3 before.

python tests/benchmarks/index.py [--most 10000000]

Datasets are made up: 1000 windows a song, shards of 256 MB that are sparse files. Every figure is of a process that was forked
from one that had imported everything: wall and CPU seconds, and the private memory by which it grew (Anonymous in
smaps_rollup: without the index where it is mapped from the node's memory). `first` copies the index there; `further` is each
other process of the node.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.common import files
from p2p_dist.data import columns, manifest, samples
from p2p_dist.data.index import Index
from p2p_dist.data.stream import Stream
from p2p_dist.settings.presets import preset

SONG = 1000  # windows
SAMPLE = 265_728  # bytes of a pair of 256 x 256 in the tar
SHARD = 256_000_000 // (SONG * SAMPLE) or 1  # songs
BATCH = 64
AIMS = "aims at 10^7 windows: opened in 1 s and 50 MB a process; a batch of 64 located in 200 us"


def make(folder: Path, windows: int, schema: int) -> None:
    """A dataset of so many windows, whose shards hold nothing."""
    folder.mkdir()
    number = np.arange(windows, dtype=np.int64)
    song, window = np.divmod(number, SONG)
    shard = song // SHARD
    begin = (number - shard * SHARD * SONG) * SAMPLE
    counts = np.bincount(shard).tolist()
    shards = [
        {"name": f"train-{n:05d}.tar", "bytes": count * SAMPLE + 1024, "sha256": "0" * 64, "samples": count}
        for n, count in enumerate(counts)
    ]
    for one in shards:
        with (folder / one["name"]).open("wb") as file:
            file.truncate(one["bytes"])
    songs = [{"name": f"Song {n}", "key": f"song-{n:08x}", "seconds": 250.0} for n in range(int(song[-1]) + 1)]
    for n, one in enumerate(songs if schema > 3 else ()):
        place = [one["key"], n % SHARD * SONG * SAMPLE, SONG * SAMPLE, "0" * 64]
        shards[n // SHARD].setdefault("songs", []).append(place)
    part: dict[str, Any] = {"songs": songs, "shards": shards, "audio": []}
    if schema == 3:
        rows = zip(song.tolist(), window.tolist(), shard.tolist(), begin.tolist(), strict=True)
        part["samples"] = [[f"song-{s:08x}-{w:05d}", shards[n]["name"], b + 1723, b + 132_939, 5] for s, w, n, b in rows]
    else:
        constant = {"copy": 0, "input": 1723, "target": 132_939, "length": SAMPLE, "checksum": 5}
        values = {"begin": begin, "shard": shard, "song": song, "window": window}
        values |= {name: np.full(windows, value) for name, value in constant.items()}
        part["index"] = columns.write(folder, "train", values)
    about = {"settings": {}, "settings_digest": "", "dtype": "<f2", "shape": [1, 256, 256], "left_out": []}
    about |= {"order": "feistel"} if schema > 3 else {}
    files.write_json(folder / manifest.NAME, files.sealed({"schema": schema, **about, "splits": {"train": part}}))


def private() -> int:
    """Bytes of memory of this process alone."""
    rows = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(row[1]) * 1024 for row in rows if row[0] == "Anonymous:")


def measure(folder: Path) -> dict[str, float]:
    """In a process of its own."""
    data = preset("default").data
    gc.collect()
    before, begun, clock = private(), time.process_time(), time.monotonic()
    index = Index(folder, "train")
    found = {"cpu": time.process_time() - begun, "wall": time.monotonic() - clock, "private": private() - before}
    stream = Stream(index, data, seed=1, global_batch_size=BATCH)

    def cost(call: Callable[[int], object], rounds: int) -> float:
        taken = []
        for number in range(rounds):
            begun = time.process_time()
            call(number)
            taken.append(time.process_time() - begun)
        return statistics.median(taken)

    per_epoch = len(index) // BATCH
    found["epoch"] = cost(lambda n: index.samples.offsets(stream.samples(stream.positions((n + 3) * per_epoch + 1))), 5)
    found["batch"] = cost(lambda n: index.samples.offsets(stream.samples(stream.positions(n))), 200)
    found["windows"] = len(index)
    return found


def alone(folder: Path) -> dict[str, float]:
    """`measure` in a process that ends before the next begins."""
    gc.collect()
    gc.freeze()  # else the first collection would write to all pages of the parent
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(measure, (folder,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=10**7)
    parser.add_argument("--most-before", type=int, default=10**5, help="of schema 3")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(
        "| windows | schema | manifest MB | index MB | first, s (CPU) | further, s (CPU) | private MB | batch, us | epoch, us |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    rows = []
    for schema, most in ((3, options.most_before), (4, options.most)):
        for windows in (10**n for n in range(4, 8) if 10**n <= most):
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place) / "set"
                make(folder, windows, schema)
                first, *others = [alone(folder) for _ in range(3)]
                index = sum(path.stat().st_size for path in folder.glob("index-*"))
                sizes = [(folder / manifest.NAME).stat().st_size / 1e6, index / 1e6]
            best = min(others, key=lambda one: one["cpu"])
            rows.append({"schema": schema, "first": first, "further": best})
            print(
                f"| {windows:,} | {schema} | {sizes[0]:.1f} | {sizes[1]:.1f} | {first['wall']:.2f} ({first['cpu']:.2f}) | "
                f"{best['wall']:.2f} ({best['cpu']:.2f}) | {best['private'] / 1e6:.0f} | {1e6 * best['batch']:.0f} | "
                f"{1e6 * best['epoch']:.0f} |",
                flush=True,
            )
    print(f"\n{AIMS}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    for path in (samples.MEMORY / f"p2p_dist-{os.getuid()}" / "indexes").glob("[0-9a-f]*"):
        path.unlink()


if __name__ == "__main__":
    main()

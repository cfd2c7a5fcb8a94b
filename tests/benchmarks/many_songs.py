"""Preprocess 100 to 10 000 songs of 10 seconds: cost per song, and how long the command takes with nothing left to do.

python tests/benchmarks/many_songs.py [--least 100] [--most 10000] [--json FILE]

The songs are noise in wav files; the stems heard are links to those of 20 songs. Their spectrograms are small (preset tiny), so
this measures the work per song beside decoding. Wall and processor seconds of the whole command, with its workers; then of the
same command with nothing left to do, without --out and with it. Results: many_songs.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from p2p_dist.data import unchanged

CHECKOUT = Path(__file__).resolve().parents[2]
RATE, SECONDS, DIFFERENT = 8000, 10, 20


def lay_out(folder: Path, songs: int) -> Path:
    """Make a folder of so many songs for training."""
    random = np.random.default_rng(0)
    for number in range(songs):
        song = folder / "train" / f"Song {number:05d}"
        song.mkdir(parents=True)
        for stem in ("drums", "bass", "other", "vocals"):
            first = folder / "train" / f"Song {number % DIFFERENT:05d}" / f"{stem}.wav"
            if number < DIFFERENT or stem == "drums":
                soundfile.write(song / f"{stem}.wav", 0.1 * random.standard_normal(RATE * SECONDS), RATE)
            else:
                os.link(first, song / f"{stem}.wav")
    return folder


def preprocess(songs: Path, runs: Path, *more: str) -> tuple[float, float]:
    """Run the command; return its wall and processor seconds."""
    environment = {**os.environ, "P2P_RUNS": str(runs)}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    words = ["launch/preprocess.py", "--data", str(songs), "--preset", "tiny", *more]
    subprocess.run([sys.executable, *words], cwd=CHECKOUT, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - begun, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=10_000, help="largest number of songs")
    parser.add_argument("--least", type=int, default=100, help="smallest number of songs")
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    arguments = parser.parse_args()
    rows = []
    print("| songs | ms a song | processor, ms a song | shards | again, s (processor) | again with --out |", flush=True)
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    for songs in (n for n in (100, 1000, 10_000) if arguments.least <= n <= arguments.most):
        with tempfile.TemporaryDirectory() as folder:
            data, runs = lay_out(Path(folder) / "songs", songs), Path(folder) / "runs"
            time.sleep(unchanged.SETTLED)  # songs that changed just before would be looked at again
            wall, processor = (spent / songs for spent in preprocess(data, runs))
            (out,) = (Path(folder) / "shards").iterdir()
            again, with_out = preprocess(data, runs), preprocess(data, runs, "--out", str(out))
            shards = len(list(out.glob("train-*.tar")))
        row = {"songs": songs, "wall": wall, "processor": processor, "shards": shards, "again": again, "with_out": with_out}
        rows.append(row)
        nothing = " | ".join(f"{spent[0]:.2f} ({spent[1]:.2f})" for spent in (again, with_out))
        print(f"| {songs:,} | {1000 * wall:.1f} | {1000 * processor:.1f} | {shards} | {nothing} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

"""Preprocess 100 to 10 000 songs of 10 seconds: cost per song, and how long the command takes with nothing left to do.

python tests/benchmarks/many_songs.py [--most 10000] [--json FILE]

The songs are noise in wav files; the stems heard are links to those of 20 songs. Their spectrograms are small (preset tiny), so
this measures the work per song beside decoding. Wall and processor seconds of the whole command, with its workers.
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


def preprocess(songs: Path, out: Path) -> tuple[float, float]:
    """Run the command; return its wall and processor seconds."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    words = ["launch/preprocess.py", "--data", str(songs), "--out", str(out), "--preset", "tiny"]
    subprocess.run([sys.executable, *words], cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - begun, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=10_000, help="largest number of songs")
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    arguments = parser.parse_args()
    rows = []
    print("| songs | ms a song | processor, ms a song | shards | again, s |\n| --- | --- | --- | --- | --- |", flush=True)
    for songs in (n for n in (100, 1000, 10_000) if n <= arguments.most):
        with tempfile.TemporaryDirectory() as folder:
            data, out = lay_out(Path(folder) / "songs", songs), Path(folder) / "shards"
            wall, processor = preprocess(data, out)
            again, _ = preprocess(data, out)
            shards = len(list(out.glob("train-*.tar")))
        rows.append({"songs": songs, "wall": wall / songs, "processor": processor / songs, "shards": shards, "again": again})
        print(
            f"| {songs:,} | {1000 * wall / songs:.1f} | {1000 * processor / songs:.1f} | {shards} | {again:.2f} |", flush=True
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

"""Train the tempo network that comes with the package, on songs whose licence allows it.

python tests/benchmarks/tempo_network.py --songs EVR --songs PRACTICE=freedoom --songs COMPOSED --out FILE

EVR: real songs under CC0; PRACTICE: renderings of which those named freedoom are under a BSD licence; COMPOSED: what
launch/compose.py wrote. FILE: p2p_dist/audio/tempo.safetensors, or another to compare. Only songs outside of test/ are
trained on. The tempo of a composed song is in its record, that of another is tracked in its drums.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from p2p_dist.audio import layouts, stems
from p2p_dist.audio.beats import DRUMS_LATE
from p2p_dist.audio.layouts import Source
from p2p_dist.audio.rhythm import beats_in
from p2p_dist.audio.tempo import RATE
from p2p_dist.common import records, schemas
from p2p_dist.train.tempo_network import Picture, pictures_of, song_of, train

STEMS = ("bass", "other", "vocals", "drums")


def stems_of(source: Source) -> list[np.ndarray]:
    """The four stems of a song, mono at 22 050 Hz."""
    rate, sums = stems.load_sums(source, [(stem,) for stem in STEMS])
    return [stems.mono(found.sound, rate, RATE) for found in sums]


def exact_tempo(source: Source) -> float | None:
    """The tempo in a composed song's record."""
    record = source.path / "song.json"
    return float(records.read(record, schemas.COMPOSED)["bpm"]) if record.is_file() else None


def pictures(source: Source, seed: int) -> list[Picture] | None:
    """What a song gives to train with; None where its drums have no tempo."""
    sounds = stems_of(source)
    bpm = exact_tempo(source)
    if bpm is None:
        beats = beats_in(sounds[-1], DRUMS_LATE)
        if beats is None:
            return None
        bpm = beats.bpm
    return pictures_of(song_of(sounds, bpm), seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--songs", action="append", required=True, help="DIR, or DIR=PREFIX for the songs whose names begin so")
    parser.add_argument("--out", type=Path, required=True, help="the file of weights to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=250)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pool, begun = [], time.process_time()
    for place in options.songs:
        folder, _, prefix = place.partition("=")
        sources = [song for song in layouts.find_songs(Path(folder)) if song.split != "test" and song.name.startswith(prefix)]
        found = [made for source in sources if (made := pictures(source, options.seed)) is not None]
        print(f"{place}: {len(found)} songs", flush=True)
        pool += found
    weights = train(pool, steps=options.steps, seed=options.seed)
    save_file({name: value.astype(np.float16) for name, value in weights.items()}, options.out)
    size = options.out.stat().st_size
    print(f"{len(pool)} songs, {options.steps} steps, {time.process_time() - begun:.0f} s of one core: {size} bytes")


if __name__ == "__main__":
    main()

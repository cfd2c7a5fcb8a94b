"""What generation costs: seconds of compute for a second of song, network and phase by themselves, and peak memory by length.

python tests/benchmarks/generate.py [--model RUN] [--preset small] [--minutes 4 40] [--json FILE]

Without --model the network of a preset, as it begins: it costs what a trained one does. A song is made for each length, by a
process of its own, whose peak memory is that of the whole command, libraries included.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import tyro

CHECKOUT = Path(__file__).resolve().parents[2]
RATE = 44100


@dataclass
class Arguments:
    """Time and measure the generation of whole songs."""

    model: str | None = None
    """a run, RUN@STEP or an exported folder"""
    preset: str = "small"
    """whose network and spectrograms to take without one"""
    minutes: tuple[float, ...] = (4.0, 40.0)
    """lengths of songs, stereo at 44.1 kHz"""
    json: Path | None = None
    """also write the figures here"""


def write_song(path: Path, minutes: float) -> None:
    """Chords that change, and noise twice a second."""
    random = np.random.default_rng(0)
    time = np.arange(RATE) / RATE
    with soundfile.SoundFile(path, "w", RATE, 2, "PCM_16") as file:
        for second in range(round(60 * minutes)):
            tones = sum(np.sin(2 * np.pi * 110 * 2 ** ((note + second % 7) / 12) * time) for note in (0, 4, 7))
            hits = random.standard_normal(RATE) * np.exp(-20 * (time % 0.5))
            file.write(np.stack([0.1 * tones + 0.05 * hits, 0.1 * tones - 0.05 * hits], axis=1))


def measure(arguments: Arguments, song: Path) -> dict[str, float]:
    """Make one song in this process."""
    import torch

    from p2p_dist.evaluate.report import song_page
    from p2p_dist.generate import request, songs
    from p2p_dist.generate.model import Model, find_model
    from p2p_dist.generate.song import make
    from p2p_dist.model.generator import Generator
    from p2p_dist.settings import presets

    if arguments.model is not None:
        model = find_model(arguments.model)
    else:
        base = presets.preset(arguments.preset)
        torch.manual_seed(0)
        weights = Generator(base.model, base.data.picture_channels).state_dict()
        model = Model(f"{arguments.preset}@0", base.data.task, 0, "0" * 64, base.data, base.model, weights)
    page = [0.0]

    def timed(*asked):
        begun = time.perf_counter()
        song_page.write(*asked)
        page[0] = time.perf_counter() - begun

    (asked,) = request.find([song], song.parent / "made")
    begun = time.process_time()
    found = make(asked, model, model.generator(songs.device()), request.Options(), timed)["seconds"]
    processor = time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**found, "page": page[0], "processor": processor, "peak_mib": peak}


def main() -> None:
    arguments = tyro.cli(Arguments)
    figures = {}
    print("| song | wall | processor | network | phase (of all threads) | page | peak memory |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for minutes in arguments.minutes:
        with tempfile.TemporaryDirectory() as folder:
            song = Path(folder) / "song.wav"
            write_song(song, minutes)
            words = [sys.executable, __file__, "--one", str(song), "--preset", arguments.preset]
            words += [] if arguments.model is None else ["--model", arguments.model]
            done = subprocess.run(words, cwd=CHECKOUT, check=True, stdout=subprocess.PIPE, text=True)
        found = figures[f"{minutes:g} min"] = json.loads(done.stdout.splitlines()[-1])
        each = [
            f"{(found[name] + (found['page'] if name == 'all' else 0)) / found['song']:.3f} s/s"
            for name in ("all", "processor", "network", "phase", "page")
        ]
        print(f"| {minutes:g} min | {' | '.join(each)} | {found['peak_mib']:.0f} MiB |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    if "--one" in sys.argv:
        at = sys.argv.index("--one")
        print(json.dumps(measure(tyro.cli(Arguments, args=sys.argv[1:at] + sys.argv[at + 2 :]), Path(sys.argv[at + 1]))))
    else:
        main()

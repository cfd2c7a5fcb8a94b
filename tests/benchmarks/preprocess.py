"""Songs to shards against its floor, ffmpeg decoding the same streams to nothing, and against the thesis's chain.

python tests/benchmarks/preprocess.py --data DIR

CPU seconds of whole processes' work, taken in turns in one run. Needs ffmpeg and librosa. Set OPENBLAS_NUM_THREADS=1.

Two songs of real music (644 s, --rounds 2), 2 cores of a virtual machine with little beside. Of the floor in the same round,
median and lowest to highest: decoding alone 0.87 (PyAV's own libavcodec and a loop over the packets), sums and
levels on top 1.19, a song to train on 1.80 (1.77 to 1.83), at 22.05 kHz 1.70 (1.64 to 1.75), the thesis's pictures 1.58 (1.50
to 1.66), a held-out song 3.67 (its flac of 24 bits). Memory of a worker, a song of 10 minutes: 395 MB to train on, 606 MB held
out. Two workers were 1.81 times one in an earlier run.

The thesis's chain takes 4.2 times ours where it loads, pictures and stores each of the five streams (9.61 s against 2.27 s),
and 2.6 times where it makes no more than the two signals that one pair needs: half of our time is the decoder's, which both
need. The ratio to the floor grows with what else runs, since the floor needs little memory: 1.97 where five times as many
processes wanted the cores.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from p2p_dist.audio import layouts, musdb18, stems
from p2p_dist.common import linux
from p2p_dist.data import song_record, worker
from p2p_dist.settings.config import STEMS, Data, parse_task
from p2p_dist.settings.presets import preset

FLOOR = "floor: ffmpeg to null, one process"
OURS = "ours, a song to train on"
THESIS = "the thesis's chain for the same pairs, librosa"
THESIS_STREAMS = "the thesis's chain, every stream pictured, librosa"
OURS_THESIS = "ours, the thesis's representation"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of stem files (default: the excerpt inside stempeg, repeated)")
    parser.add_argument("--task", default="drums")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the song that memory is measured with")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        longest = repeat(scratch / "long" / "train" / "Long.stem.mp4", options.minutes * 60)
        root = options.data or repeat(scratch / "songs" / "train" / "Excerpt.stem.mp4", 240).parents[1]
        found = [source for source in layouts.find_songs(root) if source.stem_file is not None]
        sources = sorted(found, key=lambda source: source.size())[-2:]
        taken, seconds = compare(sources, options.task, options.rounds, scratch)
        start = start_up()
        memory = {split: peak_memory(longest, split, scratch) for split in ("train", "test")}
        speedup = two_workers(sources[0].path, scratch)
    streams = sum(len(side) for side in parse_task(options.task))
    print(f"task {options.task}, {len(sources)} songs, {seconds:.0f} s of {streams} stems, {options.rounds} rounds\n")
    print("| way | CPU s, median | lowest | of the floor in the same round, median | lowest to highest |")
    print("| --- | --- | --- | --- | --- |")
    result: dict[str, object] = {}
    for name, values in taken.items():
        ratios = sorted(value / floor for value, floor in zip(values, taken[FLOOR], strict=True))
        result[name] = {"seconds": values, "of_floor": statistics.median(ratios)}
        print(
            f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} | {statistics.median(ratios):.2f} "
            f"| {ratios[0]:.2f} to {ratios[-1]:.2f} |"
        )
    ratio, streams_ratio = (
        statistics.median(theirs / ours for theirs, ours in zip(taken[way], taken[OURS_THESIS], strict=True))
        for way in (THESIS, THESIS_STREAMS)
    )
    whole = statistics.median(taken[OURS]) / seconds * 36000
    print(f"\nThe thesis's chain takes {ratio:.1f} times ours for the same pairs, ", end="")
    print(f"{streams_ratio:.1f} times where it pictures every stream.")
    print(f"A worker's start takes {start:.2f} CPU s, once for all songs, and is in no row; all MUSDB18 (10 h): {whole:.0f} s.")
    print(f"Memory of a worker, a song of {options.minutes:g} minutes: ", end="")
    print(f"{memory['train']:.0f} MB to train on, {memory['test']:.0f} MB held out.")
    print(f"Two workers: {speedup:.2f} times one (wall time, their start included).")
    if options.json:
        result |= {"thesis": ratio, "thesis_streams": streams_ratio, "memory_mb": memory, "two_workers": speedup}
        options.json.write_text(json.dumps(result, indent=1))


def repeat(path: Path, seconds: float) -> Path:
    """The excerpt inside stempeg, played over and over: its packets are copied, nothing is encoded again."""
    path.parent.mkdir(parents=True)
    loops = int(seconds / 6.08) - 1
    command = ["ffmpeg", "-v", "error", "-stream_loop", str(loops), "-i", str(musdb18.excerpt_file())]
    subprocess.run([*command, "-map", "0:a", "-c", "copy", str(path)], check=True)
    return path


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this process and of the children it waits for."""
    before = os.times()
    work()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


def floor(source: layouts.Source, task: str) -> None:
    """Decode exactly the streams that the task needs, in one process and one thread, to nothing."""
    heard, made = parse_task(task)
    maps = [part for name in (*heard, *made) for part in ("-map", f"0:a:{STEMS.index(name) + 1}")]
    command = ["ffmpeg", "-nostdin", "-v", "error", "-threads", "1", "-i", str(source.path), *maps]
    subprocess.run([*command, "-f", "null", "-"], check=True)


def thesis_chain(source: layouts.Source, task: str, data: Data, folder: Path) -> None:
    """The least of the thesis's way that gives the pairs: stems laid over each other file by file, two signals pictured."""
    heard, made = parse_task(task)
    files = extract(source, folder)
    mixes, mixed = [], files[heard[0]]
    for names in (heard[1:], made):  # the song without the target, then the whole song
        for name in names:
            mixed = overlay(mixed, files[name], folder / f"mixed-{name}.wav")
        mixes.append(mixed)
    write_windows([load(path, data) for path in reversed(mixes)], data, folder)


def thesis_streams(source: layouts.Source, data: Data, folder: Path) -> None:
    """The thesis's way stream by stream: each of the five is extracted, loaded, pictured and stored."""
    for path in extract(source, folder).values():
        write_windows([load(path, data)], data, folder)


def extract(source: layouts.Source, folder: Path) -> dict[str, Path]:
    """A wav of every stream, an ffmpeg each."""
    folder.mkdir(exist_ok=True)
    files = {name: folder / f"{name}.wav" for name in ("mixture", *STEMS)}
    for number, path in enumerate(files.values()):
        command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-threads", "1", "-i", str(source.path)]
        subprocess.run([*command, "-map", f"0:a:{number}", str(path)], check=True)
    return files


def load(path: Path, data: Data) -> np.ndarray:
    """A wav as the thesis reads it."""
    import librosa

    return np.asarray(librosa.load(path, sr=data.sample_rate)[0])


def write_windows(signals: list[np.ndarray], data: Data, folder: Path) -> None:
    """Pictures of each window by librosa, below each other in an npz."""
    import librosa

    samples = data.hop_length * (data.frames - 1)
    for number in range(len(signals[0]) // samples):
        pictures = []
        for signal in signals:
            part = signal[number * samples : (number + 1) * samples]
            mel = librosa.feature.melspectrogram(
                y=part, sr=data.sample_rate, n_fft=data.n_fft, hop_length=data.hop_length, n_mels=data.mels
            )
            pictures.append(librosa.power_to_db(mel, ref=np.max))
        np.savez(folder / f"{number}.npz", np.concatenate(pictures))


def overlay(one: Path, other: Path, out: Path) -> Path:
    """Two wav files as one, in 16 bits, clipped; the new file."""
    import soundfile

    first, rate = soundfile.read(one, dtype="int16")
    second, _ = soundfile.read(other, dtype="int16")
    mix = np.clip(first.astype(np.int32) + second, -32768, 32767).astype(np.int16)
    soundfile.write(out, mix, rate)
    return out


def compare(sources: list[layouts.Source], task: str, rounds: int, scratch: Path) -> tuple[dict[str, list[float]], float]:
    """CPU seconds of each way over all songs, by rounds in which the ways take turns; and the seconds of sound."""
    data = replace(preset("default").data, task=task)
    narrow = replace(data, sample_rate=22050, n_fft=1024, hop_length=256)
    thesis = replace(preset("thesis").data, task=task)

    def ours(settings: Data, split: str = "train") -> float:
        seconds = 0.0
        for source in sources:
            work = song_record.KeyedSong(replace(source, split=split))
            result = worker.make_song(work, [(scratch / "out", settings)])
            assert result.error is None, result.error
            seconds += result.seconds
        return seconds

    ways: dict[str, Callable[[], object]] = {
        FLOOR: lambda: [floor(source, task) for source in sources],
        "decoding alone, PyAV, nothing made of it": lambda: [decode(source, task) for source in sources],
        "sums and levels, mono": lambda: [stems.load_sums(s, parse_task(task), downmix=True) for s in sources],
        OURS: lambda: ours(data),
        "the same at 22.05 kHz, 1024/256": lambda: ours(narrow),
        "a held-out song, its sound as flac beside": lambda: ours(data, "test"),
        OURS_THESIS: lambda: ours(thesis),
        THESIS: lambda: [thesis_chain(s, task, thesis, scratch / "thesis") for s in sources],
        THESIS_STREAMS: lambda: [thesis_streams(s, thesis, scratch / "thesis") for s in sources],
    }
    linux.keep_memory()  # as a worker does
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            spent = cpu(way)
            if turn:  # the first warms up
                taken[name].append(spent)
    return taken, ours(data)


def decode(source: layouts.Source, task: str) -> None:
    """What PyAV itself takes for the streams of the task."""
    import av

    heard, made = parse_task(task)
    with av.open(str(source.path)) as container:
        wanted = [container.streams.audio[STEMS.index(name) + 1] for name in (*heard, *made)]
        for packet in container.demux(*wanted):
            packet.decode()


def start_up() -> float:
    """CPU seconds of a worker that starts and ends: the interpreter and all that a song needs."""
    code = "import av, soundfile, scipy.fft, scipy.sparse; from p2p_dist.data import worker"
    return cpu(lambda: subprocess.run([sys.executable, "-c", code], check=True, env=environment()))


def environment() -> dict[str, str]:
    """That of a worker, which imports this checkout."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def peak_memory(path: Path, split: str, scratch: Path) -> float:
    """Peak resident memory of a worker that makes this one song twice, MB."""
    code = (
        "import sys; from pathlib import Path; from p2p_dist.common import linux; from p2p_dist.settings.presets import preset;"
        "from p2p_dist.audio.layouts import source_at; from p2p_dist.data import song_record, worker; linux.keep_memory();"
        "work = song_record.KeyedSong(source_at(Path(sys.argv[1]), sys.argv[3]));"
        "wanted = [(Path(sys.argv[2]), preset('default').data)];"
        "errors = [worker.make_song(work, wanted).error for _ in range(2)]; assert errors == [None, None], errors;"
        # Not getrusage: its peak begins with that of the process that started this one.
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    command = [sys.executable, "-c", code, str(path), str(scratch / "memory"), split]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout) / 1000


def two_workers(song_file: Path, scratch: Path) -> float:
    """Wall time of one worker by that of two, over 24 songs of one length, the ways taking turns; each the best of two."""
    root = scratch / "alike" / "train"
    root.mkdir(parents=True)
    for number in range(24):
        (root / f"Song {number}.stem.mp4").symlink_to(song_file.resolve())
    walls: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(2):
        for workers in walls:
            out = scratch / f"workers{workers}-{turn}"
            code = "import sys; from p2p_dist.cli import preprocess; sys.exit(preprocess.main(sys.argv[1:]))"
            command = [sys.executable, "-c", code, "--data", str(root.parent), "--out", str(out), "--workers", str(workers)]
            begun = time.perf_counter()
            subprocess.run(command, check=True, env=environment(), stdout=subprocess.DEVNULL)
            walls[workers].append(time.perf_counter() - begun)
            shutil.rmtree(out)
    return min(walls[1]) / min(walls[2])


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()

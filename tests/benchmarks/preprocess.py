"""Songs to shards against its floor, ffmpeg decoding the same streams to nothing, and against the thesis's chain.

python tests/benchmarks/preprocess.py --data DIR

CPU seconds of whole processes' work, taken in turns in one run. Needs ffmpeg and librosa.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from p2p_dist.audio import stems
from p2p_dist.config import STEMS, Data, parse_task
from p2p_dist.data import shards, song
from p2p_dist.presets import preset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of stem files (default: the excerpt inside stempeg, repeated)")
    parser.add_argument("--task", default="drums")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the song that memory is measured with")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = preset("default").data
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        longest = repeat(scratch / "long" / "train" / "Long.stem.mp4", options.minutes * 60)
        root = options.data or repeat(scratch / "songs" / "train" / "Excerpt.stem.mp4", 240).parents[1]
        found = [source for source in stems.find_songs(root) if source.path.is_file()]
        sources = sorted(found, key=lambda source: source.size())[-2:]
        rows = compare(sources, data, options.task, options.rounds, scratch)
        memory = peak_memory(longest, scratch)
        speedup = two_workers(root, scratch)
    print(
        f"task {options.task}, {len(sources)} songs, {rows.pop('seconds'):.0f} s of sound, median of {options.rounds} rounds\n"
    )
    print("| way | CPU s | of the floor |\n| --- | --- | --- |")
    floor = rows["floor: ffmpeg to null, one process"]
    for name, seconds in rows.items():
        print(f"| {name} | {seconds:.2f} | {seconds / floor:.2f} |")
    ratio = rows["the thesis's chain, librosa"] / rows["ours, its representation"]
    print(f"\nThe thesis's chain takes {ratio:.1f} times ours for the same pictures.")
    print(
        f"Memory of a worker, {options.minutes:g} minutes: {memory:.0f} MB. Two workers: {speedup:.2f} times one (wall time)."
    )
    if options.json:
        result = {**rows, "memory_mb": memory, "two_workers": speedup}
        options.json.write_text(json.dumps(result, indent=1))


def repeat(path: Path, seconds: float) -> Path:
    """The excerpt inside stempeg, played over and over: its packets are copied, nothing is encoded again."""
    path.parent.mkdir(parents=True)
    loops = int(seconds / 6.08) - 1
    command = ["ffmpeg", "-v", "error", "-stream_loop", str(loops), "-i", str(stems.excerpt_file())]
    subprocess.run([*command, "-map", "0:a", "-c", "copy", str(path)], check=True)
    return path


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this process and of the children it waits for."""
    before = os.times()
    work()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


def floor(source: stems.Source, task: str) -> None:
    """Decode exactly the streams that the task needs, in one process and one thread, to nothing."""
    heard, made = parse_task(task)
    maps = [part for name in (*heard, *made) for part in ("-map", f"0:a:{STEMS.index(name) + 1}")]
    command = ["ffmpeg", "-nostdin", "-v", "error", "-threads", "1", "-i", str(source.path), *maps]
    subprocess.run([*command, "-f", "null", "-"], check=True)


def thesis_chain(source: stems.Source, task: str, data: Data, folder: Path) -> None:
    """The thesis's way: an ffmpeg a stem to wav, sums, librosa.load, librosa's spectrogram of each window, an npz each."""
    import librosa
    import soundfile

    folder.mkdir(exist_ok=True)
    heard, made = parse_task(task)
    decoded = {}
    for name in (*heard, *made):
        wav = folder / f"{name}.wav"
        command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-threads", "1", "-i", str(source.path)]
        subprocess.run([*command, "-map", f"0:a:{STEMS.index(name) + 1}", str(wav)], check=True)
        decoded[name], rate = soundfile.read(wav, dtype="int16")
    signals = []
    for names in (heard, (*heard, *made)):
        mix = np.clip(sum(decoded[name].astype(np.int32) for name in names), -32768, 32767).astype(np.int16)
        soundfile.write(folder / "mix.wav", mix, rate)
        signals.append(librosa.load(folder / "mix.wav", sr=data.sample_rate)[0])
    samples = data.hop_length * (data.frames - 1)
    for number in range(len(signals[0]) // samples):
        pictures = []
        for signal in reversed(signals):
            part = signal[number * samples : (number + 1) * samples]
            mel = librosa.feature.melspectrogram(
                y=part, sr=data.sample_rate, n_fft=data.n_fft, hop_length=data.hop_length, n_mels=data.mels
            )
            pictures.append(librosa.power_to_db(mel, ref=np.max))
        np.savez(folder / f"{number}.npz", np.concatenate(pictures))


def compare(sources: list[stems.Source], data: Data, task: str, rounds: int, scratch: Path) -> dict[str, float]:
    """Median CPU seconds of each way over all songs, the ways taking turns."""
    thesis = preset("thesis").data
    narrow = Data(sample_rate=22050, n_fft=1024, hop_length=256, task=task)
    ours = {"ours": data, "ours, 22.05 kHz 1024/256": narrow, "ours, its representation": thesis}
    works = [song.Work(stems.Source(s.name, "train", s.path), number) for number, s in enumerate(sources)]
    ways: dict[str, Callable[[], object]] = {
        "floor: ffmpeg to null, one process": lambda: [floor(source, task) for source in sources],
        **{
            name: lambda settings=settings: [song.make_song(work, [(scratch / "out", settings)]) for work in works]
            for name, settings in ours.items()
        },
        "the thesis's chain, librosa": lambda: [thesis_chain(s, task, thesis, scratch / "thesis") for s in sources],
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            seconds = cpu(way)
            if turn:  # the first warms up
                taken[name].append(seconds)
    rate, (first,) = stems.load_sums(sources[0], [("drums",)])
    seconds = sum(s.size() for s in sources) / sources[0].size() * len(first) / rate
    return {"seconds": seconds, **{name: statistics.median(values) for name, values in taken.items()}}


def peak_memory(path: Path, scratch: Path) -> float:
    """Peak resident memory of a process that makes this one song, MB."""
    code = (
        "import resource, sys; from pathlib import Path; from p2p_dist.audio import stems; from p2p_dist.presets import preset;"
        "from p2p_dist.data import song; source = stems.Source('Long', sys.argv[3], Path(sys.argv[1]));"
        "result = song.make_song(song.Work(source, 0), [(Path(sys.argv[2]), preset('default').data)]);"
        "assert result.error is None, result.error;"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)"
    )
    peaks = []
    for split in ("train", "test"):
        command = [sys.executable, "-c", code, str(path), str(scratch / "memory"), split]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
        )
        peaks.append(float(done.stdout))
    return max(peaks)


def two_workers(root: Path, scratch: Path) -> float:
    """Wall time of one worker by that of two, over four songs of one length."""
    songs = scratch / "four" / "train"
    songs.mkdir(parents=True)
    largest = max(stems.find_songs(root), key=lambda source: source.size()).path
    for number in range(8):
        (songs / f"Song {number}.stem.mp4").symlink_to(largest)
    walls = []
    for workers in (1, 2):
        begun = time.perf_counter()
        shards.preprocess(songs.parent, scratch / f"workers{workers}", preset("default").data, workers)
        walls.append(time.perf_counter() - begun)
    return walls[0] / walls[1]


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()

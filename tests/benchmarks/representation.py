"""The ceiling of representations: true stems to pictures and back to sound, compared at 44.1 kHz so that cymbals count.

python tests/benchmarks/representation.py --data DIR

Before a rate and a transform become the default, this says what either loses on real songs. No model can do better.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from p2p_dist.audio import layouts, musdb18, stems
from p2p_dist.audio.invert import mel_to_audio, stem_for
from p2p_dist.audio.spectrogram import mel_power, power_to_db
from p2p_dist.data import pairs
from p2p_dist.evaluate.measures.table import onset_f1 as f1_of_times
from p2p_dist.evaluate.measures.truth import onset_times
from p2p_dist.settings.config import Data, parse_task
from tests import decode

CANDIDATES = {
    "22.05 kHz 1024/256, 128 mels": Data(sample_rate=22050, n_fft=1024, hop_length=256, mels=128),
    "44.1 kHz 2048/512, 128 mels": Data(sample_rate=44100, n_fft=2048, hop_length=512, mels=128),
    "44.1 kHz 2048/512, 160 mels": Data(sample_rate=44100, n_fft=2048, hop_length=512, mels=160),
}


def loudest(song: decode.Song, task: str, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Input and target of the part in which the target is loudest."""
    heard, made = map(song.sum_of, parse_task(task))
    size = min(round(seconds * song.sample_rate), len(made))
    power = np.concatenate(([0.0], np.cumsum((made.astype(np.float64) ** 2).mean(axis=1))))
    begin = int(np.argmax(power[size:] - power[:-size]))
    return heard[begin : begin + size], made[begin : begin + size]


def log_mel_l1(output: np.ndarray, truth: np.ndarray, rate: int, lowest: float = 0.0) -> float:
    """Mean |dB| over 128 mels, n_fft 2048, hop 512 at the song's own rate, from 80 dB under the truth's peak."""
    got, wanted = (power_to_db(mel_power(signal, rate, 2048, 512, 128, lowest)) for signal in (output, truth))
    floor = wanted.max() - 80
    return float(np.abs(np.maximum(got, floor) - np.maximum(wanted, floor)).mean())


def onset_f1(output: np.ndarray, truth: np.ndarray) -> float:
    """Of mono sound at 22 050 Hz; 0 where the truth has no onset."""
    return f1_of_times(onset_times(output), onset_times(truth)) or 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of songs (default: the excerpt inside stempeg)")
    parser.add_argument("--task", default="drums")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--iterations", type=int, default=32)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sources = layouts.find_songs(options.data) if options.data else [layouts.source_at(musdb18.excerpt_file(), "test")]
    rows: dict[str, list[list[float]]] = {name: [] for name in ["copy the input", *CANDIDATES]}
    for source in sources:
        song = decode.load(source)
        heard, made = loudest(song, options.task, options.seconds)
        rate = song.sample_rate
        truth, low = stems.mono(made, rate, rate), stems.mono(made, rate, 22050)
        if not truth.any():
            continue
        reference_sound = stems.mono(heard, rate, rate)
        rows["copy the input"].append(
            [
                log_mel_l1(reference_sound, truth, rate),
                log_mel_l1(reference_sound, truth, rate, 8000.0),
                log_mel_l1(stems.mono(heard, rate, 22050), low, 22050),
                onset_f1(stems.mono(heard, rate, 22050), low),
                0.0,
            ]
        )
        for name, data in CANDIDATES.items():
            begun = time.process_time()
            input_power, power = pairs.mel_of(heard, rate, data), pairs.mel_of(made, rate, data)
            reference = pairs.level_reference(input_power)
            cost = time.process_time() - begun
            picture = pairs.to_picture(power, reference, "default")
            samples = -(-len(made) * data.sample_rate // rate)
            back = pairs.silent_to_zero(picture, reference)
            signal = mel_to_audio(back, data.sample_rate, data.n_fft, data.hop_length, samples, options.iterations)
            result = stem_for(made, rate, signal, data.sample_rate)[:, 0]
            rows[name].append(
                [
                    log_mel_l1(result, truth, rate),
                    log_mel_l1(result, truth, rate, 8000.0),
                    log_mel_l1(stems.resample(result, rate, 22050), low, 22050),
                    onset_f1(stems.resample(result, rate, 22050), low),
                    1000 * cost / (2 * len(made) / rate),
                ]
            )
    print(f"{options.task}, {len(rows['copy the input'])} songs, the loudest {options.seconds:g} s of each; ", end="")
    print(f"Griffin-Lim {options.iterations}\n")
    print("| representation | stem log-mel L1, dB | above 8 kHz | up to 11 kHz | onset F1 | CPU ms a stream-second |")
    print("| --- | --- | --- | --- | --- | --- |")
    means = {name: np.mean(values, axis=0).tolist() for name, values in rows.items()}
    for name, (l1, high, low, f1, cost) in means.items():
        print(f"| {name} | {l1:.2f} | {high:.2f} | {low:.2f} | {f1:.3f} | {cost:.2f} |")
    if options.json:
        options.json.write_text(json.dumps({"means": means, "songs": rows}, indent=1))


if __name__ == "__main__":
    main()

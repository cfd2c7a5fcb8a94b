"""Do the measures order known cases rightly, and what do they cost?

python tests/benchmarks/evaluate.py --data DIR

Calibration: stems of which everybody knows which is better, made of real songs, ranked by the rule that ranks
checkpoints (facts of the order: "one beat late is better than 70 ms late" and the like). A rule that breaks an order
fails: exit code 1. `--weights 0,0,1` tries another.

Cost: every measure against the plain way (librosa, mir_eval and auraloss, each as its documentation shows it, side by
side in this process), and ten songs of one checkpoint against an epoch of training on MUSDB18's 86 songs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import evaluate_cost
import numpy as np
import scipy.ndimage

from p2p_dist.audio import layouts, musdb18, stems
from p2p_dist.audio.beats import Beats
from p2p_dist.audio.invert import mel_to_audio, stem_for
from p2p_dist.common import console
from p2p_dist.data import pairs
from p2p_dist.evaluate import held_out_songs, ranking
from p2p_dist.evaluate.baselines import baseline_stems
from p2p_dist.evaluate.held_out_songs import Excerpt
from p2p_dist.evaluate.measures import averages, descriptors
from p2p_dist.evaluate.measures.kinds import Row
from p2p_dist.evaluate.measures.measure import Measured, measure
from p2p_dist.settings.config import Config, Evaluate

TRUTH, LOOP, FAR, SILENCE = "true drums", "loop on the bar", "same drums roughly aligned", "silence"
QUIET, LOUD = "true drums 10 dB too quiet", "true drums 6 dB loud"
ANYWHERE, OTHER, STRANGER = "same drums anywhere", "a random other song", "other song's drums in time"
BEAT, QUARTER, LATE = "one beat late", "a quarter beat late", "70 ms late"
STEADY, HITS, BLURRED = "steady noise", "noise hits", "blurred truth"

ORDER = (
    (LOOP, SILENCE),
    (FAR, SILENCE),
    (QUIET, SILENCE),
    (LOOP, ANYWHERE),
    (BEAT, LATE),
    (BEAT, QUARTER),
    (LOOP, OTHER),
    (ANYWHERE, STEADY),
    (STRANGER, HITS),
    (LOOP, BLURRED),
    (LOUD, LOOP),
)
"""Better, worse."""


def shifted(target: np.ndarray, excerpt: Excerpt, seconds: float) -> np.ndarray:
    """What the true stem of the whole song plays so much earlier; the song goes round."""
    at = (np.arange(len(excerpt.input)) + excerpt.begins - round(seconds * excerpt.rate)) % len(target)
    return target[at]


def tiled(excerpt: Excerpt, beats: Beats) -> np.ndarray:
    """The loudest four bars of the excerpt, again and again."""
    size = 16 * 60 / beats.bpm * excerpt.rate
    begins = np.arange(beats.first * excerpt.rate, len(excerpt.target) - size, size / 4)
    begin = max(begins, key=lambda b: float((excerpt.target[round(b) : round(b + size)] ** 2).sum()))
    at = np.round((np.arange(len(excerpt.target)) - begin) % size + begin).astype(np.int64)
    return excerpt.target[np.minimum(at, len(excerpt.target) - 1)]


def blurred(excerpt: Excerpt, config: Config) -> np.ndarray:
    """The true stem with its mel spectrogram smeared over a fifth of a second."""
    data = config.data
    power = pairs.mel_of(excerpt.target, excerpt.rate, data)
    smeared = scipy.ndimage.uniform_filter1d(power, round(0.2 * data.sample_rate / data.hop_length), axis=1)
    samples = -(-len(excerpt.input) * data.sample_rate // excerpt.rate)
    sound = mel_to_audio(smeared, data.sample_rate, data.n_fft, data.hop_length, samples, config.evaluate.iterations)
    return stem_for(excerpt.input, excerpt.rate, sound, data.sample_rate)


def cases(excerpt: Excerpt, others: list[Excerpt], known: baseline_stems.Training, config: Config) -> dict[str, np.ndarray]:
    """All stems of one song, each (samples, channels)."""
    beats, true, rate = excerpt.beats, excerpt.target, excerpt.rate
    assert beats is not None
    _, target, _ = excerpt.song.read()
    beat = 60 / beats.bpm
    level = 10 * float(np.log10((true**2).mean() / (excerpt.input**2).mean()))
    random = np.random.default_rng(0)
    far = baseline_stems.far_away(
        target, rate, excerpt.begins, len(true), held_out_songs.from_there(beats, -excerpt.begins / rate)
    )
    stranger = baseline_stems.from_training(
        known, excerpt.input, rate, beats, config.data, config.evaluate.iterations, loop=False
    )
    assert not isinstance(far, str) and not isinstance(stranger, str)
    other = stems.resample(others[0].target, others[0].rate, rate)
    noise = random.standard_normal(len(true)).astype(np.float32)
    return {
        TRUTH: true,
        LOOP: tiled(excerpt, beats),
        FAR: far,
        SILENCE: np.zeros_like(true),
        QUIET: true * np.float32(10**-0.5),
        LOUD: true * np.float32(10**0.3),
        ANYWHERE: shifted(target, excerpt, 37.3 * beat),
        OTHER: np.resize(other, true.shape),
        STRANGER: stranger,
        BEAT: shifted(target, excerpt, beat),
        QUARTER: shifted(target, excerpt, beat / 4),
        LATE: shifted(target, excerpt, 0.07),
        STEADY: baseline_stems.at_level(noise, excerpt.input, level),
        HITS: baseline_stems.noise_hits(excerpt.input, rate, level, excerpt.song.key),
        BLURRED: blurred(excerpt, config),
    }


def calibrate(root: Path, config: Config, seconds: float) -> tuple[dict[str, Any], bool]:
    """Scores of all cases; whether the ranking keeps the whole order."""
    config = dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, seconds=seconds))
    sources = layouts.find_songs(root)
    found = [
        held_out_songs.read_excerpt(held_out_songs.of_source(source, n, config.data.task), config.data, config.evaluate.seconds)
        for n, source in enumerate(sources)
    ]
    found = [excerpt for excerpt in found if excerpt.beats is not None and len(excerpt.truth.windows) >= 8]
    if len(found) < 2:
        raise ValueError(f"{root}: the order is of real songs of {seconds:g} s with drums; it needs two of them")
    measured: dict[str, list[Measured]] = {}
    for number, excerpt in enumerate(found):
        others = [*found[number + 1 :], *found[:number]]
        power = [(o.song.name, pairs.mel_of(o.target, o.rate, config.data), o.beats) for o in others]
        for name, stem in cases(excerpt, others, baseline_stems.Training(power, "", 0.0), config).items():
            measured.setdefault(name, []).append(measure(stem, excerpt.truth))
        print(f"{excerpt.song.name}: {excerpt.beats.bpm:.2f} beats a minute", file=sys.stderr, flush=True)
    real = [excerpt.real for excerpt in found]
    about = descriptors.about_songs([np.array(excerpt.truth.real) for excerpt in found], real)
    certain = descriptors.is_certain(about)
    whole = {name: averages.average([[one] for one in of], real).mean for name, of in measured.items()}
    one_song = {name: [_row(one, real) for one in of] for name, of in measured.items()}

    def score(row: Row, ceiling: Row) -> float:
        value = ranking.score(ranking.families(row, ceiling, pitched=False, distance=certain), config.evaluate)
        assert value is not None
        return value

    scores = {name: score(row, whole[TRUTH]) for name, row in whole.items()}
    single = {
        name: [score(row, truth) for row, truth in zip(rows, one_song[TRUTH], strict=True)] for name, rows in one_song.items()
    }
    names = ("lock8", "f1t_beyond_chance", "ec1", "mmd", "level_error", "flux_ratio", "density_ratio", "onset_f1", "mix_l1")
    print(f"\n{len(found)} songs, the loudest {seconds:g} s of each\n")
    print("| case | score | " + " | ".join(names) + " |\n" + "| --- " * (2 + len(names)) + "|")
    for name in sorted(scores, key=scores.__getitem__, reverse=True):
        values = ["–" if (v := whole[name][n]) is None else f"{v:.2f}" for n in names]
        print(f"| {name} | {scores[name]:.3f} | " + " | ".join(values) + " |")
    print(f"\n{descriptors.in_words(about)}")
    print("\n| order | scores | kept | songs that keep it |\n| --- | --- | --- | --- |")
    broken = 0
    for better, worse in ORDER:
        kept = scores[better] > scores[worse]
        broken += not kept
        of = sum(a > b for a, b in zip(single[better], single[worse], strict=True))
        both = f"{scores[better]:.3f}, {scores[worse]:.3f}"
        print(f"| {better} > {worse} | {both} | {'yes' if kept else 'NO'} | {of} of {len(found)} |")
    print(f"\n{ranking.rule(config.evaluate)}\n")
    print("the ranking keeps the order" if not broken else f"the ranking breaks {broken} of {len(ORDER)} orders")
    return {"scores": scores, "measures": whole, "songs": single}, not broken


def _row(one: Measured, real: list[np.ndarray]) -> Row:
    return averages.average([[one]], [np.concatenate(real)]).mean


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of songs (default: the excerpt inside stempeg, for the cost alone)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each song, for the order")
    parser.add_argument("--weights", default="1,1,1", help="of the three families in the ranking")
    parser.add_argument("--part", choices=("all", "order", "cost"), default="all")
    parser.add_argument("--rounds", type=int, default=3, help="of the measures of time")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    weights = [float(weight) for weight in options.weights.split(",")]
    config = Config(evaluate=Evaluate(time_weight=weights[0], real_weight=weights[1], amount_weight=weights[2]))
    result: dict[str, Any] = {}
    right = True
    if options.data is not None and options.part != "cost":
        result["order"], right = calibrate(options.data, config, options.seconds)
    source = layouts.find_songs(options.data)[0] if options.data else layouts.source_at(musdb18.excerpt_file(), "test")
    if options.part != "order":
        result["cost"] = evaluate_cost.cost(source, config, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    return 0 if right else 1


if __name__ == "__main__":
    console.exit_with(main)

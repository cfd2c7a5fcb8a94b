"""What the measures cost, against each made the plain way; and an evaluation, against an epoch. See evaluate.py."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import auraloss
import librosa
import mir_eval
import numpy as np
import torch

from p2p_dist.audio import layouts, stems
from p2p_dist.audio.invert import mel_to_audio
from p2p_dist.data import pairs
from p2p_dist.evaluate import checkpoints, held_out_songs
from p2p_dist.evaluate.baselines.results import Reference
from p2p_dist.evaluate.held_out_songs import Excerpt
from p2p_dist.evaluate.measures import descriptors, onsets, spectral
from p2p_dist.evaluate.measures.measure import combine, measure, window_rows
from p2p_dist.evaluate.measures.table import onset_f1
from p2p_dist.evaluate.measures.truth import RATE, Stem, onset_times
from p2p_dist.generate import inference
from p2p_dist.model.generator import Generator
from p2p_dist.settings.config import Config
from p2p_dist.settings.presets import preset
from p2p_dist.train import distributed, networks
from p2p_dist.train.step import train_step

MUSDB_SONGS, MUSDB_SECONDS = 86, 4 * 60.0
"""Its training songs without the 14 for validation, and about how long one is."""


def plain_mel(sound: np.ndarray, n_fft: int = 2048, mels: int = 128, **more: Any) -> np.ndarray:
    return librosa.feature.melspectrogram(y=sound, sr=RATE, n_fft=n_fft, hop_length=512, n_mels=mels, **more)


def both(excerpt: Excerpt, config: Config) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Of each measure: ours, beside a truth that is prepared once, and the plain way from the two sounds."""
    truth, data, rate = excerpt.truth, config.data, excerpt.rate
    random = np.random.default_rng(0)
    stem = excerpt.target * np.float32(0.5) + (0.01 * random.standard_normal(excerpt.target.shape)).astype(np.float32)
    made, true, heard = (stems.mono(sound, rate, RATE) for sound in (stem, excerpt.target, excerpt.input))
    picture = pairs.mel_of(excerpt.target, rate, data)
    width = onsets.WINDOW

    def windows(sound: np.ndarray) -> list[np.ndarray]:
        power = plain_mel(sound, 1024, 64, fmin=30.0)
        return [power[:, begin : begin + width] for begin in range(0, power.shape[1] - width + 1, width)]

    def plain_windows(of: Callable[[np.ndarray, np.ndarray], Any]) -> Callable[[], Any]:
        return lambda: [of(onsets.envelope(a), onsets.envelope(b)) for a, b in zip(windows(made), windows(true), strict=True)]

    def f1(a: np.ndarray, b: np.ndarray) -> Any:
        return onsets.beyond_chance(onsets.peaks(b), onsets.peaks(a), 1, len(b))

    def grid(a: np.ndarray, b: np.ndarray) -> Any:
        at = truth.windows[0].grid
        return onsets.on_grid(a, at), onsets.on_grid(b, at)

    def all_windows() -> Any:
        measured = Stem(stem, truth)
        return combine(window_rows(measured)), [descriptors.describe(window.power) for window in measured.windows]

    def plain_all() -> Any:
        for of in (f1, f1, lambda a, b: np.corrcoef(a, b), grid, lambda a, b: a.mean() / b.mean(), lambda a, b: a.sum()):
            plain_windows(of)()
        return [descriptors.describe(power) for sound in (made, true) for power in windows(sound)]

    def plain_onset_f1() -> Any:
        found = [librosa.onset.onset_detect(y=sound, sr=RATE, units="time") for sound in (true, made)]
        return mir_eval.onset.f_measure(*found)

    def plain_l1(a: np.ndarray, b: np.ndarray) -> Any:
        return np.abs(librosa.power_to_db(plain_mel(a)) - librosa.power_to_db(plain_mel(b))).mean()

    sizes = list(spectral.RESOLUTIONS)
    loss = auraloss.freq.MultiResolutionSTFTLoss(sizes, [n // 4 for n in sizes], sizes)

    def native(sound: np.ndarray) -> np.ndarray:
        return librosa.power_to_db(
            librosa.feature.melspectrogram(
                y=sound.mean(axis=1), sr=data.sample_rate, n_fft=data.n_fft, hop_length=data.hop_length, n_mels=data.mels
            )
        )

    samples = -(-len(stem) * data.sample_rate // rate)
    tensors = [torch.from_numpy(np.ascontiguousarray(sound))[None, None] for sound in (made, true)]
    return {
        "in time, amount and descriptors": (all_windows, plain_all),
        "mir_eval's onset F1": (lambda: onset_f1(onset_times(made), truth.onset_times), plain_onset_f1),
        "stem log-mel L1": (
            lambda: spectral.log_mel_l1(spectral.log_mel(spectral.power(made)), truth.stem_mel),
            lambda: plain_l1(made, true),
        ),
        "mix log-mel L1": (
            lambda: spectral.log_mel_l1(spectral.log_mel(spectral.power(heard + made)), truth.mix_mel),
            lambda: plain_l1(heard + made, heard + true),
        ),
        "MR-STFT": (
            lambda: spectral.multi_resolution(spectral.magnitudes(made), truth.magnitudes),
            lambda: loss(*tensors),
        ),
        "chroma": (
            lambda: spectral.chroma_likeness(spectral.chroma(spectral.power(made)), truth.chroma, truth.audible),
            lambda: [librosa.feature.chroma_stft(y=sound, sr=RATE, tuning=0) for sound in (made, true)],
        ),
        "checkerboard": (
            lambda: spectral.checkerboard(pairs.power_to_db(pairs.mel_of(stem, rate, data)), truth.picture),
            lambda: spectral.checkerboard(native(stem), native(excerpt.target)),
        ),
        "all measures": (lambda: measure(stem, truth), lambda: None),
        "sound from a spectrogram": (
            lambda: mel_to_audio(picture, data.sample_rate, data.n_fft, data.hop_length, samples, config.evaluate.iterations),
            lambda: librosa.feature.inverse.mel_to_audio(
                picture, sr=data.sample_rate, n_fft=data.n_fft, hop_length=data.hop_length, n_iter=config.evaluate.iterations
            ),
        ),
    }


def cpu_seconds(work: Callable[[], Any]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def by_measure(excerpt: Excerpt, config: Config, rounds: int) -> dict[str, tuple[float, float]]:
    """CPU seconds of each measure, ours and the plain way, medians of rounds in turn; printed."""
    print(f"\n{excerpt.seconds:.1f} s of sound, CPU seconds, medians of {rounds} rounds in turn\n")
    print("| measure | ours | plain | plain / ours |\n| --- | --- | --- | --- |")
    found = {}
    total = 0.0
    for name, (ours, plain) in both(excerpt, config).items():
        ours(), plain()
        times = [(cpu_seconds(ours), cpu_seconds(plain)) for _ in range(rounds)]
        a, b = (statistics.median(values) for values in zip(*times, strict=True))
        if name == "all measures":
            b = total
        total += b
        found[name] = a, b
        print(f"| {name} | {a:.3f} | {b:.3f} | {b / a:.1f} |", flush=True)
    return found


def of_an_epoch(excerpt: Excerpt, name: str, rounds: int) -> dict[str, float]:
    """Seconds of ten songs of one checkpoint, and of an epoch of MUSDB18 on the same machine; printed.

    On a GPU all ten; on a CPU two of the ten, in CPU time, since wall times of a shared machine say little.
    """
    config = preset(name)
    evaluate = dataclasses.replace(config.evaluate, songs=10)
    timed = 10 if torch.cuda.is_available() else 2
    ten = [
        dataclasses.replace(excerpt, song=dataclasses.replace(excerpt.song, key=f"song-{n}", split="test"))
        for n in range(timed)
    ]
    known = {one.song.key: Reference({}, {}, np.array(one.truth.real).reshape(-1, 41), 0.0) for one in ten}
    torch.manual_seed(0)
    generator = Generator(config.model, config.data.picture_channels)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = inference.build_generator(generator.state_dict(), config.model, config.data.picture_channels, device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    with tempfile.TemporaryDirectory() as folder:
        begun = clock()
        checkpoints.evaluate_generator(Path(folder), 1, generator, ten, known, config.data, evaluate)
        evaluation = (clock() - begun) * 10 / timed
    built = networks.build(config, distributed.Ranks(0, 1, 0, device, None))
    size = config.train.global_batch_size
    shape = (size, config.data.picture_channels, config.data.mels, config.data.frames)
    input, target = (torch.rand(shape, device=device) * 2 - 1 for _ in range(2))
    noise = torch.randn((size, config.model.noise_channels, *shape[2:]), device=device) if config.model.noise_channels else None

    def step() -> None:
        train_step(built, input, target, noise, config.train, 0)
        if device.type == "cuda":
            torch.cuda.synchronize()

    step()
    begun = clock()
    for _ in range(rounds):
        step()
    one = (clock() - begun) / rounds
    hop = config.data.window_hop * config.data.hop_length / config.data.sample_rate
    windows = MUSDB_SONGS * MUSDB_SECONDS / hop
    epoch = one * windows / size
    between = epoch * config.train.keep_every
    print(
        f"\npreset {name} on {device.type}{'' if device.type == 'cuda' else ', CPU time'}: "
        f"ten songs of {excerpt.seconds:.0f} s, "
        f"generations of each: {config.evaluate.seeds}: {evaluation:.1f} s; an epoch of MUSDB18's {MUSDB_SONGS} songs, "
        f"{windows:.0f} windows: {epoch:.0f} s. The evaluation takes {100 * evaluation / epoch:.1f} % of an epoch, "
        f"{100 * evaluation / between:.1f} % of the {config.train.keep_every:g} between two that are evaluated."
    )
    return {"evaluation_seconds": evaluation, "epoch_seconds": epoch, "share": evaluation / epoch}


def cost(source: layouts.Source, config: Config, rounds: int) -> dict[str, Any]:
    """Both tables, of one song."""
    song, seconds = held_out_songs.of_source(source, 0, config.data.task), config.evaluate.seconds
    found: dict[str, Any] = {"measures": by_measure(held_out_songs.read_excerpt(song, config.data, seconds), config, rounds)}
    name = "plain" if torch.cuda.is_available() else "small"
    measured = held_out_songs.measured_seconds(config.evaluate, 10)
    found["epoch"] = {
        name: of_an_epoch(held_out_songs.read_excerpt(song, config.data, seconds, measured=measured), name, rounds)
    }
    return found

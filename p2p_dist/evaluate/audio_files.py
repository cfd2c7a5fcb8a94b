"""Measure audio files of any program: three folders of inputs, outputs and targets with the same file names."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from p2p_dist.audio import layouts, wav
from p2p_dist.audio.invert import mel_to_audio, stem_for
from p2p_dist.audio.stems import LOUDEST, check_length, mono
from p2p_dist.common import console, file_names, files
from p2p_dist.data.pairs import mel_of
from p2p_dist.evaluate.baselines.baseline_stems import CEILING, COPY, SILENCE
from p2p_dist.evaluate.held_out_songs import beats_of
from p2p_dist.evaluate.measures import averages, descriptors, spectral
from p2p_dist.evaluate.measures.measure import Measured, measure
from p2p_dist.evaluate.measures.table import label
from p2p_dist.evaluate.measures.truth import RATE, Truth
from p2p_dist.settings.config import Data

FOLDERS = ("input", "output", "target")

_PICTURES = Data(sample_rate=RATE, n_fft=2048, hop_length=512, mels=256)
"""Settings of the thesis's spectrograms, used because the files' origin is unknown."""

_ITERATIONS = 32


def measure_files(pattern: str, *, mixes: bool, best_gain: bool) -> dict[str, Any]:
    """Measure every output beside copying the input, silence and the ceiling.

    Args:
        pattern: DIR/{input,output,target}/*.wav.
        mixes: outputs and targets contain the input. best_gain: scale each output to the level of its target.

    Raises:
        ValueError: the pattern is invalid, files do not match, or one can't be measured. The message says what to do.
    """
    songs: dict[str, dict[str, Measured]] = {}
    real = []
    triples = find_triples(str(files.expanded(pattern)))
    with console.Progress("measure", len(triples)) as progress:
        for done, (key, paths) in enumerate(triples.items(), 1):
            (input, output, target), rate = _read(paths)
            beats = beats_of(target if mixes else input + target, rate, drums=True)
            truth = Truth(target, input, rate, beats, _PICTURES, mixes=mixes)
            stems = {COPY: input, SILENCE: np.zeros_like(target), CEILING: _ceiling(target, rate), "output": output}
            if mixes:  # silence is not a mix
                del stems[SILENCE]
            songs[key] = {
                name: measure(_scaled(stem, truth) if best_gain and name != CEILING else stem, truth)
                for name, stem in stems.items()
            }
            real.append(np.array(truth.real).reshape(-1, descriptors.SIZE))
            progress.update(done, key)
    mean, absent = {}, {}
    for name in next(iter(songs.values())):
        whole = averages.average([[song[name]] for song in songs.values()], real)
        mean[name] = whole.mean
        if name == "output":
            absent = {label(measure_name): why for measure_name, why in whole.absent.items()}
    rows = {key: {name: one.row for name, one in song.items()} for key, song in songs.items()}
    said = ["", "the other baselines are made of the training songs of a run"]
    return {"songs": rows, "mean": mean, "absent": absent, "said": said, "distance": descriptors.about_songs(real, real)}


def find_triples(pattern: str) -> dict[str, dict[str, Path]]:
    """Match files by name: common name -> folder -> file.

    Names are equal in all folders, or differ only in the name of the folder: 30_input.wav, 30_output.wav, 30_target.wav.
    """
    braces = [part for part in re.findall(r"\{([^{}]*)\}", pattern) if sorted(part.split(",")) == sorted(FOLDERS)]
    if len(braces) != 1:
        raise ValueError(
            f"--files {pattern!r}: write it in quotes, with {{input,output,target}} once: 'DIR/{{input,output,target}}/*.wav'"
        )
    matching: dict[str, list[Path]] = {}
    for folder in FOLDERS:
        here = pattern.replace("{" + braces[0] + "}", folder)
        matching[folder] = matching_files(Path(here))
        if not matching[folder]:
            raise ValueError(f"no file matches {here}")
    stems = [sorted(path.stem for path in paths) for paths in matching.values()]
    equal = all(names == stems[0] for names in stems)  # then the name of a folder is part of the title
    found: dict[str, dict[str, Path]] = {}
    for folder, matched in matching.items():
        for path in matched:
            file_names.check_utf8(path)
            key = path.stem if equal else re.sub(rf"[\s._-]*{folder}", "", path.stem) or path.stem
            if folder in found.setdefault(key, {}):
                raise ValueError(f"{found[key][folder]} and {path}: two {folder} files with the same name")
            found[key][folder] = path
    for key, paths in found.items():
        if missing := [folder for folder in FOLDERS if folder not in paths]:
            there = next(iter(paths.values()))
            raise ValueError(f"{there} has no {' and no '.join(missing)} of the same name ({key}): the folders must match")
    return found


def matching_files(pattern: Path) -> list[Path]:
    """Return the files that match a pattern with *, ?, [ ] and ** (folders at any depth), sorted.

    A component that exists literally is not treated as a pattern, because a folder may be called `takes [live]`.
    """
    found = [Path(pattern.anchor)]
    for part in pattern.relative_to(pattern.anchor).parts:
        wider = []
        for folder in found:
            if os.path.lexists(folder / part):
                wider.append(folder / part)
            elif glob.has_magic(part):
                wider += [folder] if part == "**" else []
                names = glob.glob(part, root_dir=folder, recursive=True)  # noqa: PTH207
                wider += [folder / name for name in names if not any(map(layouts.is_passed_over, Path(name).parts))]
        found = wider
    return sorted({path for path in found if path.is_file()})


def _read(paths: dict[str, Path]) -> tuple[list[np.ndarray], int]:
    """Read input, output and target, each (samples, channels), and their rate."""
    sounds, rates = {}, {}
    for folder in FOLDERS:
        try:
            with soundfile.SoundFile(wav.whole(paths[folder])) as opened:
                check_length(paths[folder], opened)
                sounds[folder], rates[folder] = opened.read(dtype="float32", always_2d=True), opened.samplerate
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{paths[folder]}: can't be read as audio ({error.error_string})") from error
        except OSError as error:
            raise ValueError(f"{paths[folder]}: can't be read ({error.strerror})") from error
        if not np.isfinite(sounds[folder]).all():
            raise ValueError(f"{paths[folder]}: contains NaN or infinite samples")
        if len(sounds[folder]) and (peak := float(np.abs(sounds[folder]).max())) > LOUDEST:
            raise ValueError(f"{paths[folder]}: contains samples up to {peak:.3g} times full scale, which are not audio")
    for what, values in (("rate in Hz", rates), ("length in samples", {f: len(s) for f, s in sounds.items()})):
        if len(set(values.values())) > 1:
            listed = ", ".join(f"{paths[folder]} {value}" for folder, value in values.items())
            raise ValueError(f"the files differ in {what}: {listed}")
    if not len(sounds["target"]):
        raise ValueError(f"{paths['target']}: no samples")
    if not sounds["target"].any():
        raise ValueError(f"{paths['target']} is silent, so {paths['output']} cannot be measured against it")
    for folder in ("input", "output"):
        if not sounds[folder].any():
            console.complain(f"warning: {paths[folder]} is silent")
    channels = {sound.shape[1] for sound in sounds.values()}
    if len(channels) > 1:  # measures use the mean of the channels
        sounds = {folder: sound.mean(axis=1, keepdims=True) for folder, sound in sounds.items()}
    return [sounds[folder] for folder in FOLDERS], rates["target"]


def _scaled(stem: np.ndarray, truth: Truth) -> np.ndarray:
    if not stem.any():
        return stem
    made = spectral.log_mel(spectral.power(mono(stem, truth.rate, RATE)))
    return stem * np.float32(10 ** (spectral.best_gain(made, truth.stem_mel) / 20))


def _ceiling(target: np.ndarray, rate: int) -> np.ndarray:
    """Return the target converted to the thesis's spectrogram and back."""
    data = _PICTURES
    samples = -(-len(target) * data.sample_rate // rate)
    power = mel_of(target, rate, data)
    sound = mel_to_audio(power, data.sample_rate, data.n_fft, data.hop_length, samples, _ITERATIONS)
    return stem_for(target, rate, sound, data.sample_rate)

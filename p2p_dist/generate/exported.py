"""Write a trained generator as a folder that can be used without this program, and read such a folder.

DIR/model.safetensors   the weights, float32 or float16, with the parameter names of model/generator.py
DIR/config.json         all settings needed to run them: task, spectrogram, scaling, network; `notes` explains them
DIR/README.md           the model card
DIR/drummer.json, pattern.safetensors, strokes.safetensors   of a model with a sketch: its drummer, see drummer.py
DIR/model.pt2           optional: the network as a program of torch.export, see program.py

tests/generate/run_exported.py runs such a folder with torch and safetensors only. An exported folder is untrusted input: only
config.json, model.safetensors and the files of the drummer are opened, all are checked, and nothing is unpickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from p2p_dist import __version__
from p2p_dist.common import files, records, schemas
from p2p_dist.common.files import DamagedError
from p2p_dist.data.pairs import CEILING, FLOOR, LOUDEST_SHARE, LOWEST_REFERENCE
from p2p_dist.generate import drummer, drummer_record, exported_config, exported_drummer, inference, program
from p2p_dist.generate.exported_config import CONFIG, CURE, DRUMMER, FORMAT, GUIDED, LATER, NETWORK, SPECTROGRAM, WEIGHTS
from p2p_dist.generate.model import Model
from p2p_dist.model.generator import BATCH_NORM_EPSILON, OPEN, POWER, Generator
from p2p_dist.settings import config
from p2p_dist.settings.tasks import parse_task

CARD, PROGRAM = "README.md", "model.pt2"
_CPU = torch.device("cpu")


def check_out(out: Path, *, overwrite: bool) -> None:
    """Check that an export can be written to the folder `out`. Call this before anything is read or computed.

    Raises:
        ValueError: it exists or is a link; with `overwrite`, it contains anything other than an exported model.
        OSError: it can't be created.
    """
    files.refuse_link(out)
    if not out.exists():
        files.check_can_be_written(out)
        return
    if not overwrite:
        raise ValueError(f"{out} exists: name another folder, or replace it with --overwrite")
    if not out.is_dir():
        raise ValueError(f"{out} is not a folder: it is not overwritten; name another")
    others = sorted(path.name for path in out.iterdir() if path.name not in (CONFIG, WEIGHTS, CARD, PROGRAM, *DRUMMER))
    if others:
        raise ValueError(
            f"{out} also holds {others[0]!r}, which export did not write: it is not overwritten; name another folder"
        )
    try:
        exported_config.read_config(out)
    except ValueError as error:
        raise ValueError(f"{error}: it is not overwritten; name another folder") from error
    files.check_can_be_written(out)


def export(
    model: Model, iterations: int, out: Path, card: Callable[[dict[str, Any]], str], *, half: bool, torch_export: bool
) -> dict[str, Any]:
    """Write an exported model with a single rename. An earlier one at `out` is replaced. Call `check_out` first.

    Args:
        iterations: Griffin-Lim iterations, as in the evaluations of the run.
        card: returns the text of README.md, given the content of config.json.
        half: write the weights in float16. torch_export: also write model.pt2, which computes in float32.

    Returns:
        the content of config.json.

    Raises:
        ValueError: a weight is too large for float16.
    """
    assert model.weights is not None
    kept = {name: tensor.half() if half else tensor.float() for name, tensor in model.weights.items()}
    if not all(bool(tensor.isfinite().all()) for tensor in kept.values()):
        raise ValueError(f"weights of {model.name} are too large for float16: export it without --half")
    data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in kept.items()}, {"format": "pt"})
    rounded = dataclasses.replace(model, weights={name: tensor.float() for name, tensor in kept.items()})
    content = _describe(rounded, iterations)
    content["weights"] = {
        "dtype": "float16" if half else "float32",
        "parameters": sum(tensor.numel() for tensor in kept.values()),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "checkpoint_sha256": model.sha256,
    }
    content["program"] = {"file": PROGRAM, "torch": torch.__version__} if torch_export else None
    if wrong := records.wrong(content, schemas.EXPORTED.shape):
        raise ValueError(f"{model.name} can't be exported: {wrong}")
    made = program.export(generator, model.data) if torch_export and (generator := rounded.generator(_CPU)) else None
    text = card(content)
    aside = files.temporary_beside(out)
    with _put_back(aside, out), files.new_folder(out) as temporary:
        (temporary / WEIGHTS).write_bytes(data)
        if made is not None:
            (temporary / PROGRAM).write_bytes(made)
        if model.drummer is not None:
            drummer.save(temporary, model.drummer)
        (temporary / CARD).write_text(text, encoding="utf-8")
        records.write(temporary / CONFIG, schemas.EXPORTED, content)
        if out.exists():
            check_out(out, overwrite=True)  # again: it may have changed since the first check
            out.rename(aside)
    files.remove_tree(aside)
    return content


@contextmanager
def _put_back(aside: Path, out: Path) -> Iterator[None]:
    """On an error, rename the earlier export from `aside` back to `out`. An error without a file name gets that of `out`."""
    try:
        yield
    except BaseException as error:
        if aside.exists() and not out.exists():
            aside.rename(out)
        if isinstance(error, OSError):
            files.add_name(error, out)
        raise


def _describe(model: Model, iterations: int) -> dict[str, Any]:
    heard, made = parse_task(model.task)
    return {
        "format": FORMAT,
        "name": model.name.rpartition("@")[0] or model.name,
        "step": model.step,
        "task": {"name": model.task, "heard": list(heard), "made": list(made)},
        **_sections(model.data, model.model),
        "inversion": {"method": "Griffin-Lim with momentum 0.99", "iterations": iterations},
        "notes": _notes(model),
        "versions": {
            "p2p_dist": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("torch", "numpy", "safetensors")},
        },
    }


def _sections(data: config.Data, model: config.Model) -> dict[str, Any]:
    """The sections of config.json that a network depends on: settings, and what this version does without asking.

    What is read must be equal to them: with a value that this version does not support, the sound would silently differ.
    """
    by_song = data.representation == "default"
    return {
        "spectrogram": {
            **{name: getattr(data, name) for name in SPECTROGRAM},
            "window": "hann",
            "centred": True,
            "padding": "zeros",
            "power": 2,
            "mel_scale": "slaney",
            "mel_norm": "slaney",
            "lowest_hz": 0,
            "highest_hz": data.sample_rate / 2,
        },
        "scaling": {
            "floor_db": FLOOR,
            "ceiling_db": CEILING[data.representation],
            "reference": "quantile of the song's input" if by_song else "maximum of the window",
            "quantile": LOUDEST_SHARE if by_song else None,
            "lowest_reference": LOWEST_REFERENCE if by_song else None,
            "network_low": -1,
            "network_high": 1,
        },
        "network": {
            **{name: getattr(model, name) for name in (*NETWORK, *(GUIDED if model.sketch else ()))},
            **{name: True for name in LATER if getattr(model, name)},
            "pictures": data.picture_channels,
            "norm_groups": 8 if model.norm == "group" else None,
            "norm_epsilon": 1e-5 if model.norm == "group" else BATCH_NORM_EPSILON,
            "dropout_layers": [f"up.{number}" for number in range(min(3, model.depth - 1))],
        },
    }


def _notes(model: Model) -> dict[str, str]:
    """Return the notes in config.json, which are for people only."""
    by_song = model.data.representation == "default"
    notes = {
        "input": "(windows, pictures, mels, frames): mel power of the mean of the channels (mono) or of mid and side, in dB "
        "over the reference, clipped to floor_db .. ceiling_db, scaled to -1 .. 1. A window begins every window_hop frames; "
        "where windows overlap, the power of their outputs is cross-faded.",
        "output": "shaped and scaled like the input; "
        + (
            "the stem, over the same reference."
            if by_song
            else "the mix with the stem, whose power over the input's is the stem."
        ),
        "reference": "the power that is 0 dB: the quantile of all values of the song's mel power, at least lowest_reference."
        if by_song
        else "the power that is 0 dB: the largest of each window, of which every one is transformed by itself.",
        "norm": "group norm; groups: the greatest common divisor of norm_groups and the channels."
        if model.model.norm == "group"
        else "each channel of each window by itself, over its mels and frames; 1 x 1 values become the bias.",
        "noise": "noise_channels further channels after the input's, from N(0, 1): (noise_channels, mels, frames of the song), "
        "drawn once for a song and cut like its windows, so that windows agree where they overlap."
        if model.model.noise_channels
        else "none is joined to the input.",
        "dropout": "active in generation too: torch.nn.functional.dropout(x, dropout, training=True) after the norm of each of "
        "dropout_layers, in this order, for "
        + (f"up to {inference.BATCH} windows together." if model.model.norm == "group" else "one window after the other.")
        if model.model.dropout
        else "none.",
        "layers": "down.N: convolution 4x4, stride 2, no bias, norm (not in down.0), leaky ReLU. up.N: doubling, norm, "
        "drop-out, ReLU, then the output of the down layer of the same size is joined to it. last: doubling with bias, tanh. "
        "Doubling: nearest neighbour and a convolution 3x3 (nearest; folded: the same, which one transposed convolution can "
        "compute), or a transposed one 4x4 of stride 2 (transposed).",
    }
    if model.model.sketch:
        phase = ", then sine and cosine of the place in the beat, the same in all bands" if model.model.beat_phase else ""
        notes["guide"] = (
            "further channels after the noise's: the picture of the sketch, made of sound like the input and over its "
            f"reference{phase}; the sketch is what the drummer plays, see p2p_dist/generate/drummer.py."
        )
    if model.model.residual:
        notes["residual"] = (
            "r, the output of tanh, moves the sketch s: s + g (max(r, 0) (1 - s) + min(r, 0) (1 + s)), where g is "
            f"min((m + 1) / {OPEN}, 1) and m the largest value of the sketch in that frame."
        )
    if model.model.residual and model.model.keep_level:
        notes["level"] = (
            f"then g d is added, and the result is clipped to -1 .. 1. The power of a bin x is 10 ** ({POWER} (x - 1)), and "
            f"d = log10(p / q) / {POWER}, with p the mean power of the window of the sketch, and q that of the moved sketch."
        )
    return notes


def read_exported(folder: Path) -> Model:
    """Load the model in an exported folder, which may come from anybody.

    Raises:
        ValueError: no such folder, not an exported model, or one of a newer version.
        DamagedError: a file has changed since it was written, or the files do not fit together. The message names the file.
    """
    content = exported_config.read_config(folder)
    if content["format"] == exported_config.DRUMMER_FORMAT:
        return exported_drummer.read(folder, content)
    data, model = _settings_of(content, folder / CONFIG)
    weights = _read_weights(folder / WEIGHTS, content["weights"], model, data.picture_channels)
    name = f"{content['name']}@{content['step']}"
    drums = drummer.load(folder, data, model) if model.sketch else None
    by = drummer_record.sha256(folder) if model.sketch else None
    return Model(name, data.task, content["step"], content["weights"]["sha256"], data, model, weights, drums, by)


def _settings_of(content: dict[str, Any], path: Path) -> tuple[config.Data, config.Model]:
    """Read the settings in config.json, checked like those of a run.

    Raises:
        DamagedError: the settings are invalid. ValueError: this version does not support them.
    """
    settings = exported_config.settings_of(content, path)
    data, model = settings.data, settings.model
    for section, wanted in _sections(data, model).items():
        found = content[section]
        for name in sorted(wanted.keys() | found.keys()):
            if name not in found or name not in wanted or found[name] != wanted[name]:
                has = f"is {found[name]!r:.60}" if name in found else "is missing"
                knows = f"only {wanted[name]!r}" if name in wanted else "no such name"
                raise ValueError(
                    f"{path}: {section}.{name} {has}; version {__version__} of p2p_dist supports {knows}: use the "
                    f"version that wrote it, {str(content['versions'].get('p2p_dist'))[:20]}"
                )
    return data, model


def _read_weights(path: Path, about: dict[str, Any], model: config.Model, pictures: int) -> dict[str, torch.Tensor]:
    """Return the weights as float32, by name. Read whole: a memory map crashes if the file is truncated meanwhile."""
    exported_config.check_weights(path, about)
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != about["sha256"]:
        raise DamagedError(f"{path} is damaged: its sha256 is not the one in {CONFIG}; {CURE}")
    try:
        weights = safetensors.torch.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise DamagedError(f"{path} can't be read as weights ({error}); {CURE}") from error
    with torch.device("meta"):  # names and shapes only: untrusted settings could ask for too much memory
        wanted = {name: tensor.shape for name, tensor in Generator(model, pictures).state_dict().items()}
    dtype = {"float32": torch.float32, "float16": torch.float16}[about["dtype"]]
    for name in sorted(wanted.keys() | weights.keys()):
        if name not in weights or name not in wanted:
            which = "has no" if name not in weights else "has a"
            raise DamagedError(f"{path} {which} tensor {name!r:.80}, unlike the network in {CONFIG}; {CURE}")
        tensor = weights[name]
        if tensor.shape != wanted[name] or tensor.dtype != dtype:
            found = f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
            expected = f"{about['dtype']} {tuple(wanted[name])}"
            raise DamagedError(f"{path}: {name} is {found}, but the network in {CONFIG} needs {expected}; {CURE}")
        if not bool(tensor.isfinite().all()):
            raise DamagedError(f"{path}: {name} contains values that are not finite; {CURE}")
    return {name: tensor.float() for name, tensor in weights.items()}

"""Read config.json of an exported folder, which is untrusted; see exported.py. For login nodes: no torch, no numpy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from p2p_dist.common import records, schemas
from p2p_dist.common.files import DamagedError
from p2p_dist.generate import drummer_record
from p2p_dist.settings import config

CONFIG, WEIGHTS = "config.json", "model.safetensors"

SPECTROGRAM = ("representation", "sample_rate", "n_fft", "hop_length", "mels", "frames", "window_hop", "channels")
"""The settings of `Data` that are needed to run a network. The others select the training data."""

NETWORK = ("channels", "max_channels", "depth", "upsample", "norm", "dropout", "noise_channels", "leaky_slope")
"""The settings of `config.Model` that are needed. The others belong to the discriminator."""

GUIDED = ("sketch", "beat_phase", "residual")
"""Further settings of a network with a sketch. Those of other networks are not in config.json."""

DRUMMER = (drummer_record.NAME, drummer_record.PATTERN, drummer_record.STROKES)
"""Files of the drummer of a network with a sketch, see drummer.py."""

FORMAT = "p2p_dist-generator"
CURE = "export it again, or download it again"

_LARGEST = 1 << 20  # bytes; a valid file has a few thousand


def is_exported(folder: Path) -> bool:
    """Whether launch/export.py made this folder, even if it is damaged now. The folder of a run has no such files."""
    return any(os.path.lexists(folder / name) for name in (CONFIG, WEIGHTS))


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json.

    Raises:
        ValueError: no such folder, no exported model, or one of a newer version. DamagedError: it is not what was written.
    """
    path = folder / CONFIG
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; name a folder that export wrote, or a run")
    if path.is_file() and path.stat().st_size > _LARGEST:
        raise DamagedError(f"{path} is too large for the settings of a model; {CURE}")
    try:
        content: dict[str, Any] = records.read(path, {"format?": str}, CURE)
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} is not an exported model: it has no {CONFIG}; name a folder that export wrote, or a run"
        ) from error
    if content.get("format") != FORMAT:
        raise ValueError(
            f'{path} is the config of another kind of model: its "format" is not "{FORMAT}"; name a folder that export wrote'
        )
    found: dict[str, Any] = records.read(path, schemas.EXPORTED, CURE)
    return found


def settings_of(content: dict[str, Any], path: Path) -> config.Config:
    """Read the settings in config.json, checked like those of a run.

    Raises:
        DamagedError: there can be no such settings.
    """
    spectrogram, network = content["spectrogram"], content["network"]
    guided = {name: network[name] for name in GUIDED if name in network}
    try:
        data = config.Data(task=content["task"]["name"], **{name: spectrogram[name] for name in SPECTROGRAM})
        return config.Config(data=data, model=config.Model(**{name: network[name] for name in NETWORK}, **guided))
    except ValueError as error:
        raise DamagedError(f"{path} is damaged: {error}; {CURE}") from error


def check_weights(path: Path, about: dict[str, Any]) -> None:
    """Check that the file of the weights exists and has the size recorded in config.json.

    Raises:
        DamagedError: they are not.
    """
    if not path.is_file():
        raise DamagedError(f"{path} is missing or not a regular file; {CURE}")
    if path.stat().st_size != about["bytes"]:
        raise DamagedError(f"{path} has {path.stat().st_size} bytes, not the {about['bytes']} that {CONFIG} gives; {CURE}")

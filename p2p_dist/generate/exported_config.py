"""Find exported folders, and read their config.json, which is untrusted; see exported.py and exported_drummer.py.

For login nodes: no torch, no numpy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from p2p_dist.common import files, records, schemas
from p2p_dist.common.files import DamagedError
from p2p_dist.generate import drummer_record
from p2p_dist.run import checkpoints, rundir
from p2p_dist.settings import config

CONFIG, WEIGHTS = "config.json", "model.safetensors"

SPECTROGRAM = ("representation", "sample_rate", "n_fft", "hop_length", "mels", "frames", "window_hop", "channels")
"""The settings of `Data` that are needed to run a network. The others select the training data."""

NETWORK = ("channels", "max_channels", "depth", "upsample", "norm", "dropout", "noise_channels", "leaky_slope")
"""The settings of `config.Model` that are needed. The others belong to the discriminator."""

GUIDED = ("sketch", "beat_phase", "residual")
"""Further settings of a network with a sketch. Those of other networks are not in config.json."""

LATER = (*schemas.PLAYING, "keep_level")
"""Optional settings of a network with a sketch: config.json contains only those that are on."""

DRUMMER = (drummer_record.NAME, drummer_record.PATTERN, drummer_record.STROKES)
"""Files of the drummer of a network with a sketch, see drummer.py."""

FORMAT, DRUMMER_FORMAT = "p2p_dist-generator", "p2p_dist-drummer"
"""The second is that of a model without a generator: its drummer plays the stem itself."""

STARTER = "starter"
"""Name of the model that comes with the package."""

STARTER_FOLDER = Path(__file__).parent / STARTER
CURE = "export it again, or download it again"

_LARGEST = 1 << 20  # bytes; a valid file has a few thousand


def folder_of(name: str | None) -> Path | None:
    """Return the exported folder that a name means; None if it means a run.

    Args:
        name: the path of an exported folder; `starter`, unless a run has this name; or None, which is the newest run, and the
            starter where no run has a checkpoint.
    """
    if name is None:
        return None if checkpoints.newest_run() is not None else STARTER_FOLDER
    folder = files.expanded(name)
    if is_exported(folder):
        return folder
    if "/" in name and not folder.is_dir() and folder.parent.resolve() != rundir.runs_root():
        raise ValueError(f"{folder}: no such folder; name a folder that export wrote, or a run")
    return STARTER_FOLDER if name == STARTER and not rundir.find(name).config.is_file() else None


@contextmanager
def starter_named(folder: Path) -> Iterator[None]:
    """Say of an error in the starter's folder that it is the package that is damaged."""
    try:
        yield
    except ValueError as error:
        if folder != STARTER_FOLDER:
            raise
        cure = "install p2p_dist again, or name a model with --model"
        raise DamagedError(f"the starter model of this installation can't be used ({error}): {cure}") from error


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
    kinds = {FORMAT: schemas.EXPORTED, DRUMMER_FORMAT: schemas.EXPORTED_DRUMMER}
    if (kind := kinds.get(content.get("format", ""))) is None:
        raise ValueError(
            f'{path} is the config of another kind of model: its "format" is not "{FORMAT}"; name a folder that export wrote'
        )
    found: dict[str, Any] = records.read(path, kind, CURE)
    return found


def settings_of(content: dict[str, Any], path: Path) -> config.Config:
    """Read the settings in config.json, checked like those of a run.

    Raises:
        DamagedError: there can be no such settings.
    """
    if content["format"] == DRUMMER_FORMAT:
        data = config.Data(task=content["task"]["name"], sample_rate=content["stem"]["sample_rate"])
        playing = {name: content["stem"].get(name, False) for name in schemas.PLAYING}
        return config.Config(data=data, model=config.Model(sketch=True, **playing))
    spectrogram, network = content["spectrogram"], content["network"]
    guided = {name: network[name] for name in (*GUIDED, *LATER) if name in network}
    try:
        data = config.Data(task=content["task"]["name"], **{name: spectrogram[name] for name in SPECTROGRAM})
        return config.Config(data=data, model=config.Model(**{name: network[name] for name in NETWORK}, **guided))
    except ValueError as error:
        raise DamagedError(f"{path} is damaged: {error}; {CURE}") from error


def check_files(folder: Path, content: dict[str, Any]) -> str:
    """Check that the file that config.json names is there; return the sha256 that identifies the model.

    Raises:
        DamagedError: it is not.
    """
    if content["format"] == FORMAT:
        check_weights(folder / WEIGHTS, content["weights"])
        return str(content["weights"]["sha256"])
    path, sha256 = folder / DRUMMER[0], str(content["drummer"]["sha256"])
    check_weights(path, content["drummer"])
    if files.sha256_file(path) != sha256:
        raise DamagedError(f"{path} is damaged: its sha256 is not the one in {CONFIG}; {CURE}")
    return sha256


def check_weights(path: Path, about: dict[str, Any]) -> None:
    """Check that the file of the weights exists and has the size recorded in config.json.

    Raises:
        DamagedError: they are not.
    """
    if not path.is_file():
        raise DamagedError(f"{path} is missing or not a regular file; {CURE}")
    if path.stat().st_size != about["bytes"]:
        raise DamagedError(f"{path} has {path.stat().st_size} bytes, not the {about['bytes']} that {CONFIG} gives; {CURE}")

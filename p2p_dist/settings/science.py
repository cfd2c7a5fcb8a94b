"""Compare the science settings of runs and datasets by value, and with records of earlier versions.

Settings are not compared by a digest over all fields, because every new field would change it. A field that a record does not
have has the value that the version that wrote the record used: see `implied`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from p2p_dist.common import console, files
from p2p_dist.settings.config import Config, Data

FROZEN: dict[str, Any] = {
    "data.task": "drums",
    "data.representation": "default",
    "data.sample_rate": 44100,
    "data.n_fft": 2048,
    "data.hop_length": 512,
    "data.mels": 128,
    "data.frames": 256,
    "data.window_hop": 128,
    "data.channels": "mono",
    "data.silent_share": 1.0,
    "data.copies": 0,
    "data.seed": 0,
    "model.channels": 64,
    "model.max_channels": 1024,
    "model.depth": 5,
    "model.upsample": "nearest",
    "model.norm": "group",
    "model.dropout": 0.0,
    "model.noise_channels": 1,
    "model.leaky_slope": 0.2,
    "model.discriminator_channels": 64,
    "model.discriminator_norm": "spectral",
    "train.epochs": 100,
    "train.steps": None,
    "train.global_batch_size": 64,
    "train.learning_rate": 2e-4,
    "train.beta1": 0.5,
    "train.epsilon": 1e-8,
    "train.adversarial_loss": "hinge",
    "train.l1_weight": 20.0,
    "train.difference_weight": 0.5,
    "train.feature_weight": 10.0,
    "train.ema": 0.999,
    "train.seed": 0,
    "train.precision": "auto",
    "train.gradient_precision": "fp32",
    "train.checkpoint_every": 1000,
    "train.keep_last": 2,
    "train.keep_every": 5,
    "evaluate.split": "test",
    "evaluate.songs": 10,
    "evaluate.seconds": 30.0,
    "evaluate.iterations": 32,
    "evaluate.seeds": 2,
    "evaluate.time_weight": 1.0,
    "evaluate.real_weight": 1.0,
    "evaluate.amount_weight": 1.0,
}
"""The science settings of version 0.1 and their defaults; every record of settings contains them. Never change this table: the
names of datasets and the digests in records of version 0.1 depend on it. Later settings are not added here."""


def implied(entry: dataclasses.Field[Any]) -> Any:
    """Return the value of a setting that was added after version 0.1 in older records: that of `added`, else its default."""
    return entry.metadata.get("implied", entry.default)


def rows(part: Any, where: str = "", *, resources: bool = False) -> list[tuple[str, dataclasses.Field[Any], Any]]:
    """Return name (such as `train.seed`), field and value of each science setting; with `resources`, of every setting."""
    found: list[tuple[str, dataclasses.Field[Any], Any]] = []
    for entry in dataclasses.fields(part):
        value, full = getattr(part, entry.name), where + entry.name
        if resources or not (entry.metadata.get("resource") or full == "preset"):
            nested = dataclasses.is_dataclass(value)
            found += rows(value, full + ".", resources=resources) if nested else [(full, entry, value)]
    return found


def recorded(part: Config | Data) -> dict[str, Any]:
    """Return the science settings for a record: `{'train.seed': 0, ...}`; of `Data` alone without the prefix `data.`

    Settings that were added after version 0.1 are left out if they have the value that older records imply.
    """
    prefix = "data." if isinstance(part, Data) else ""
    return {name: value for name, entry, value in rows(part) if prefix + name in FROZEN or value != implied(entry)}


def differences(before: dict[str, Any], now: Config | Data) -> list[str]:
    """Return the differences between recorded and current settings, named as options are: `train.l1-weight: 20.0 -> 10.0`.

    Args:
        before: the result of `recorded`, possibly of another version. A setting unknown to this version is a difference.
    """
    prefix = "data." if isinstance(now, Data) else ""
    found, known = [], set()
    for name, entry, value in rows(now):
        known.add(name)
        old = before[name] if name in before else FROZEN.get(prefix + name, implied(entry))
        if old != value:
            found.append(f"{name.replace('_', '-')}: {console.one_line(str(old))} -> {value}")
    unknown = sorted(before.keys() - known)
    return found + [f"{console.one_line(f'{name}: {before[name]}')} -> unknown to this version" for name in unknown]


def changed(data: Data) -> dict[str, Any]:
    """Return the data settings with a value that is neither that of `FROZEN` nor implied; dataset names depend on them."""
    return {name: value for name, entry, value in rows(data) if value != FROZEN.get(f"data.{name}", implied(entry))}


def digest_of_version_0_1(now: Config | Data) -> str:
    """Return the digest that records of version 0.1 contain instead of settings, 12 hexadecimal digits."""
    return files.digest(recorded(now))[:12]


def are_those(before: dict[str, Any] | str, now: Config | Data) -> list[str]:
    """Return the differences between recorded and current settings; a record of version 0.1 contains only their digest."""
    if isinstance(before, dict):
        return differences(before, now)
    wanted = digest_of_version_0_1(now)
    return [] if before == wanted else [f"settings {before} -> {wanted}"]

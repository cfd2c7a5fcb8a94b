"""The presets, settings to and from YAML, and the differences between two settings."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from pathlib import Path
from typing import Any

import yaml

from p2p_dist.common import yaml_file
from p2p_dist.settings import science, values
from p2p_dist.settings.config import Config, Data, Evaluate, Model, Train


def _thesis() -> Config:
    return Config(
        preset="thesis",
        data=Data(representation="thesis", sample_rate=22050, n_fft=2048, hop_length=512, mels=256, frames=256, window_hop=255),
        model=Model(
            max_channels=512,
            depth=8,
            upsample="transposed",
            norm="batch",
            dropout=0.5,
            noise_channels=0,
            leaky_slope=0.3,
            discriminator_norm="batch",
        ),
        train=Train(
            epochs=None,
            steps=3_000_000,
            global_batch_size=1,
            epsilon=1e-7,
            adversarial_loss="bce",
            l1_weight=100.0,
            difference_weight=0.0,
            feature_weight=0.0,
            ema=0.0,
            precision="fp32",
            checkpoint_every=10_000,
            keep_every=25,
        ),
    )


_SMALL_NETS = Model(channels=16, max_channels=64, depth=4, discriminator_channels=16)

PRESETS: dict[str, Config] = {
    "default": Config(),
    "small": Config(
        preset="small",
        model=Model(channels=24, max_channels=192, discriminator_channels=24),
        train=Train(epochs=8, global_batch_size=8, ema=0.99, checkpoint_every=100, keep_every=2, log_every=10),
    ),
    "demo": Config(
        preset="demo",
        data=Data(frames=128, window_hop=64),
        model=_SMALL_NETS,
        train=Train(
            epochs=None,
            steps=90,
            global_batch_size=4,
            learning_rate=1e-3,
            ema=0.9,
            checkpoint_every=15,
            keep_every=15,
            log_every=5,
        ),
        evaluate=Evaluate(iterations=16, seeds=1),
    ),
    "tiny": Config(
        preset="tiny",
        data=Data(sample_rate=22050, n_fft=1024, hop_length=256, mels=32, frames=32, window_hop=16),
        model=_SMALL_NETS,
        train=Train(epochs=None, steps=20, global_batch_size=4, ema=0.9, checkpoint_every=5, keep_every=1, log_every=1),
        evaluate=Evaluate(iterations=4, seconds=3.0, seeds=1),
    ),
    "thesis": _thesis(),
}
"""demo: the bare command; tiny: tests; small: a CPU; default: GPUs; thesis: what the thesis did, faithfully."""


def preset(name: str) -> Config:
    """Return the preset called `name`.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"unknown preset {name!r}: there are {', '.join(PRESETS)}{hint}")
    return PRESETS[name]


def to_dict(config: Config) -> dict[str, Any]:
    """The tree as plain dictionaries, in the order of its definition."""
    return dataclasses.asdict(config)


def to_yaml(config: Config, like: Path | None = None) -> str:
    """The tree as YAML that `from_yaml` reads back to an equal tree.

    Args:
        like: settings that an earlier version saved, and reads again: those that it does not have are left out, because it
            refuses names that it does not know.
    """
    tree = to_dict(config)
    if like is not None:
        tree = _without(tree, yaml_file.read(like))
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)


def unknown(config: Config, like: Path) -> list[str]:
    """Names of the settings that `to_yaml(config, like)` leaves out though they have another value than what that implies."""
    base = _with_implied(preset(config.preset))
    return _differing(to_dict(config), to_dict(base), yaml_file.read(like))


def _without(tree: dict[str, Any], known: Any) -> dict[str, Any]:
    """The part of a tree of settings whose names are in another."""
    return {
        name: _without(value, known[name]) if isinstance(value, dict) and isinstance(known[name], dict) else value
        for name, value in tree.items()
        if name in known
    }


def _differing(tree: dict[str, Any], base: dict[str, Any], known: Any, where: str = "") -> list[str]:
    found = []
    for name, value in tree.items():
        if isinstance(value, dict):
            found += _differing(value, base[name], known.get(name, {}), f"{where}{name}.")
        elif name not in known and value != base[name]:
            found.append(where + name)
    return found


def from_saved(path: Path) -> Config:
    """Read the settings that a run was saved with; a field that its file lacks has the value that the code of its time implied.

    Raises:
        ValueError: see `from_yaml`.
    """
    about = path.stat()
    return _from_saved(path, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)


@functools.lru_cache(maxsize=64)
def _from_saved(path: Path, *_: int) -> Config:
    """Read a saved file once per process. The further numbers (inode, size, times) change when the file does."""
    return from_yaml(path, saved=True)


def from_yaml(path: Path, otherwise: str = "default", *, saved: bool = False) -> Config:
    """Read a YAML file over the preset that it names, or the preset `otherwise`; it may hold any part of the tree.

    Args:
        saved: the file is a run's own and holds all settings that there were when the run began.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not YAML, an unknown name or a value of the wrong kind; the message names file and field.
    """
    content = yaml_file.read(path)
    try:
        base = preset(str(content.get("preset", otherwise)) if isinstance(content, dict) else otherwise)
        read = values.from_mapping(_with_implied(base) if saved else base, content)
        assert isinstance(read, Config)
        return read
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _with_implied(part: Any, where: str = "") -> Any:
    """`part` with every field that came later at the value that older records imply, all the way down."""
    changed = {}
    for entry in dataclasses.fields(part):
        full = where + entry.name
        if dataclasses.is_dataclass(value := getattr(part, entry.name)):
            changed[entry.name] = _with_implied(value, full + ".")
        elif full not in science.FROZEN and full != "preset" and not entry.metadata.get("resource"):
            changed[entry.name] = science.implied(entry)
    return dataclasses.replace(part, **changed)


def with_flags(base: Config, typed: dict[str, str]) -> Config:
    """`base` as the default for a command line: an alternative to what is typed there is unset.

    Args:
        typed: flag without its dashes, such as `train.steps`, and its value, of all flags that have one.
    """
    for part in dataclasses.fields(base):
        group = getattr(base, part.name)
        for pair in getattr(type(group), "ALTERNATIVES", ()):
            for one, other in (pair, pair[::-1]):
                named, unnamed = f"{part.name}.{one}", f"{part.name}.{other}"
                if typed.get(named, "None") != "None" and unnamed not in typed:
                    stand_in = getattr(group, one) or 1  # for the typed value, which takes its place
                    base = dataclasses.replace(base, **{part.name: dataclasses.replace(group, **{one: stand_in, other: None})})
    return base


def differences(saved: Config, asked: Config) -> list[str]:
    """The science fields in which two configs differ, each as `train.seed: 0 -> 1`."""
    return science.differences(science.recorded(saved), asked)


def with_resources(saved: Config, asked: Config) -> Config:
    """The science of `saved` with the resources of `asked`, all the way down."""

    def mix(old: Any, new: Any) -> Any:
        changed = {}
        for entry in dataclasses.fields(old):
            a, b = getattr(old, entry.name), getattr(new, entry.name)
            if entry.metadata.get("resource"):
                changed[entry.name] = b
            elif dataclasses.is_dataclass(a):
                changed[entry.name] = mix(a, b)
        return dataclasses.replace(old, **changed)

    mixed = mix(saved, asked)
    assert isinstance(mixed, Config)
    return mixed

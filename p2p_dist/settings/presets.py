"""The presets, settings to and from YAML, and the differences between two settings."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from p2p_dist.common import console, yaml_file
from p2p_dist.settings import science, values
from p2p_dist.settings.config import Config, Data, Evaluate, Model, Train, parse_task
from p2p_dist.settings.resources import sizes_of

_SKETCH: dict[str, Any] = dict.fromkeys(
    ("sketch", "beat_phase", "on_steps", "even_classes", "repeat_pattern", "soft_hats", "residual", "keep_level"), True
)
_FLUX = 0.3  # with a sketch: strokes at the right moments

_SMALL_NETS = Model(channels=16, max_channels=64, depth=4, discriminator_channels=16)

PRESETS: dict[str, Config] = {
    "default": Config(model=Model(**_SKETCH), train=Train(flux_weight=_FLUX)),
    "plain": Config(preset="plain"),
    "small": Config(
        preset="small",
        model=Model(channels=24, max_channels=192, discriminator_channels=24),
        train=Train(epochs=8, global_batch_size=8, ema=0.99, checkpoint_every=100, keep_every=2, log_every=10),
    ),
    "sketch": Config(
        preset="sketch",
        model=Model(channels=24, max_channels=192, discriminator_channels=24, **_SKETCH),
        train=Train(
            epochs=8,
            global_batch_size=8,
            flux_weight=_FLUX,
            ema=0.99,
            checkpoint_every=100,
            keep_every=2,
            log_every=10,
        ),
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
        evaluate=Evaluate(iterations=16, windows=0),
    ),
    "tiny": Config(
        preset="tiny",
        data=Data(sample_rate=22050, n_fft=1024, hop_length=256, mels=32, frames=32, window_hop=16),
        model=_SMALL_NETS,
        train=Train(epochs=None, steps=20, global_batch_size=4, ema=0.9, checkpoint_every=5, keep_every=1, log_every=1),
        evaluate=Evaluate(iterations=4, seconds=3.0, windows=0),
    ),
    "thesis": Config(
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
    ),
}
"""demo: a command without options; tiny: tests; small: a CPU; sketch: drums painted from a sketch, on a CPU; default: GPUs,
drums painted from a sketch, other tasks as plain; plain: GPUs, no sketch; thesis: exactly the settings of the thesis."""

EARLIER: dict[str, Any] = {
    "model.upsample": "nearest",
    "evaluate.windows": 0,
    "evaluate.seeds": 2,
    "model.on_steps": False,
    "model.even_classes": False,
    "model.repeat_pattern": False,
    "model.soft_hats": False,
    "model.keep_level": False,
    "train.compressed_weight": 100.0,
    "train.ema_warmup": False,
    "train.predicted_strokes": True,
    "train.loud_strokes": False,
}
"""Name of a setting -> value that the presets had in earlier versions. A run that started with it continues with it."""

EARLIER_DEFAULT: dict[str, Any] = {**{f"model.{name}": False for name in _SKETCH}, "train.flux_weight": 0.0}
"""Values that the preset `default` had before it had a sketch. A run that started with them continues with them."""


def preset(name: str) -> Config:
    """Return the preset called `name`.

    Raises:
        ValueError: there is no such preset; the message lists all.
    """
    if name not in PRESETS:
        hint = console.did_you_mean(name, PRESETS)
        raise ValueError(f"unknown preset {name!r}: there are {', '.join(PRESETS)}{hint}")
    return PRESETS[name]


def for_data(name: str, data: Mapping[str, Any]) -> Config:
    """Return a preset for certain data: `default` without a sketch where there can be none, see `Config`.

    Args:
        data: settings of the data that differ from the preset's, such as `task` -> value; of their right type or as text.
    """
    found = preset(name)
    if name != "default":
        return found
    plain = data.get("shards") not in (None, "None") or data.get("representation", "default") != "default"
    plain = plain or str(data.get("copies", 0)) != "0"
    with contextlib.suppress(ValueError):  # which is said later
        plain = plain or parse_task(str(data.get("task", found.data.task)))[1] != ("drums",)
    return with_values(found, EARLIER_DEFAULT) if plain else found


def to_yaml(config: Config, like: Path | None = None) -> str:
    """Convert all settings to YAML. `from_yaml` reads an equal tree from it.

    Args:
        like: settings file of an earlier version, which refuses names that it does not know: settings that are not in this file
            are left out.
    """
    tree = dataclasses.asdict(config)
    for name in unknown(config, like, changed=False) if like else ():
        group, _, entry = name.rpartition(".")
        del (tree[group] if group else tree)[entry]
    tree = {name: part for name, part in tree.items() if part != {}}
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)


def unknown(config: Config, like: Path, *, changed: bool = True) -> list[str]:
    """Return the names of the settings that `to_yaml(config, like)` leaves out.

    Args:
        changed: only those with another value than older records imply.
    """
    known, found = yaml_file.read_yaml(like), []
    old = {name: value for name, _, value in science.rows(_with_implied(preset(config.preset)), resources=True)}
    for name, _, value in science.rows(config, resources=True):
        group, _, entry = name.rpartition(".")
        if entry not in (known.get(group, {}) if group else known) and not (changed and value == old[name]):
            found.append(name)
    return found


def from_saved(path: Path) -> Config:
    """Read the saved settings of a run. A field that the file does not have gets its implied value, see `fields.added`.

    Raises:
        ValueError: see `from_yaml`.
    """
    about = path.stat()
    return _from_saved(path, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)


@functools.lru_cache(maxsize=64)
def _from_saved(path: Path, *_: int) -> Config:
    """Read a saved file once per process. The other arguments (inode, size, times) change when the file changes."""
    return from_yaml(path, saved=True)


def from_yaml(path: Path, otherwise: str = "default", typed: Mapping[str, Any] | None = None, *, saved: bool = False) -> Config:
    """Read a YAML file with any of the settings; the others are those of the preset that it names, or of `otherwise`.

    Args:
        typed: settings of the data that replace those of the file later, see `for_data`.
        saved: the file is the saved file of a run and has all settings of the version that wrote it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: see `values.from_file`.
    """

    def base(content: Any) -> Config:
        top = content if isinstance(content, dict) else {}
        named, train, resources = top.get("preset", otherwise), top.get("train"), top.get("resources")
        if isinstance(resources, dict) and isinstance(nodes := resources.get("nodes"), str) and "-" in nodes:
            if resources.get("least_nodes") is not None:
                raise ValueError(f"resources.nodes {nodes} sets the least number of nodes, too: omit resources.least_nodes")
            resources["nodes"], resources["least_nodes"] = sizes_of(nodes)
        if isinstance(train, dict):  # epochs in the file unset the preset's steps, and the reverse
            for one, other in (("epochs", "steps"), ("steps", "epochs")):
                if train.get(one) is not None:
                    train.setdefault(other, None)
        name, data = str(named) if isinstance(named, str) else otherwise, top.get("data")
        data = data if isinstance(data, dict) else {}
        start = for_data(name, data)  # first without `typed`, because the whole file has to be valid
        if start.model.sketch and typed:
            start = for_data(name, {**data, **typed})
        return _with_implied(start) if saved else start

    return values.from_file(path, base)


def _with_implied(config: Config) -> Config:
    """Return `config` with every science setting added after version 0.1 at the value that older records imply."""
    later = {name: science.implied(entry) for name, entry, _ in science.rows(config) if name not in science.FROZEN}
    return with_values(config, later)


def with_flags(base: Config, typed: dict[str, str]) -> Config:
    """Return `base` as the default for a command line: if it has train.epochs, train.steps is unset, and the reverse.

    Args:
        typed: flags with a value, without their dashes, such as `train.steps` -> value.
    """
    for one, other in (("epochs", "steps"), ("steps", "epochs")):
        if typed.get(f"train.{one}", "None") != "None":  # a value of the other that is typed, too, replaces this None
            stand_in = getattr(base.train, one) or 1  # valid until the typed value replaces it
            base = with_values(base, {f"train.{one}": stand_in, f"train.{other}": None})
    return base


def with_earlier(saved: Config, asked: Config) -> Config:
    """Return `asked`, but with the saved value of each setting that differs only because the preset has changed since."""
    before, now = ({name: value for name, _, value in science.rows(one)} for one in (saved, asked))
    today = {name: value for name, _, value in science.rows(preset(asked.preset))}
    earlier = EARLIER | EARLIER_DEFAULT if asked.preset == "default" else EARLIER
    return with_values(asked, {name: old for name, old in earlier.items() if before[name] == old and now[name] == today[name]})


def with_resources(saved: Config, asked: Config) -> Config:
    """Return the science settings of `saved` with the resources of `asked`."""
    return with_values(asked, {"preset": saved.preset, **{name: value for name, _, value in science.rows(saved)}})


def with_values(config: Config, changed: dict[str, Any]) -> Config:
    """Return `config` with changed settings. changed: name, such as `train.seed` -> value."""
    new = {name: value for name, value in changed.items() if "." not in name}
    for group in dict.fromkeys(name.partition(".")[0] for name in changed if "." in name):
        part = {name.partition(".")[2]: value for name, value in changed.items() if name.startswith(f"{group}.")}
        new[group] = dataclasses.replace(getattr(config, group), **part)
    return dataclasses.replace(config, **new)

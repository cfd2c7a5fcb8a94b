"""The presets, settings to and from YAML, and the differences between two settings."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import yaml

from p2p_dist.common import console, yaml_file
from p2p_dist.settings import science, values
from p2p_dist.settings.config import Config, Data, Evaluate, Model, Train

_SMALL_NETS = Model(channels=16, max_channels=64, depth=4, discriminator_channels=16)

PRESETS: dict[str, Config] = {
    "default": Config(),
    "small": Config(
        preset="small",
        model=Model(channels=24, max_channels=192, discriminator_channels=24),
        train=Train(epochs=8, global_batch_size=8, ema=0.99, checkpoint_every=100, keep_every=2, log_every=10),
    ),
    "sketch": Config(
        preset="sketch",
        model=Model(channels=24, max_channels=192, discriminator_channels=24, sketch=True, beat_phase=True, residual=True),
        train=Train(
            epochs=8,
            global_batch_size=8,
            compressed_weight=20.0,
            flux_weight=0.3,
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
        evaluate=Evaluate(iterations=16, seeds=1),
    ),
    "tiny": Config(
        preset="tiny",
        data=Data(sample_rate=22050, n_fft=1024, hop_length=256, mels=32, frames=32, window_hop=16),
        model=_SMALL_NETS,
        train=Train(epochs=None, steps=20, global_batch_size=4, ema=0.9, checkpoint_every=5, keep_every=1, log_every=1),
        evaluate=Evaluate(iterations=4, seconds=3.0, seeds=1),
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
"""demo: the bare command; tiny: tests; small: a CPU; sketch: drums from a sketch, on a CPU; default: GPUs; thesis: what the
thesis did, faithfully."""

EARLIER: dict[str, Any] = {"model.upsample": "nearest"}
"""Values that the presets had in earlier versions, by names of settings. A run that began with one continues with it."""


def preset(name: str) -> Config:
    """Return the preset called `name`.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in PRESETS:
        hint = console.did_you_mean(name, PRESETS)
        raise ValueError(f"unknown preset {name!r}: there are {', '.join(PRESETS)}{hint}")
    return PRESETS[name]


def to_yaml(config: Config, like: Path | None = None) -> str:
    """The tree as YAML that `from_yaml` reads back to an equal tree.

    Args:
        like: settings that an earlier version saved, and reads again: those that it does not have are left out, because it
            refuses names that it does not know.
    """
    tree = dataclasses.asdict(config)
    for name in unknown(config, like, changed=False) if like else ():
        group, _, entry = name.rpartition(".")
        del (tree[group] if group else tree)[entry]
    tree = {name: part for name, part in tree.items() if part != {}}
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)


def unknown(config: Config, like: Path, *, changed: bool = True) -> list[str]:
    """Names of the settings that `to_yaml(config, like)` leaves out.

    Args:
        changed: only those that have another value than older records imply.
    """
    known, found = yaml_file.read_yaml(like), []
    old = {name: value for name, _, value in science.rows(_with_implied(preset(config.preset)), resources=True)}
    for name, _, value in science.rows(config, resources=True):
        group, _, entry = name.rpartition(".")
        if entry not in (known.get(group, {}) if group else known) and not (changed and value == old[name]):
            found.append(name)
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
        ValueError: see `values.from_file`.
    """

    def base(content: Any) -> Config:
        top = content if isinstance(content, dict) else {}
        named, train = top.get("preset", otherwise), top.get("train")
        if isinstance(train, dict):  # naming one, over a preset that has the other, unsets that one
            for one, other in (("epochs", "steps"), ("steps", "epochs")):
                if train.get(one) is not None:
                    train.setdefault(other, None)
        start = preset(str(named) if isinstance(named, str) else otherwise)
        return _with_implied(start) if saved else start

    return values.from_file(path, base)


def _with_implied(config: Config) -> Config:
    """`config` with every science setting that came after version 0.1 at the value that older records imply."""
    later = {name: science.implied(entry) for name, entry, _ in science.rows(config) if name not in science.FROZEN}
    return with_values(config, later)


def with_flags(base: Config, typed: dict[str, str]) -> Config:
    """`base` as the default for a command line: of train.epochs and train.steps, the one that is not typed there is unset.

    Args:
        typed: flag without its dashes, such as `train.steps`, and its value, of all flags that have one.
    """
    for one, other in (("epochs", "steps"), ("steps", "epochs")):
        if typed.get(f"train.{one}", "None") != "None" and f"train.{other}" not in typed:
            stand_in = getattr(base.train, one) or 1  # for the typed value, which takes its place
            base = with_values(base, {f"train.{one}": stand_in, f"train.{other}": None})
    return base


def with_earlier(saved: Config, asked: Config) -> Config:
    """`asked`, but a setting that only the preset changed since `saved`, and nobody asked for, has its value of then."""
    before, now = ({name: value for name, _, value in science.rows(one)} for one in (saved, asked))
    today = {name: value for name, _, value in science.rows(preset(asked.preset))}
    return with_values(asked, {name: old for name, old in EARLIER.items() if before[name] == old and now[name] == today[name]})


def with_resources(saved: Config, asked: Config) -> Config:
    """The science of `saved` with the resources of `asked`."""
    return with_values(asked, {"preset": saved.preset, **{name: value for name, _, value in science.rows(saved)}})


def with_values(config: Config, changed: dict[str, Any]) -> Config:
    """`config` with other values of settings, by names such as `train.seed`."""
    new = {name: value for name, value in changed.items() if "." not in name}
    for group in dict.fromkeys(name.partition(".")[0] for name in changed if "." in name):
        part = {name.partition(".")[2]: value for name, value in changed.items() if name.startswith(f"{group}.")}
        new[group] = dataclasses.replace(getattr(config, group), **part)
    return dataclasses.replace(config, **new)

"""Find a model by name: the best checkpoint of a run, the checkpoint of a given step, or an exported folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from p2p_dist.generate import drummer, drummer_record, exported_config, inference
from p2p_dist.generate.drummer import Drummer
from p2p_dist.model.generator import Generator
from p2p_dist.run import checkpoints, rundir
from p2p_dist.settings import config
from p2p_dist.train import checkpoint


@dataclass(frozen=True)
class Model:
    """A trained generator with everything needed to run it.

    name: for messages, such as `drums-demo@90`. task, step: the task and the training step. sha256: of the file of the
    weights. data: settings of its spectrograms. model: settings of its network. drummer: of a model with a sketch;
    drummer_sha256: see `drummer_record.sha256`.
    """

    name: str
    task: str
    step: int
    sha256: str
    data: config.Data
    model: config.Model
    weights: dict[str, torch.Tensor]
    drummer: Drummer | None = None
    drummer_sha256: str | None = None

    def generator(self, device: torch.device) -> Generator:
        """Build the generator on a device.

        Raises:
            DamagedError: the weights do not fit this network.
        """
        return inference.build_generator(self.weights, self.model, self.data.picture_channels, device)


def find_model(name: str | None) -> Model:
    """Find a model by name: `RUN` (its best checkpoint), `RUN@STEP`, or the path of an exported folder.

    Args:
        name: None for the run with the newest checkpoint.

    Raises:
        ValueError: there is no such run, or no such checkpoint.
        DamagedError: a file has changed since it was written.
    """
    if name is not None and exported_config.is_exported(Path(name).expanduser()):
        from p2p_dist.generate import exported  # which imports this module

        return exported.read_exported(Path(name).expanduser())
    run, found = checkpoints.named(name)
    settings = rundir.read_settings(run)
    weights = checkpoint.load_generator(found)
    sha256 = found.meta()["files"][checkpoints.GENERATOR]["sha256"]
    return Model(
        f"{run.path.name}@{found.step}",
        settings.data.task,
        found.step,
        sha256,
        settings.data,
        settings.model,
        weights,
        drummer.load(run.pattern, settings.data, settings.model) if settings.model.sketch else None,
        drummer_record.sha256(run.pattern) if settings.model.sketch else None,
    )

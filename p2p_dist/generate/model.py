"""Find a model by name: the best checkpoint of a run, one of its steps, or an exported folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from p2p_dist.generate import exported_config, inference
from p2p_dist.model.generator import Generator
from p2p_dist.run import checkpoints, rundir
from p2p_dist.settings import config
from p2p_dist.train import checkpoint


@dataclass(frozen=True)
class Model:
    """A trained generator with all that is needed to run it.

    name: for people, such as `drums-demo@90`. task, step: what it was trained for, and how long. sha256: of the file of its
    weights. data: the spectrograms that it knows. model: its network.
    """

    name: str
    task: str
    step: int
    sha256: str
    data: config.Data
    model: config.Model
    weights: dict[str, torch.Tensor]

    def generator(self, device: torch.device) -> Generator:
        """The network on a device, ready to generate.

        Raises:
            DamagedError: the weights are not those of this network.
        """
        return inference.build_generator(self.weights, self.model, self.data.picture_channels, device)


def find_model(name: str | None) -> Model:
    """Find the model of a name: `RUN` (its best checkpoint), `RUN@STEP`, or the path of an exported folder.

    Args:
        name: None: the run whose newest checkpoint is the newest of all.

    Raises:
        ValueError: there is no such run, or no such checkpoint.
        DamagedError: its files are not those that were written.
    """
    if name is not None and exported_config.is_exported(Path(name).expanduser()):
        from p2p_dist.generate import exported  # which imports this module

        return exported.read_exported(Path(name).expanduser())
    run, found = checkpoints.named(name)
    settings = rundir.read_settings(run)
    weights = checkpoint.load_generator(found)
    sha256 = found.meta()["files"][checkpoints.GENERATOR]["sha256"]
    return Model(
        f"{run.path.name}@{found.step}", settings.data.task, found.step, sha256, settings.data, settings.model, weights
    )

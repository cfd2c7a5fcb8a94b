"""Find a model by name: the best checkpoint of a run, the checkpoint of a given step, or an exported folder.

Without a name it is the newest run, and where there is no run the starter model that comes with the package.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from p2p_dist.generate import drummer, drummer_record, exported_config, inference
from p2p_dist.generate.drummer import Drummer
from p2p_dist.model.generator import Generator
from p2p_dist.run import checkpoints, rundir
from p2p_dist.settings import config
from p2p_dist.train import checkpoint


@dataclass(frozen=True)
class Model:
    """A trained model with everything needed to run it.

    name: for messages, such as `drums-demo@90`. task, step: the task and the training step. sha256: of the file of the
    weights. data: settings of its spectrograms. model: settings of its network. weights: of its generator; None for a model
    without one, whose drummer plays the stem at `data.sample_rate`. drummer: of a model with a sketch. drummer_sha256: of
    a model with both, see `drummer_record.sha256`; without a generator, `sha256` identifies its drummer.
    """

    name: str
    task: str
    step: int
    sha256: str
    data: config.Data
    model: config.Model
    weights: dict[str, torch.Tensor] | None
    drummer: Drummer | None = None
    drummer_sha256: str | None = None

    def generator(self, device: torch.device) -> Generator | None:
        """Build the generator on a device; None if the model has none.

        Raises:
            DamagedError: the weights do not fit this network.
        """
        if self.weights is None:
            return None
        return inference.build_generator(self.weights, self.model, self.data.picture_channels, device)


def find_model(name: str | None) -> Model:
    """Find a model by name: `RUN` (its best checkpoint), `RUN@STEP`, `starter`, or the path of an exported folder.

    Args:
        name: None for the run with the newest checkpoint, or the starter where there is none.

    Raises:
        ValueError: there is no such run, or no such checkpoint.
        DamagedError: a file has changed since it was written.
    """
    if (folder := exported_config.folder_of(name)) is not None:
        from p2p_dist.generate import exported  # which imports this module

        with exported_config.starter_named(folder):
            return exported.read_exported(folder)
    run, found = checkpoints.named(name)
    settings = rundir.read_settings(run)
    weights = checkpoint.load_generator(found)
    sha256 = found.meta()["files"][checkpoints.GENERATOR]["sha256"]
    return Model(
        f"{run.name}@{found.step}",
        settings.data.task,
        found.step,
        sha256,
        settings.data,
        settings.model,
        weights,
        drummer.load(run.pattern, settings.data, settings.model) if settings.model.sketch else None,
        drummer_record.sha256(run.pattern) if settings.model.sketch else None,
    )

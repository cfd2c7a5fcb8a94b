"""All settings of a run, as one tree of frozen dataclasses.

Science settings (data, model, train, evaluate) do not change after a run is created. Fields declared with `resource` may change
at every start. Precedence: defaults < preset < YAML file < flags.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from p2p_dist.settings.data import Data as Data
from p2p_dist.settings.evaluate import Evaluate as Evaluate
from p2p_dist.settings.fields import resource as resource
from p2p_dist.settings.model import Model as Model
from p2p_dist.settings.resources import Resources as Resources
from p2p_dist.settings.resources import Where as Where
from p2p_dist.settings.resources import seconds_of as seconds_of
from p2p_dist.settings.tasks import STEMS as STEMS
from p2p_dist.settings.tasks import TASKS as TASKS
from p2p_dist.settings.tasks import parse_task as parse_task
from p2p_dist.settings.train import Train as Train
from p2p_dist.settings.values import check


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    preset: tyro.conf.Suppress[str] = "default"
    resources: Annotated[Resources, tyro.conf.arg(name="")] = resource(Resources())
    data: Data = Data()
    model: Model = Model()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()

    def __post_init__(self) -> None:
        check(self)
        if self.model.sketch:
            self._check_sketch()
        step = 2**self.model.depth
        for name in ("mels", "frames"):
            if getattr(self.data, name) % step:
                raise ValueError(
                    f"data.{name} {getattr(self.data, name)} cannot be halved {self.model.depth} times (model.depth): "
                    f"give a multiple of {step}"
                )

    def _check_sketch(self) -> None:
        """Check that there can be sketches of what is to be made."""
        if parse_task(self.data.task)[1] != ("drums",):
            raise ValueError(f"model.sketch is for tasks that make drums alone, not for {self.data.task}: leave it out")
        if self.data.shards is not None:
            raise ValueError("model.sketch needs the songs themselves (--data), of which data.shards has only spectrograms")
        if self.data.representation != "default":
            raise ValueError(
                "model.sketch needs data.representation default: the thesis's pictures show the mix, not the drums"
            )
        if self.data.copies:
            raise ValueError(
                f"model.sketch and data.copies {self.data.copies} exclude each other: copies have another "
                "tempo, which a sketch does not follow; give --data.copies 0"
            )

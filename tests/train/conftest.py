"""One thread a process, and the smallest networks: the tests of this folder share two cores with others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from p2p_dist.run.rundir import RunDir
from p2p_dist.settings.config import Config
from tests.conftest import lay_out_run
from tests.train.small import SMALLEST

torch.set_num_threads(1)


@pytest.fixture
def new_run(tiny_shards: Path, tmp_path: Path) -> Callable[..., tuple[RunDir, Config]]:
    """`new_run(name, train={...}, model={...})`: see `lay_out_run`."""

    def new_run(name: str = "run", model: dict[str, Any] | None = None, **changed: dict[str, Any]) -> tuple[RunDir, Config]:
        return lay_out_run(tmp_path, tiny_shards, name, model=SMALLEST | (model or {}), **changed)

    return new_run

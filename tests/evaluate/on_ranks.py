"""What the processes of an evaluation do in tests: they must be importable by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from p2p_dist.evaluate import checkpoints
from p2p_dist.evaluate.report import png
from p2p_dist.run import rundir
from p2p_dist.settings import presets


def draw_nothing(set_attribute: Callable[[Any, str, Any], None]) -> None:
    """Leave spectrograms that are empty files: matplotlib takes longer than all the rest."""
    set_attribute(png, "draw", lambda path, *_: (path.parent.mkdir(parents=True, exist_ok=True), path.touch()))


def evaluate(folder: Path) -> int:
    """One of several processes that evaluate one run."""
    draw_nothing(setattr)
    os.environ |= {"P2P_ATTEMPT": "one", "P2P_CLAIMS": "one"}
    run = rundir.RunDir(folder)
    return checkpoints.evaluate(run, presets.from_yaml(run.config))

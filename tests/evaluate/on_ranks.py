"""What the processes of an evaluation do in tests: they must be importable by name."""

from __future__ import annotations

import os
from pathlib import Path

from p2p_dist.evaluate import checkpoints
from p2p_dist.run import rundir
from p2p_dist.settings import presets


def evaluate(folder: Path) -> int:
    """One of several processes that evaluate one run."""
    os.environ |= {"P2P_ATTEMPT": "one", "P2P_CLAIMS": "one"}
    run = rundir.RunDir(folder)
    return checkpoints.evaluate(run, presets.from_yaml(run.config))

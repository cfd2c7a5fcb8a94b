"""The thesis's npz pairs through the whole pipeline: what has no sound is trained on, and not evaluated."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from p2p_dist.data import dataset as datasets
from p2p_dist.run import rundir
from p2p_dist.settings.config import Data

CHECKOUT = Path(__file__).parents[2]


def test_pairs_without_sound_are_trained_on_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    random, data = np.random.default_rng(0), tmp_path / "the thesis's pairs"
    for split, names in (("train", ["A-0", "A-1", "B_7", "B_8"]), ("test", ["C 1", "C 2"])):
        (data / split).mkdir(parents=True)
        for name in names:
            np.savez(data / split / f"{name}.npz", random.uniform(-80, 0, (64, 32)))
    name = datasets.dataset_name(data, Data())
    (data / "train" / "B_8.npz").rename(data / "train" / "B_9.npz")
    assert datasets.dataset_name(data, Data()) != name, "other pairs are another dataset"
    settings = ["--preset", "tiny", "--data.representation", "thesis", "--train.steps", "4", "--run", "pairs"]
    command = [sys.executable, "launch/submit.py", "--data", str(data), *settings]
    environment = {**os.environ, "P2P_RUNS": str(tmp_path / "runs"), "PYTHONPATH": str(CHECKOUT)}
    for _ in range(2):
        done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        for stage in ("evaluate", "page"):
            assert f"{stage}: left out: the songs are spectrograms (npz) without audio" in done.stdout
    assert "preprocess: already done (2 train songs in 4 windows, 1 test songs in 2 windows)" in done.stdout
    run = rundir.RunDir(tmp_path / "runs" / "pairs")
    assert rundir.find_steps(run.checkpoints)[-1][0] == 4 and not run.page.exists()

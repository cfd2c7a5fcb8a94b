"""The losses of the first updates, recorded: a change of the code that changes them is a change of what is trained.

To record them anew where that is meant: RECORD=1 pytest tests/train/test_golden.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from p2p_dist.train import networks, step
from tests.train import on_ranks
from tests.train.small import small, thesis

GOLDEN = Path(__file__).parents[1] / "golden" / "losses.json"


def losses(config):
    built = networks.build(config, on_ranks.CPU)
    input, target, noise = on_ranks.batch_of(config, 4)
    rows = []
    for number in range(5):
        terms, _ = step.train_step(built, input, target, noise if config.model.noise_channels else None, config.train, number)
        rows.append({name: float(f"{value.item():.6g}") for name, value in terms.items()})
    return rows


def test_first_losses():
    found = {"default": losses(small()), "thesis": losses(thesis())}
    if os.environ.get("RECORD"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    recorded = json.loads(GOLDEN.read_text())
    assert found.keys() == recorded.keys()
    for name, rows in recorded.items():
        for number, row in enumerate(rows):
            # Other processors round otherwise, and Adam's first steps are by the gradient's sign.
            assert found[name][number] == pytest.approx(row, rel=0.01 * (1 + number), abs=2e-3), f"{name}, update {number + 1}"

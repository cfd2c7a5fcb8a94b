"""The thesis's npz pairs through the whole pipeline: what has no sound is trained on, and not evaluated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from p2p_dist.cli import submit
from p2p_dist.data import dataset as datasets
from p2p_dist.data import npz_pairs
from p2p_dist.run import rundir
from p2p_dist.settings.config import Data


def test_pairs_without_sound_are_trained_on_and_what_is_left_out_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stages_forked: None
) -> None:
    random, data = np.random.default_rng(0), tmp_path / "the thesis's pairs"
    for split, names in (("train", ["A-0", "A-1", "B_7", "B_8"]), ("test", ["C 1", "C 2"])):
        (data / split).mkdir(parents=True)
        for name in names:
            np.savez(data / split / f"{name}.npz", random.uniform(-80, 0, (64, 32)))
    name = datasets.dataset_name(data, Data())
    (data / "train" / "B_8.npz").rename(data / "train" / "B_9.npz")
    assert datasets.dataset_name(data, Data()) != name, "other pairs are another dataset"
    settings = ["--preset", "tiny", "--data.representation", "thesis", "--train.steps", "4", "--run", "pairs"]
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    for _ in range(2):
        assert submit.main(["--data", str(data), *settings]) == 0
        shown = capsys.readouterr().out
        for stage in ("evaluate", "page"):
            assert f"{stage}: left out: the songs are spectrograms (npz) without audio" in shown
    assert "preprocess: already done (2 train songs in 4 windows, 1 test songs in 2 windows)" in shown
    run = rundir.RunDir(tmp_path / "runs" / "pairs")
    assert rundir.find_steps(run.checkpoints)[-1][0] == 4 and not run.page.exists()


def test_pairs_of_another_machine_are_read_and_what_torch_can_not_hold_is_refused(tmp_path: Path) -> None:
    data = Data(mels=32, frames=32, window_hop=8, representation="thesis")
    values = np.random.default_rng(0).uniform(-80, 0, (64, 32))
    for kind in (">f4", "<f2", ">f8"):
        np.savez(tmp_path / "a.npz", values.astype(kind))
        input, target = npz_pairs.read(tmp_path / "a.npz", data)
        assert input.dtype.isnative and target.dtype.isnative and input.dtype.itemsize == int(kind[2])
        np.testing.assert_array_equal(target[0], values.astype(kind)[:32])
    np.savez(tmp_path / "a.npz", values.astype(np.longdouble))
    with pytest.raises(ValueError, match=r"not of floating point numbers .* of 16, 32 or 64 bits"):
        npz_pairs.read(tmp_path / "a.npz", data)

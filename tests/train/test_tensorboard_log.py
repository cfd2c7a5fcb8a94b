"""TensorBoard shows what metrics.jsonl holds, once."""

from __future__ import annotations

import builtins

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from p2p_dist.run import metrics_file
from p2p_dist.train import tensorboard_log
from tests.rank_processes import RanksFailed
from tests.train import on_ranks


def events(run):
    found = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def no_purge():
    from torch.utils import tensorboard

    honest = tensorboard.SummaryWriter
    tensorboard.SummaryWriter = lambda folder, purge_step: honest(folder)


@pytest.mark.parametrize("sabotage", [None, no_purge])
def test_no_curve_doubles_after_a_resume(ranks, new_run, sabotage):
    run, _ = new_run(train={"tensorboard": True, "steps": 12, "log_every": 1, "keep_every": 100.0})
    with pytest.raises(RanksFailed):
        ranks(1, on_ranks.train, run.path, 8, sabotage)
    assert ranks(1, on_ranks.train, run.path, None, sabotage) == [0]
    found, rows = events(run), metrics_file.read(run)
    steps = [event.step for event in found.Scalars("l1")]
    assert (steps == list(range(1, 13))) == (sabotage is None)
    if sabotage is None:
        names = {name for name, value in rows[-1].items() if name not in ("step", "digests")}
        assert set(found.Tags()["scalars"]) == names
        for name in names:
            values = [event.value for event in found.Scalars(name)]
            assert values == pytest.approx([row[name] for row in rows], rel=1e-6)
        images = found.Images("input, target, output")
        assert [image.step for image in images] == [5, 10, 12]
        assert (images[0].width, images[0].height) == (3 * 32, 4 * 32)


def test_pictures_do_not_disturb_the_training(ranks, new_run):
    """The thesis's drop-out draws from torch's global state, and so do its pictures."""
    model = {"dropout": 0.5, "norm": "batch", "noise_channels": 0}
    runs = [new_run(name, model=model, train={"tensorboard": name == "shown", "steps": 10})[0] for name in ("plain", "shown")]
    for run in runs:
        assert ranks(1, on_ranks.train, run.path) == [0]
    assert on_ranks.equal(*(on_ranks.state(run.path, 10) for run in runs))


def test_without_tensorboard_the_error_names_the_extra(tmp_path, monkeypatch):
    honest = builtins.__import__

    def refuse(name, *rest):
        if name == "torch.utils.tensorboard":
            raise ImportError("No module named 'tensorboard'")
        return honest(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ValueError, match=r"p2p_dist\[tensorboard\]"):
        tensorboard_log.Board(tmp_path, 0, None, 0, 0)

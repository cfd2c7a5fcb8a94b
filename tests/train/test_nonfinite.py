"""A loss or gradient that is not finite, on one rank of several: nothing is learnt from it, and the run says where it was."""

from __future__ import annotations

import dataclasses
import json
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from p2p_dist.data import columns, index
from p2p_dist.data import manifest as manifests
from p2p_dist.data.index import Index
from p2p_dist.data.stream import Stream
from p2p_dist.run import metrics_file
from p2p_dist.settings.presets import PRESETS
from p2p_dist.train import checkpoint, networks, nonfinite, step
from p2p_dist.train.verify import verify_run
from tests.rank_processes import RanksFailed
from tests.train import on_ranks
from tests.train.small import small, thesis


def no_undo():
    networks.Networks.undo = lambda self, steps: None


def no_found_inf():
    torch.optim.Adam.found_inf = property(lambda self: None, lambda self, value: None)


@pytest.mark.parametrize("kind", ["input", "target", "gradient"])
def test_a_bad_step_changes_nothing(ranks, kind):
    """Whether it is noticed at once or a step later; every rank knows, and names the rank whose loss it was."""
    for config, at_once in ((small(ema=0.9), False), (small(ema=0.9, micro_batch_size=1), True), (thesis(ema=0.9), True)):
        results = ranks(2, on_ranks.bad_step, config, kind, at_once)
        assert [changed for changed, _ in results] == [[], []]
        for _, said in results:
            assert "not finite at step 2: " in said
            if kind == "gradient":
                assert "rank 0 had rank0-0, rank0-1; rank 1 had rank1-0, rank1-1" in said, "no loss tells whose it was"
            else:
                assert "step 2: rank 1: the values of rank1-0 are not finite;" in said


def test_a_bad_step_changes_nothing_twins(ranks):
    config = small(ema=0.9)
    changed, _ = ranks(2, on_ranks.bad_step, config, "gradient", False, no_undo)[0]
    assert changed and all(name.startswith("/discriminator") for name in changed)
    changed, _ = ranks(2, on_ranks.bad_step, config, "gradient", False, no_found_inf)[0]
    assert any(name.startswith("/generator") for name in changed)


def test_fused_adam_holds_back_on_found_inf():
    """On this device too: weights, moments and step number stay."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimiser = torch.optim.Adam([weight], fused=True)
    weight.grad = torch.ones(3)
    optimiser.step()
    before = [weight.detach().clone(), *(tensor.clone() for tensor in optimiser.state[weight].values())]
    optimiser.found_inf = torch.ones(())
    weight.grad = torch.full((3,), torch.nan)
    optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(before, [weight, *optimiser.state[weight].values()], strict=True))


@pytest.fixture
def poisoned(tiny_shards, tmp_path):
    """Shards in which the target of one window is not a number; its key, and the step and rank (of 2) that meet it."""
    folder = tmp_path / "shards" / "tiny"
    shutil.copytree(tiny_shards, folder)
    found = Index(folder, "train")
    stream = Stream(found, PRESETS["tiny"].data, seed=0, global_batch_size=4, rank=1, world_size=2)
    number = int(stream.samples(stream.positions(6))[1])
    sample = found.sample(number)
    with (folder / sample.shard).open("r+b") as shard:
        shard.seek(sample.target)
        shard.write(np.full(8, np.nan, np.float16).tobytes())
    rewrite_checksums(folder, sample.shard)
    return sample.key


def rewrite_checksums(folder, shard):
    """Let the manifest say what is in the shard now, as if it had been made so."""
    manifest = manifests.read(folder)
    checksums = {row["key"]: row["checksum"] for row in index.index_shard(folder / shard)}
    part, found = manifest["splits"]["train"], Index(folder, "train")
    changed = dict(columns.read(folder, part["index"]))
    keys = map(found.samples.key, range(len(found)))
    changed["checksum"] = np.array([checksums.get(key, old) for key, old in zip(keys, changed["checksum"], strict=True)])
    part["index"] = columns.write(folder, "train", changed)
    manifests.write(folder, manifest)


@pytest.mark.parametrize("stage", ["none", "device"])
def test_a_damaged_sample_ends_the_run_and_is_named(ranks, tiny_shards, tmp_path, new_run, stage):
    """Row 7: one flipped bit in a sample of the shards, which only one rank reads.

    Seen: training continues with other values, and verify says that all is well.
    Now: the run fails and is not restarted, with shard and key in its outcome; verify names them too.
    """
    folder = tmp_path / "shards" / "tiny"
    shutil.copytree(tiny_shards, folder)
    found = Index(folder, "train")
    stream = Stream(found, PRESETS["tiny"].data, seed=0, global_batch_size=4, rank=1, world_size=2)
    sample = found.sample(int(stream.samples(stream.positions(2))[1]))
    with (folder / sample.shard).open("r+b") as shard:
        shard.seek(sample.input + 1000)
        (value,) = shard.read(1)
        shard.seek(sample.input + 1000)
        shard.write(bytes([value ^ 8]))
    run, _ = new_run(data={"stage": stage})
    with pytest.raises(RanksFailed) as failure:
        ranks(2, on_ranks.leave, run.path)
    assert failure.value.codes[1] == 1
    outcome = run.read_outcome()
    assert outcome["outcome"] == "failed"
    assert f"{sample.shard} is damaged: sample {sample.key}: " in outcome["message"]
    (line,) = [line for line in verify_run(run) if "damaged" in line]
    assert sample.shard in line and sample.key in line


def test_the_run_ends_and_names_step_rank_and_sample(ranks, poisoned, new_run):
    """Row 24: a sample that is not finite, on one rank.

    Seen: NaN for days.
    Now: that step changes nothing on any rank; the run ends, is not restarted, and names step, rank and sample.
    """
    run, _ = new_run(train={"log_every": 100})
    with pytest.raises(RanksFailed) as failure:
        ranks(2, on_ranks.leave, run.path)
    assert failure.value.codes == {0: 1, 1: 1}
    outcome = run.read_outcome()
    assert outcome["outcome"] == "failed"
    assert "not finite at step 7" in outcome["message"]
    assert f"rank 1: the values of {poisoned} are not finite" in outcome["message"]
    assert "rank 0" not in outcome["message"]
    assert outcome["message"].endswith(f"all checkpoints in {run.checkpoints} are valid")
    assert [found.step for found in checkpoint.find(run.checkpoints)] == [5]
    assert checkpoint.load_newest(run.checkpoints)[0] == 5
    assert [row["step"] for row in metrics_file.read(run)] == [5]
    json.dumps(outcome, allow_nan=False)


@pytest.mark.parametrize("saved_every", [6, 7])
def test_a_bad_step_is_never_saved(ranks, poisoned, new_run, saved_every):
    """Neither when the bad step (7) itself is one to save after, nor when it follows one."""
    run, _ = new_run(train={"checkpoint_every": saved_every, "log_every": 100, "keep_every": 100.0})
    with pytest.raises(RanksFailed, match="not finite at step 7"):
        ranks(1, on_ranks.train, run.path)
    assert [found.step for found in checkpoint.find(run.checkpoints)] == ([6] if saved_every == 6 else [])
    tensors = [t for s in ([6] if saved_every == 6 else []) for t in on_ranks.state(run.path, s)]
    assert all(torch.isfinite(tensor).all() for tensor in tensors)


def test_a_loss_that_overflows_is_told_by_its_gradient():
    """The gradient of an L1 is a sign: finite for an infinite loss."""
    output = torch.zeros(4, requires_grad=True)
    loss = (output - torch.tensor([torch.inf, 0, 0, 0])).abs().mean()
    loss.backward()
    assert torch.isfinite(output.grad).all()
    output.grad = None
    step.backward((output - torch.tensor([torch.inf, 0, 0, 0])).abs().mean(), 1.0)
    assert not torch.isfinite(output.grad).any()


def test_nothing_is_copied_twice():
    """What is kept of a step is the discriminator's half alone: weights, two moments, step numbers, spectral norm's vectors."""
    config = dataclasses.replace(PRESETS["tiny"])
    built = networks.build(config, on_ranks.CPU)
    built.keep()
    weights = sum(parameter.numel() for parameter in built.discriminator.parameters())
    kept = sum(tensor.numel() for tensor in built.kept[0])
    assert 3 * weights < kept < 3.1 * weights


def test_a_loss_that_overflows_on_one_rank_is_told_of_that_rank(monkeypatch):
    """Its samples are finite, so only the rank is known. If it failed: a person looks for them on all ranks."""
    told = [(0, False, ["a"], []), (1, True, ["b"], [])]
    monkeypatch.setattr(
        nonfinite.dist, "all_gather_object", lambda everyone, mine, group: everyone.__setitem__(slice(None), told)
    )
    samples = types.SimpleNamespace(key=lambda number: "b")
    stream = types.SimpleNamespace(
        batch=lambda number: [torch.zeros(1, 1)] * 2,
        positions=lambda number: range(1),
        samples=lambda positions: positions,
        index=types.SimpleNamespace(samples=samples),
    )
    ranks = types.SimpleNamespace(rank=1, world_size=2, gloo=object(), device=torch.device("cpu"))
    assert nonfinite.Watch(None, stream, ranks, Path("c"))._blame(2, True) == "rank 1 had b"

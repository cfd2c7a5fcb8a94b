"""A training that was killed and resumed is the training that was never killed."""

from __future__ import annotations

import random
import shutil

import pytest
import torch

from p2p_dist.common import linux, records
from p2p_dist.data import columns
from p2p_dist.data import manifest as manifests
from p2p_dist.data.index import Index
from p2p_dist.data.stream import Stream
from p2p_dist.run import metrics_file, rundir
from p2p_dist.train import checkpoint, loop, networks, seeding, step
from tests.conftest import lay_out_run
from tests.rank_processes import RanksFailed, run_on_ranks
from tests.train import on_ranks
from tests.train.on_ranks import noise_from_the_global_state
from tests.train.small import SMALLEST


def train_with_kills(ranks, run, kills, world_size=1, sabotage=None):
    """Train to the end, through a kill after each of the updates in `kills`."""
    for killed_after in kills:
        with pytest.raises(RanksFailed) as failure:
            ranks(world_size, on_ranks.train, run.path, killed_after, sabotage)
        assert set(failure.value.codes.values()) == {9}, failure.value
    assert ranks(world_size, on_ranks.train, run.path, None, sabotage) == [0] * world_size


def same_weights(first, second, at):
    return on_ranks.equal(on_ranks.state(first.path, at), on_ranks.state(second.path, at))


STEPS = 20
"""More than two epochs."""


def test_killed_equals_undisturbed(ranks, new_run):
    """At 4 random steps and around the borders of epochs: weights, moments, average, vectors: bit for bit.

    At 2000 random instants: tests/faults/soak.py.
    """
    undisturbed, settings = new_run("undisturbed", train={"steps": STEPS})
    epoch = len(Index(undisturbed.shards, "train")) / settings.train.global_batch_size
    borders = {round(number * epoch) for number in (1, 2)} | {int(epoch)}
    assert epoch % 1 and max(borders) < STEPS
    kills = sorted({*random.Random(4).sample(range(1, STEPS), 4), *borders})
    killed, _ = new_run("killed", train={"steps": STEPS})
    train_with_kills(ranks, undisturbed, [])
    train_with_kills(ranks, killed, kills)
    assert same_weights(undisturbed, killed, STEPS)
    assert on_ranks.digests(undisturbed) == on_ranks.digests(killed)
    assert len(on_ranks.digests(killed)) == STEPS
    rows = [[row["step"] for row in metrics_file.read(run)] for run in (undisturbed, killed)]
    assert rows[0] == rows[1] == list(range(1, STEPS + 1)), "no line twice"
    assert all(0 < row["data_wait"] < 1 for row in metrics_file.read(undisturbed))


def test_killed_equals_undisturbed_on_two_ranks(ranks, new_run):
    """Row 19: killed at random steps and at borders of epochs.

    Seen: resume repeats or skips samples; the loss looks fine.
    Now: the batch of a step is a pure function of manifest, seed and step: the same digests, the same weights bit for bit.
    """
    runs = [new_run(name, train={"micro_batch_size": 1, "steps": 10})[0] for name in ("undisturbed", "killed")]
    train_with_kills(ranks, runs[0], [], 2)
    train_with_kills(ranks, runs[1], [3, 7, 8], 2)
    assert same_weights(*runs, 10)
    assert on_ranks.digests(runs[0]) == on_ranks.digests(runs[1])


def stream_from_the_start():
    honest, calls = Stream.positions, []
    Stream.positions = lambda self, step: (calls.append(step), honest(self, step - calls[0]))[1]


def forget_moments():
    forget("generator_optimiser")


def forget_average():
    forget("average")


def forget_vectors():
    """Of spectral norm: they are buffers, not parameters."""
    honest = networks.Networks.load

    def load(self, state):
        fresh = {name: buffer.clone() for name, buffer in self.discriminator.named_buffers()}
        honest(self, {**state, "discriminator": {**state["discriminator"], **fresh}})

    networks.Networks.load = load


def forget(part):
    honest = networks.Networks.load
    networks.Networks.load = lambda self, state: honest(self, {**state, part: self.state()[part]})


@pytest.fixture(scope="module")
def eight_steps(tiny_shards, tmp_path_factory):
    """An undisturbed training of eight steps."""
    run, _ = lay_out_run(tmp_path_factory.mktemp("undisturbed"), tiny_shards, train={"steps": 8}, model=SMALLEST)
    train_with_kills(run_on_ranks, run, [])
    return run


@pytest.mark.parametrize("sabotage", [forget_moments, forget_average, forget_vectors])
def test_twin_of_what_is_saved(ranks, new_run, eight_steps, sabotage):
    killed, _ = new_run("killed", train={"steps": 8})
    train_with_kills(ranks, killed, [6], sabotage=sabotage)
    assert not same_weights(eight_steps, killed, 8)


@pytest.mark.parametrize("sabotage", [noise_from_the_global_state, stream_from_the_start])
def test_twin_of_what_is_drawn(ranks, new_run, sabotage):
    """Row 20: random states that drift when a loader is built, by evaluating or by logging.

    Seen: a resumed training that is another one, without an error.
    Now: everything random is drawn again from the seed and the step; each twin draws one of them from elsewhere and differs.
    """
    undisturbed, killed = (new_run(name, train={"steps": 8})[0] for name in ("undisturbed", "killed"))
    train_with_kills(ranks, undisturbed, [], sabotage=sabotage)
    train_with_kills(ranks, killed, [6], sabotage=sabotage)
    assert not same_weights(undisturbed, killed, 8)
    assert (on_ranks.digests(undisturbed) == on_ranks.digests(killed)) or sabotage is stream_from_the_start


def drop_out_from_the_global_state():
    step.torch.manual_seed = lambda seed: None


@pytest.mark.parametrize("sabotage", [None, drop_out_from_the_global_state])
def test_drop_out_after_a_resume(ranks, new_run, sabotage):
    """The thesis's networks: drop-out is drawn from torch's global state, seeded anew in every step."""
    model = {"dropout": 0.5, "norm": "batch", "noise_channels": 0, "upsample": "transposed", "discriminator_norm": "batch"}
    undisturbed, killed = (new_run(name, model=model, train={"steps": 8})[0] for name in ("undisturbed", "killed"))
    train_with_kills(ranks, undisturbed, [], sabotage=sabotage)
    train_with_kills(ranks, killed, [6], sabotage=sabotage)
    assert same_weights(undisturbed, killed, 8) == (sabotage is None)


def noise_of_the_rank():
    honest = seeding.noise_at
    seeding.noise_at = lambda places, seed, shape: honest(places - places[0], seed, shape)


def test_world_size_may_change(ranks, new_run):
    """2 ranks, then 1, then 2: the same windows and the same noise at each step, so nearly the same weights."""
    steady, _ = new_run("steady", train={"steps": 9, "checkpoint_every": 3})
    train_with_kills(ranks, steady, [])
    for sabotage in (None, noise_of_the_rank):
        changing, _ = new_run(f"changing-{sabotage}", train={"steps": 9, "checkpoint_every": 3})
        for world_size, killed_after in ((2, 4), (1, 7)):
            with pytest.raises(RanksFailed):
                ranks(world_size, on_ranks.train, changing.path, killed_after, sabotage)
        assert ranks(2, on_ranks.train, changing.path, None, sabotage) == [0, 0]
        assert on_ranks.digests(steady) == on_ranks.digests(changing)
        assert len(on_ranks.digests(steady)) == 9
        losses = [[row["generator"] for row in metrics_file.read(run)][:3] for run in (steady, changing)]
        assert (losses[1] == pytest.approx(losses[0], rel=1e-4)) == (sabotage is None)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_layout_may_change(ranks, new_run, eight_steps, layout):
    """It is a resource: the same run goes on, on two ranks, with numbers that differ in rounding only."""
    changing, _ = new_run("changing", train={"steps": 8})
    with pytest.raises(RanksFailed):
        ranks(1, on_ranks.train, changing.path, 6)
    changing, _ = new_run("changing", train={"steps": 8, "layout": layout, "micro_batch_size": 1})
    assert ranks(2, on_ranks.train, changing.path) == [0, 0]
    assert on_ranks.digests(eight_steps) == on_ranks.digests(changing)
    losses = [[row["generator"] for row in metrics_file.read(run)] for run in (eight_steps, changing)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert changing.checkpoints.joinpath(rundir.step_name(8)).is_dir()


def test_world_size_that_does_not_divide(ranks, new_run, eight_steps):
    """Three processes share a batch of 4 as 2 + 1 + 1: the same batches, and losses that differ in rounding only."""
    run, _ = new_run("uneven", train={"steps": 8})
    assert ranks(3, on_ranks.train, run.path) == [0, 0, 0]
    assert on_ranks.digests(run) == on_ranks.digests(eight_steps)
    losses = [[row["generator"] for row in metrics_file.read(one)] for one in (eight_steps, run)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_more_processes_than_pairs(ranks, new_run):
    run, _ = new_run(train={"global_batch_size": 2})
    with pytest.raises(RanksFailed, match=r"use at most 2 processes"):
        ranks(3, on_ranks.train, run.path)


def test_what_is_saved_early_and_what_is_kept_is_saved_at_its_step(ranks, new_run, tiny_shards):
    """If it failed: a node that fails early costs the start; and checkpoints to keep that are never there to evaluate."""
    every_four = 4 * 4 / len(Index(tiny_shards, "train"))  # epochs
    run, _ = new_run(train={"steps": 9, "checkpoint_every": 6, "keep_every": every_four})
    assert ranks(1, saved_steps, run.path) == [[3, 4, 6, 8, 9]]


def saved_steps(folder):
    """Train the run in `folder`, with its first save after step 3; the steps that were saved."""
    saved, honest, loop.EARLY = [], loop.save, 3
    loop.save = lambda saver, step, *rest: saved.append(step) or honest(saver, step, *rest)
    run = rundir.RunDir(folder)
    loop.train(run, rundir.read_settings(run))
    return saved


def test_precision_is_that_of_the_beginning(ranks, new_run):
    """`auto` is decided when the run begins, not again on the machine that resumes it."""
    run, _ = new_run(train={"steps": 5})
    assert ranks(1, on_ranks.train, run.path) == [0]
    path = run.checkpoints / rundir.step_name(5) / checkpoint.STATE
    assert torch.load(path, weights_only=True)["precision"] == "fp32"
    assert ranks(1, resumed_precision, run.path) == ["bf16"]


def test_bf16_that_this_processor_would_emulate_is_warned_of(ranks, new_run):
    """By every start of the run, because it may be on another machine; never where the processor has units for it."""
    run, _ = new_run(train={"steps": 5, "precision": "bf16"})
    assert ranks(1, complaints, run.path, False)[0].count("no units for bf16") == 1
    assert ranks(1, complaints, run.path, True) == [""]


def complaints(folder, has_units):
    """What a training says as a warning on a processor with or without units for bf16."""
    said = []
    linux.computes_in_bf16, loop.console.complain = lambda _: has_units, said.append
    run = rundir.RunDir(folder)
    loop.train(run, rundir.read_settings(run))
    return "".join(said)


def resumed_precision(folder):
    """What a run is resumed in when its checkpoint says bf16, as on a machine with another default."""
    run = rundir.RunDir(folder)
    honest, built = checkpoint.load_newest, []
    checkpoint.load_newest = lambda *given: (3, {**honest(*given)[1], "precision": "bf16"})
    honest_build = loop.build
    loop.build = lambda *arguments: built.append(honest_build(*arguments)) or built[0]
    loop.train(run, rundir.read_settings(run))
    return built[0].precision


def test_checkpoint_of_other_settings_is_refused(ranks, new_run):
    run, _ = new_run(train={"steps": 5})
    assert ranks(1, on_ranks.train, run.path) == [0]
    new_run(train={"steps": 5, "l1_weight": 7.0})
    with pytest.raises(RanksFailed, match="was made with other settings"):
        ranks(1, on_ranks.train, run.path)


def test_other_windows_are_refused(ranks, new_run):
    """The same settings over shards that were rebuilt with a song less: the batches to come would be others."""
    run, _ = new_run("songs", train={"steps": 4})
    assert ranks(1, on_ranks.train, run.path, None, None) == [0]
    shared = run.shards.resolve()
    run.shards.unlink()  # a link to what other tests read
    shutil.copytree(shared, run.shards)
    manifest = records.read(run.shards / "manifest.json")
    part = manifest["splits"]["train"]
    found = {name: column[:-1] for name, column in columns.read(run.shards, part["index"]).items()}
    part["index"] = columns.write(run.shards, "train", found)
    part["shards"][-1]["samples"] -= 1
    manifests.write(run.shards, manifest)
    with pytest.raises(RanksFailed, match="trained on other windows"):
        ranks(1, on_ranks.train, run.path, None, None)

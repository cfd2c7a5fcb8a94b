"""Everything at once: kills at random instants over one training."""

from __future__ import annotations

from tests.faults.soak import soak
from tests.train.on_ranks import noise_from_the_global_state

TRAIN = {"steps": 10**6, "keep_every": 1000}


def test_200_kills(new_run):
    """Rows 1, 5, 6, 14, 19, 35: 200 kills at random instants, SIGKILL 60 %, TERM 20 %, USR2 20 %, on any of the ranks.

    Seen: each of these faults, once the right instant is hit; and a training that is no longer the same, without an error.
    Now: weights bit for bit those of the undisturbed training, every sample once, no temporary file left; a kill undoes
    at most one interval and the steps during which the last checkpoint was still being written.
    """
    run, _ = new_run("killed", resources={"nodes": 2}, train=TRAIN)
    twin, _ = new_run("undisturbed", resources={"nodes": 2}, train=TRAIN)
    told = soak(run, twin, 200)
    print(told.table(5))
    assert told.problems == []
    assert sum(told.kills.values()) == 200 and told.kills["SIGKILL"] > 90
    assert told.steps > 100


def test_the_soak_sees_randomness_that_is_not_derived(new_run):
    run, _ = new_run("killed", resources={"nodes": 2}, train=TRAIN)
    twin, _ = new_run("undisturbed", resources={"nodes": 2}, train=TRAIN)
    told = soak(run, twin, 8, seed=1, sabotage=noise_from_the_global_state)
    assert told.problems == ["other weights than the undisturbed training"]

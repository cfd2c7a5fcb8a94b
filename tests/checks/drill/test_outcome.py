"""What the drill says of a run that was stopped and restarted."""

from __future__ import annotations

from p2p_dist.checks.drill import outcome
from p2p_dist.run import metrics_file
from tests.faults.test_saves import trained


def test_what_did_not_come_back_is_told(new_run):
    run, twin = trained(new_run, "run", steps=10), trained(new_run, "twin", steps=10)
    assert outcome.difference(run, twin) is None
    other = trained(new_run, "other", steps=10, seed=1)
    assert outcome.difference(run, other) == "with other batches and weights"
    (other.metrics).write_bytes(run.metrics.read_bytes())
    assert outcome.difference(run, other) == outcome.OTHER_WEIGHTS
    metrics_file.cut(run, 9)
    assert outcome.difference(run, twin) == "with other batches"
    metrics_file.cut(twin, 9)
    (run.checkpoints / ".tmp-1-step-00000011").mkdir()
    assert "behind" in outcome.difference(run, twin)

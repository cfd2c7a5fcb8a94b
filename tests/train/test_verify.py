"""What verifying a run tells of one that was harmed; that of one after faults is in tests/faults."""

import json

import pytest

from p2p_dist.common import files
from p2p_dist.run import metrics_file, rundir
from p2p_dist.train.verify import verify_run
from tests.golden.copied import run

__all__ = ["run"]


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda rows: rows, None),
        (lambda rows: [*rows[:3], rows[2], *rows[3:]], "follows step"),
        (lambda rows: [*rows[:3], {**rows[3], "digests": rows[2]["digests"]}, *rows[4:]], ", expected "),
        (lambda rows: rows[:-1], "but there is a checkpoint of step 8"),
        (lambda rows: [], "has no numbers, but there is a checkpoint of step 8"),
    ],
)
def test_a_batch_that_is_missed_doubled_or_another_is_told(run, harm, told):
    rows = metrics_file.read(run)
    assert rows[-1]["step"] == 8
    files.write_text(run.metrics, "".join(json.dumps(row) + "\n" for row in harm(rows)))
    found = verify_run(run)
    assert found == [] if told is None else any(told in line for line in found), found


def test_a_damaged_checkpoint_or_shard_is_told(run):
    state = rundir.find_steps(run.checkpoints)[-1][1] / "state.pt"
    shard = next(run.shards.glob("train-*.tar"))
    for path in (state, shard):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    found = "\n".join(verify_run(run))
    assert state.name in found and shard.name in found


def test_what_is_missing_is_told_in_plain_words(run):
    (run.shards / "manifest.json").unlink()
    (rundir.find_steps(run.checkpoints)[-1][1] / "meta.json").unlink()
    found = verify_run(run)
    assert len(found) >= 3 and not any("Errno" in line for line in found), found
    assert any("meta.json" in line for line in found) and any("the batches can't be recomputed: " in line for line in found)

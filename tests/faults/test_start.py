"""Trainings that can't begin as they should."""

from __future__ import annotations

import datetime
import shutil
import time

import pytest

from p2p_dist.common import console, files
from p2p_dist.data.index import Index
from p2p_dist.data.staging import copy_to_node
from p2p_dist.run import rundir
from p2p_dist.train import checkpoint, distributed
from p2p_dist.train.verify import verify_run
from tests.faults.job import At, Job


def test_fewer_shards_than_ranks(new_run, tiny_shards):
    """Row 16: fewer shards than ranks, and numbers of windows that nothing divides.

    Seen: some ranks run dry and the others hang at the end of the epoch, or a rank has no sample at all.
    Now: every rank takes its share of each global batch, whatever the shards; the last step comes on all ranks at once.
    """
    assert len(Index(tiny_shards, "train").shards) < 4 and len(Index(tiny_shards, "train")) % 4
    run, _ = new_run(resources={"nodes": 4}, train={"steps": 18})
    job = Job(run)
    assert job.end() == console.DONE, job.log()
    assert verify_run(run) == []


@pytest.mark.parametrize("left", [0, 512, 0.5, 0.999])
def test_a_shard_cut_short(tiny_shards, tmp_path, left):
    """Row 17: a shard that was cut short, at the start, in a header, in the middle, at the very end.

    Seen: it loads without an error in three of four cuts, with fewer samples.
    Now: its size is compared with the manifest when training starts; the message names the shard.
    """
    folder = tmp_path / "shards"
    shutil.copytree(tiny_shards, folder)
    shard = folder / next(iter(Index(tiny_shards, "train").shards))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: int(left if left > 1 else left * len(whole))])
    with pytest.raises(ValueError, match=rf"{shard.name} has \d+ bytes instead of {len(whole)}"):
        Index(folder, "train")


def test_a_shard_with_a_flipped_bit_is_not_staged(tiny_shards, tmp_path):
    """Row 17: one bit of a shard differs from what was written.

    Seen: one picture is wrong for the whole training.
    Now: what is copied into a node's memory is compared with the manifest's sha256 on the way.
    """
    folder = tmp_path / "shards"
    shutil.copytree(tiny_shards, folder)
    shard = folder / next(iter(Index(tiny_shards, "train").shards))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ValueError, match="differs from its manifest"):
        copy_to_node(folder, "train", tmp_path / "memory")


def cut_shards(folder):
    for shard in folder.glob("*.tar"):
        with shard.open("r+b") as file:
            file.truncate(100)


def test_a_shard_cut_short_while_training(new_run, tiny_shards, tmp_path):
    """Row 17: a shard is cut short under the training.

    Seen: SIGBUS under a memory map.
    Now: a short read, tried again, then an error that names shard and offset; the run fails, the last checkpoint is good.
    """
    shutil.copytree(tiny_shards, tmp_path / "shards" / "tiny")
    run, _ = new_run(resources={"nodes": 2}, train={"steps": 30, "keep_every": 100})
    job = Job(run, At(8, cut_shards, (tmp_path / "shards" / "tiny",), (0,)))
    assert job.end() != console.DONE
    assert "at offset" in job.log() and ".tar" in job.log()
    assert checkpoint.load_newest(run.checkpoints)[0] in (5, 10)  # one or two batches had been read before it was cut


def test_a_rank_that_never_comes(ranks, tmp_path):
    """Row 29: a process never starts, or the network between nodes is broken.

    Seen: a hang at the start, for as long as the job lasts.
    Now: it ends in bounded time, and the message says which rank waited, for how long, and where to look.
    """
    with pytest.raises(AssertionError, match="rank 0 of 2: not all processes connected within 0:00:01"):
        ranks(1, wait_for, tmp_path / "note", "0", seconds=100)
    with pytest.raises(AssertionError, match=r"rank 0 was not found at 127\.0\.0\.1 within 0:00:01"):
        ranks(1, wait_for, tmp_path / "other", "1", seconds=100)


def wait_for(note, rank):
    distributed.os.environ |= {"RANK": rank, "WORLD_SIZE": "2"}
    distributed.PATIENCE = datetime.timedelta(seconds=1)
    distributed.start(note)


def test_the_garbage_of_killed_writers_goes(new_run):
    """Row 33: what killed writers have left half written.

    Seen: it piles up, or is taken for the real thing.
    Now: it has names that nothing reads, and the next start removes it; what others write there stays.
    """
    run, _ = new_run(train={"steps": 5})
    (run.checkpoints / ".tmp-7-step-00000009").mkdir(parents=True)
    (run.checkpoints / ".tmp-7-step-00000009" / "state.pt").write_bytes(b"half")
    (run.path / ".tmp-7-outcome.json").touch()
    (run.path / f".tmp-7-{run.meeting.name}").touch()
    (run.path / ".tmp-7-of-another").touch()
    assert Job(run).end() == console.DONE
    assert [path.name for path in run.path.rglob(f"{files.TEMPORARY}*")] == [".tmp-7-of-another"]


def test_attempts_have_names_of_their_own(monkeypatch):
    """Row 12: Slurm begins one job again, with the same id.

    Seen: the records of two starts have one name.
    Now: each start has a name of its own.
    """
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    assert rundir.attempt() == "12.3"
    monkeypatch.delenv("SLURM_JOB_ID")
    monkeypatch.setenv("P2P_ATTEMPT", f"here.{time.time():.0f}")
    assert rundir.attempt().startswith("here.")

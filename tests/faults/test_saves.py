"""Saves that are cut short, refused, damaged, or read by others while they go."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter

import pytest

from p2p_dist.common import files
from p2p_dist.run import metrics_file, rundir
from p2p_dist.train import checkpoint
from p2p_dist.train.verify import verify_run
from tests.faults import cuts
from tests.faults.job import At, Job, trained
from tests.train import on_ranks


def test_a_save_cut_at_every_operation(ranks, tmp_path):
    """Rows 6, 33: killed in the middle of a save.

    Seen: a truncated file is taken for the newest checkpoint ("failed finding central directory").
    Now: every operation of a save was cut; resume finds the one before or the new one, whole, and nothing is left over.
    """
    ((made, wrong),) = ranks(1, cuts.cut_everywhere, tmp_path, seconds=300)
    counted = Counter(made)
    assert wrong == []
    assert {"io.open", "write", "os.fsync", "os.rename", "os.mkdir", "os.unlink", "os.rmdir"} <= counted.keys()
    assert counted["write"] > 10 and counted["os.fsync"] >= 5
    print(f"{len(made)} operations cut: {dict(counted)}")


def test_the_cuts_see_a_save_that_writes_in_place(ranks, tmp_path):
    ((_, wrong),) = ranks(1, cuts.cut_everywhere, tmp_path, cuts.writes_in_place, 4, seconds=300)
    assert any("left behind: damaged-" in problem for problem in wrong)


def limit_files(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_disk_that_is_full_for_a_while(new_run):
    """Row 8: disk full, or quota used up, at a save.

    Seen: torch.save raises, half a file stays, hours of training end.
    Now: a warning that names the step; training continues and the next save holds all of it; half files are removed.
    """
    run, _ = new_run(train={"steps": 30, "keep_every": 100})
    job = Job(run, At(8, limit_files, (100_000,)), At(17, limit_files, (resource.RLIM_INFINITY,)))
    assert job.end() == 0, job.log()
    assert "the checkpoint at step 10 could not be written (File too large" in job.log()
    assert "last saved: step 5" in job.log()
    undisturbed, _ = new_run("undisturbed", train={"steps": 30, "keep_every": 100})
    assert Job(undisturbed).end() == 0
    assert on_ranks.equal(on_ranks.state(run.path, 30), on_ranks.state(undisturbed.path, 30))
    assert not list(run.path.rglob(".tmp-*"))


def test_a_disk_that_stays_full(new_run):
    """Row 8: disk full for good.

    Seen: training for days without one checkpoint.
    Now: after three saves in a row have failed the run fails with exit code 1, says why, and the last good one stays.
    """
    run, _ = new_run(train={"steps": 40, "keep_every": 100})
    job = Job(run, At(8, limit_files, (100_000,)))
    assert job.end() == 1
    assert run.read_outcome()["outcome"] == "failed"
    assert "3 checkpoints in a row could not be written, the last at step 20" in run.read_outcome()["message"]
    assert checkpoint.load_newest(run.checkpoints)[0] == 5
    assert not list(run.checkpoints.glob(".tmp-*"))


def fill(folder):
    """Take all that is left of a disk."""
    with (folder / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16 if (os.statvfs(folder).f_bavail > 100) else 1))


@pytest.fixture
def small_disk(new_run, tmp_path):
    """`small_disk()`: a run on a disk of its own, of 48 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    run, _ = new_run("small", train={"steps": 30, "keep_every": 100})
    kept = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", run.path], check=True)
    for name, content in kept.items():
        (run.path / name).write_bytes(content)
    yield run
    subprocess.run(["umount", "-l", run.path], check=True)


@pytest.mark.parametrize("when", ["starting", "training", "stopping"])
def test_a_disk_that_is_full_for_some_seconds(when, small_disk, new_run):
    """Row 8: not even a line of numbers can be written, nor how far it is, nor the log.

    Seen: a training of days ends for good over a line of its log.
    Now: lines of numbers are kept and written later, saves are tried again; the same batches, numbers and weights.
    """
    run = small_disk
    if when == "starting":
        fill(run.path)
    faults = {"training": [At(12, fill, (run.path,), (0,))], "stopping": [At(16, fill, (run.path,), (0,)), At(16, stop_all)]}
    job = Job(run, *faults.get(when, []))
    end = time.monotonic() + 60
    while not (run.path / "filler").exists():
        assert time.monotonic() < end and job.parent.is_alive(), job.log()
        time.sleep(0.01)
    time.sleep(2.5)
    (run.path / "filler").unlink()
    code = job.end()
    assert code == (75 if when == "stopping" else 0), job.log()
    if when == "stopping":
        assert run.read_outcome()["outcome"] == "stopped" and checkpoint.load_newest(run.checkpoints)[0] >= 17
        assert Job(run).end() == 0
    undisturbed, _ = new_run("undisturbed", train={"steps": 30, "keep_every": 100})
    assert Job(undisturbed).end() == 0
    assert on_ranks.equal(on_ranks.state(run.path, 30), on_ranks.state(undisturbed.path, 30))
    numbers = [[(row["step"], row["digests"], row["l1"]) for row in metrics_file.read(one)] for one in (run, undisturbed)]
    assert numbers[0] == numbers[1] and len(numbers[0]) == 30
    assert len(run.metrics.read_text().splitlines()) == 30, "no part of a line"
    assert not list(run.path.rglob(".tmp-*"))


def stop_all():
    os.kill(os.getpid(), signal.SIGUSR1)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_bit_rot(new_run):
    """Row 7: one flipped bit in the newest checkpoint.

    Seen: it loads without an error, with a wrong weight.
    Now: its sha256 differs; it is renamed to damaged-..., training continues from the one before to the same weights.
    """
    run = trained(new_run, "rotten")
    whole = on_ranks.state(run.path, 20)
    assert verify_run(run) == []
    newest = run.checkpoints / rundir.step_name(20)
    flip(newest / checkpoint.STATE)
    assert [f"{newest / checkpoint.STATE} is damaged" in line for line in verify_run(run)] == [True]
    job = Job(run)
    assert job.end() == 0
    assert "is damaged: it differs from its record in meta.json; it is renamed to damaged-" in job.log()
    assert on_ranks.equal(whole, on_ranks.state(run.path, 20))
    assert [line.split("/")[-1] for line in verify_run(run)] == ["damaged-step-00000020 was damaged and renamed"]
    shutil.rmtree(run.checkpoints / "damaged-step-00000020")
    assert verify_run(run) == []


def test_verify_sees_a_sample_missed_or_doubled(new_run):
    """Row 19: resume repeats or skips samples.

    Seen: nothing, the loss looks fine.
    Now: metrics.jsonl names every global batch by a digest, and verify recomputes each from manifest and seed.
    """
    run = trained(new_run, "audited")
    rows = metrics_file.read(run)
    doubled = [*rows[:6], rows[5], *rows[6:]]
    missed = [*rows[:6], *rows[7:]]
    other = [*rows[:6], {**rows[6], "digests": rows[7]["digests"]}, *rows[7:]]
    for changed, told in ((doubled, "step 6 follows step 6"), (missed, "step 8 follows step 6"), (other, "batch of step 7 is")):
        files.write_text(run.metrics, "".join(json.dumps(row) + "\n" for row in changed))
        assert any(told in line for line in verify_run(run)), told
    files.write_text(run.metrics, "".join(json.dumps(row) + "\n" for row in rows[:-1]))
    assert any("ends at step 19, but there is a checkpoint of step 20" in line for line in verify_run(run))


def test_a_leased_checkpoint_stays(tmp_path):
    """Row 36: training removes a checkpoint that an evaluation is reading.

    Seen: the evaluation fails halfway.
    Now: a lease keeps it until it is read; one that is gone already is skipped; a dead reader's lease runs out.
    """
    for step in (5, 10, 15, 20):
        cuts.one_save(tmp_path, step)
    cuts.one_save(tmp_path, 25)
    oldest, newest = checkpoint.find(tmp_path)[1:]
    assert (oldest.step, newest.step) == (20, 25)
    with checkpoint.leased(oldest):
        cuts.one_save(tmp_path, 30)
        assert [found.step for found in checkpoint.find(tmp_path)] == [5, 20, 25, 30]
    lease = oldest.path / "lease-of-one-that-died"
    lease.touch()
    checkpoint.prune(tmp_path, 2, lambda step: step == 5)
    assert oldest.path.is_dir()
    old = time.time() - checkpoint.LEASE_SECONDS - 1
    os.utime(lease, (old, old))
    checkpoint.prune(tmp_path, 2, lambda step: step == 5)
    assert not oldest.path.exists()
    with pytest.raises(FileNotFoundError):
        checkpoint.load_generator(oldest)


def test_reading_while_pruning(tmp_path):
    """Row 36: checkpoints are read while the training removes old ones as fast as it can.

    Seen: a reader gets half a checkpoint.
    Now: a checkpoint is whole or gone.
    """
    over, wrong, read = threading.Event(), [], [0]

    def reader():
        while not over.is_set():
            for found in checkpoint.find(tmp_path):
                try:
                    weights = checkpoint.load_generator(found)
                except FileNotFoundError:
                    continue
                except Exception as error:
                    wrong.append(error)
                    return
                read[0] += 1
                if not weights["layer 0"].eq(found.step).all():
                    wrong.append(found)

    threads = [threading.Thread(target=reader) for _ in range(2)]
    for thread in threads:
        thread.start()
    for step in range(10, 260, 5):
        cuts.one_save(tmp_path, step)
    over.set()
    for thread in threads:
        thread.join()
    assert wrong == [] and read[0] > 20


def test_metrics_are_cut_back(new_run):
    """Rows 34, 35: numbers after the checkpoint that a resume continues from; logs of several attempts.

    Seen: curves that go back and forth, logs that are overwritten.
    Now: metrics.jsonl is cut back to the checkpoint, half a line at its end is dropped, logs append under a banner each.
    """
    run, _ = new_run(train={"steps": 20})
    job = Job(run).until(12)
    job.signal(signal.SIGKILL)
    job.end()
    with run.metrics.open("a") as file:
        file.write('{"step": 14, "epo')
    (run.path / ".tmp-1-metrics.jsonl").touch()
    again = Job(run)
    assert again.end() == 0
    assert [row["step"] for row in metrics_file.read(run)] == list(range(1, 21))
    assert again.log().count("--- train, attempt test.") == 2
    assert "\x1b" not in again.log()
    assert verify_run(run) == [] and not list(run.path.rglob(".tmp-*"))

"""What one process of the preflight checks."""

import os
import time

from p2p_dist.checks.preflight.ranks import check_disk, limited
from p2p_dist.checks.report import FAILED, OK
from p2p_dist.run.rundir import RunDir


def test_a_check_that_hangs_or_raises_is_a_finding():
    begun = time.monotonic()
    late = limited("slow", 0.2, lambda: time.sleep(60))
    assert (late.state, late.check) == (FAILED, "slow") and "no answer in" in late.found and time.monotonic() - begun < 10

    def full():
        raise OSError(122, os.strerror(122), "/scratch")

    assert "the quota is used up" in limited("disk", 5, full).found


def test_a_disk_that_is_nearly_full(tmp_path):
    run = RunDir(tmp_path)
    run.results.mkdir()
    assert check_disk(run, size=1 << 20, least=1).state == OK
    assert check_disk(run, size=1 << 20, least=1 << 60).state == FAILED
    assert not list(run.results.iterdir())

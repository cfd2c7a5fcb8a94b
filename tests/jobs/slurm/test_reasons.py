"""Why jobs wait, in words."""

import time

import pytest

from p2p_dist.jobs.slurm import reasons, squeue


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Priority", "jobs with a higher priority come first"),
        ("ReqNodeNotAvail, UnavailableNodes:nid[1-4]", "nodes that it needs are down, or reserved for other jobs"),
        ("ReqNodeNotAvail,_Reserved_for_maintenance", "nodes that it needs are down, or reserved for other jobs"),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
            "nodes that it needs are down, or reserved for other jobs",
        ),
        ("launch failed requeued held", "a node could not start it, so Slurm holds it; scontrol release lets it start"),
        ("launch_failed_requeued_held", "a node could not start it, so Slurm holds it; scontrol release lets it start"),
        ("AssocGrpBillingMinutes", "it may use more hours than its project has left"),
        ("QOSGrpCPUMinutesLimit", "it may use more hours than its project has left"),
        ("AssocMaxJobsLimit", "a limit of its project or user is reached; jobs that end make room"),
        ("QOSMaxJobsPerUserLimit", "a limit of its QoS is reached; jobs that end make room"),
        ("MaxJobsPerAccount", "a limit of its QoS is reached; jobs that end make room"),
        (squeue.NEVER, "a job before it has failed; the launch command, run again, lets it wait for a new one"),
        ("BurstBufferStageIn", "Slurm's reason is BurstBufferStageIn"),
    ],
)
def test_a_reason_is_told_in_plain_words(reason, words):
    assert reasons.in_words(reason) == words
    assert reasons.why(reason, None) == f"{words}; Slurm names no start yet"
    assert reasons.why(reason, time.time()) == f"{words}; Slurm expects it to start now"


def test_a_start_is_told_with_the_time_until_then(monkeypatch):
    noon = time.mktime((2026, 11, 27, 12, 0, 0, 0, 0, -1))
    monkeypatch.setattr(reasons.time, "time", lambda: noon)
    assert reasons.when(noon - 3600) == reasons.when(noon + 59) == "now"
    assert reasons.when(noon + 60) == "12:01, in 1:00" and reasons.when(noon + 3725) == "13:02, in 1:02:05"
    assert reasons.when(noon + 86400) == "2026-11-28 12:00, in 24:00:00"
    assert reasons.seconds_of("2026-11-27T12:00:00") == noon
    assert reasons.seconds_of("N/A") is None and reasons.seconds_of("") is None and reasons.seconds_of("Unknown") is None


def test_the_starts_that_slurm_expects_are_read(tmp_path, monkeypatch):
    """Of an array's elements each, and of the array the first; what a site's wrapper adds is passed over."""
    (tmp_path / "squeue").write_text(
        "#!/bin/sh\ncase $* in *--states=PENDING*) ;; *) echo '9_1|2026-11-27T09:00:00' ;; esac\n"  # one that runs
        "printf '7|N/A\\n 8|2026-11-27T12:00:00\\n'\n"
        "printf '9_2|2026-11-27T12:00:01\\n9_3|2026-11-27T12:00:03\\nhello\\na|b|c\\n'\n"
    )
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = reasons.expected_starts()
    noon = reasons.seconds_of("2026-11-27T12:00:00")
    assert found == {"8": noon, "9_2": noon + 1, "9_3": noon + 3, "9": noon + 1}
    (tmp_path / "squeue").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert reasons.expected_starts() == {}, "no answer"

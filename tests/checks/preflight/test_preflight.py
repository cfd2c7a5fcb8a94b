"""The preflight on one machine, and how it reports what its processes found."""

from dataclasses import asdict

import pytest

from p2p_dist.checks.preflight import preflight
from p2p_dist.checks.report import FAILED, OK, Finding, report
from p2p_dist.common import files
from p2p_dist.run.rundir import RunDir


def test_preflight_on_this_machine(typed, tmp_path):
    (tmp_path / "no songs").mkdir()
    shown = typed("preflight", "--cluster", "local", "--nodes", "2", "--data", str(tmp_path / "no songs"), code=1)
    states = {line[8:].split("  ")[0]: line.split()[0] for line in shown.splitlines() if line[0] in "oF-"}
    bad = [name for name, state in states.items() if state == "FAILED"]
    assert bad == ["data"] and f"does not see {tmp_path / 'no songs'}" in shown
    assert {"torch", "training step", "python path", "disk", "all-reduce", "signals"} <= {
        n for n in states if states[n] == "ok"
    }
    assert "2 processes on cpu: 16 MB in" in shown and "1 of 12 checks failed" in shown


def left(run, *findings):
    """What processes found, as they leave it."""
    for rank, found in enumerate(findings):
        files.write_json(run.results / f"rank-{rank}.json", [asdict(one) for one in found])


def test_the_first_process_that_failed_speaks_for_all(tmp_path, capsys):
    run = RunDir(tmp_path)
    good, bad = Finding("devices", OK, "8 x MI250X"), Finding("devices", FAILED, "nid2 has 7 of 8 GPUs", "another node")
    left(run, [good], [bad], [good])
    (found,) = preflight.merge(run, 3, "")
    assert report([found]) == 1
    shown = capsys.readouterr().out
    assert "nid2 has 7 of 8 GPUs (1 of 3 processes)" in shown and "-> another node" in shown


@pytest.mark.parametrize(
    ("log", "name", "said"),
    [
        ("error: nid1: bind: there is no /flash on this node", "binds", "2 of 3 processes: nid1: there is no /flash"),
        (
            "error: nid1: runtime: the command singularity was not found on this node",
            "runtime",
            "the command singularity was not found",
        ),
        ("INFO: x\nFATAL:   image format not recognized", "image", "not recognized"),
        ("Traceback\nImportError: libamdhip64.so.6: no such file", "start", "libamdhip64.so.6"),
        ("", "start", "nothing in their logs"),
    ],
)
def test_processes_that_did_not_start(log, name, said, tmp_path):
    run = RunDir(tmp_path)
    left(run, [Finding("torch", OK, "")])
    first, _ = preflight.merge(run, 3, log)
    assert (first.check, first.state) == (name, FAILED) and said in first.found

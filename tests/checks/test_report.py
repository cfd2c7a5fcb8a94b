"""How the results of checks are printed."""

from p2p_dist.checks.report import FAILED, NONE, OK, Finding, report


def test_what_to_do_is_told_of_what_failed_alone(capsys):
    assert report([Finding("disk", OK, "fast", "nothing"), Finding("devices", FAILED, "7 of 8", "another node")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["ok      disk     fast", "FAILED  devices  7 of 8"]
    assert lines[2:] == ["                 -> another node", "1 of 2 checks failed"]


def test_what_does_not_apply_is_no_failure(capsys):
    assert report([Finding("disk", OK, "fast"), Finding("devices", NONE, "no GPU")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "all 2 checks passed or do not apply"

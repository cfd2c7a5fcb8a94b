"""The status command as it is typed."""

import contextlib
import io
import json

from p2p_dist.cli import status as status_command
from p2p_dist.common import files
from p2p_dist.run import rundir
from tests.jobs.run_on_lumi import run, show

__all__ = ["run"]


def test_a_name_without_a_run_among_others_is_an_error_after_they_are_shown(run):
    """As the same name alone is; whatever is asked of the others."""
    files.write_text(rundir.find("broken").config, "train: [")
    for name, said in (
        ("yours", "error: no run yours in"),
        ("up!", "error: run 'up!': use letters"),
        ("broken", "not readable"),
    ):
        several, alone = show("status", name, "mine"), show("status", name)
        assert several.returncode == alone.returncode == 2 and said in several.stderr
        assert several.stderr == alone.stderr and alone.stdout == "" and "40 of 100" in several.stdout
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert status_command.main(["yours", "mine", "--verify"]) == 2
    lines = said.getvalue().splitlines()
    assert lines[0].startswith("mine: ") and lines[-1].startswith("error: no run yours in")
    listed = show("status", "--json", "yours", "mine")
    assert listed.returncode == 2 and [row["run"] for row in json.loads(listed.stdout)] == ["mine"]


def test_no_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "none"))
    none = show("status", "--json")
    assert (none.returncode, none.stdout) == (0, "[]\n")
    assert show("status").returncode == 2


def test_the_table_and_the_json(run):
    table = show("status", "mine")
    assert table.returncode == 0 and "40 of 100" in table.stdout and "12.00 used, 4.00 lost to restarts" in table.stdout
    assert "1 of the starts was killed" in table.stdout
    every = show("status").stdout
    assert "mine" in every and "0.1250" in every and "40 of 100" in every
    assert json.loads(show("status", "--json").stdout)[0]["step"] == 40


def test_a_mistake_is_one_line(run):
    for command, arguments, said in (
        ("status", ("yours",), "no run yours in"),
        ("cancel", ("yours",), "no run yours in"),
        ("status", ("../up",), "is not in the folder of runs"),
        ("cancel", ("../up",), "is not in the folder of runs"),
        ("status", ("up!",), "use letters"),
    ):
        done = show(command, *arguments)
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr

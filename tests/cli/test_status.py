"""The status command as it is typed."""

import contextlib
import io
import json

from p2p_dist.cli import status as status_command
from p2p_dist.common import files
from p2p_dist.jobs import status, status_tables
from p2p_dist.run import rundir
from tests.jobs.run_on_lumi import run
from tests.jobs.submit_command import BASE_ONLY, launch, type_here

__all__ = ["run"]


def test_a_name_without_a_run_among_others_is_an_error_after_they_are_shown(run):
    """As the same name alone is; whatever is asked of the others."""
    files.write_text(rundir.find("broken").config, "train: [")
    for name, said in (
        ("yours", "error: no run yours in"),
        ("up!", "error: run 'up!': use letters"),
        ("broken", "not readable"),
    ):
        several, alone = type_here("status", name, "mine"), type_here("status", name)
        assert several.returncode == alone.returncode == 2 and said in several.stderr
        assert several.stderr == alone.stderr and alone.stdout == "" and "40 of 100" in several.stdout
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert status_command.main(["yours", "mine", "--verify"]) == 2
    lines = said.getvalue().splitlines()
    assert lines[0].startswith("mine: ") and lines[-1].startswith("error: no run yours in")
    assert "Errno" not in said.getvalue() and ": no manifest: preprocessing has not finished: /" in said.getvalue()
    listed = type_here("status", "--json", "yours", "mine")
    assert listed.returncode == 2 and [row["run"] for row in json.loads(listed.stdout)] == ["mine"]


def test_a_linked_run_is_shown_by_the_name_that_was_typed(run):
    link = rundir.runs_root() / "linked"
    run.path.rename(rundir.runs_root().parent / "moved away")
    link.symlink_to(rundir.runs_root().parent / "moved away")
    assert "run linked" in type_here("status", "linked").stdout
    assert [row["run"] for row in json.loads(type_here("status", "--json").stdout)] == ["linked"]


def test_no_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "none"))
    none = type_here("status", "--json")
    assert (none.returncode, none.stdout) == (0, "[]\n")
    assert type_here("status").returncode == 2


def test_the_table_and_the_json(run):
    table = type_here("status", "mine")
    assert table.returncode == 0 and "40 of 100" in table.stdout and "12.00 used, 4.00 lost to restarts" in table.stdout
    assert "1 of the starts was killed: counted until its last status" in " ".join(table.stdout.replace("│", " ").split())
    every = type_here("status").stdout
    assert "mine" in every and "0.1250" in every and "40 of 100" in every
    assert json.loads(type_here("status", "--json").stdout)[0]["step"] == 40


def test_several_killed_starts_are_told_in_the_plural(run, capsys):
    found = status.gather(rundir.find("mine"))
    found["gpu_hours"]["estimated"] = 2
    status_tables.show(found)
    assert "2 of the starts were killed: counted until their" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_a_login_node_needs_no_torch(run):
    for command, code, said in (("status", 0, "40 of 100"), ("cancel", 2, "press Ctrl-C")):
        done = launch("mine", command=command, code=BASE_ONLY)
        assert done.returncode == code and said in done.stdout + done.stderr and "Traceback" not in done.stderr, done


def test_a_mistake_is_one_line(run):
    for command, arguments, said in (
        ("status", ("yours",), "no run yours in"),
        ("cancel", ("yours",), "no run yours in"),
        ("status", ("../up",), "is not in the folder of runs"),
        ("cancel", ("../up",), "is not in the folder of runs"),
        ("status", ("up!",), "use letters"),
    ):
        done = type_here(command, *arguments)
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr

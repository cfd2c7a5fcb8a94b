"""The option --sweep: how it may be written, and the command lines that it stands for."""

import pytest

from p2p_dist.cli import sweep
from p2p_dist.run import rundir


@pytest.mark.parametrize("typed", [("--sweep", "A", "B"), ("--sweep=A", "--sweep=B"), ("--sweep", "A", "--sweep", "B")])
def test_a_sweep_is_written_in_any_way(typed):
    assert sweep.split(["--nodes", "2", *typed, "--time", "5"]) == (["--nodes", "2", "--time", "5"], ["A", "B"])


@pytest.mark.parametrize("typed", [["--sweep"], ["--sweep="], ["--sweep", "--dry-run"]])
def test_a_sweep_of_nothing_is_named(typed):
    with pytest.raises(ValueError, match=r"--sweep is empty: give settings with their values, as in train\.seed=0,1,2"):
        sweep.split(typed)


def test_a_line_for_each_combination_with_its_values_in_its_name():
    lines = sweep.combinations(["--nodes", "2"], ["train.seed=0,1", "nodes=1-2,4"], "a")
    assert [line[-1] for line in lines] == ["a-seed-0-nodes-1-2", "a-seed-0-nodes-4", "a-seed-1-nodes-1-2", "a-seed-1-nodes-4"]
    assert lines[1] == ["--nodes", "2", "--train.seed", "0", "--nodes", "4", "--run", "a-seed-0-nodes-4"]


@pytest.mark.parametrize("swept", [["train.seed"], ["train.seed=0,,1"], ["train.seed="], ["train.seed=0", "train.seed=1"]])
def test_what_is_no_setting_with_its_values_is_named(swept):
    with pytest.raises(ValueError, match=f"--sweep {swept[-1]}: give each setting once, with its values"):
        sweep.combinations([], swept, "a")


def test_a_value_given_twice_is_named():
    """Both would be one run."""
    with pytest.raises(ValueError, match=r"--sweep train\.seed=0,1,0: a value is there twice"):
        sweep.combinations([], ["train.seed=0,1,0"], "a")


def test_values_that_no_run_may_be_called_are_told_apart_in_its_name():
    """Paths and tasks; what a name may have, stays as it is."""
    lines = sweep.combinations([], ["data.root=/a/b c,~/d", "data.task=vocals->drums,bass", "data.seed=-1"], "a")
    names = [line[-1] for line in lines]
    assert names == [f"a-root-{root}-task-{task}-seed--1" for root in ("a-b-c", "d") for task in ("vocals-drums", "bass")]
    assert all(rundir.RUN_NAME.fullmatch(name) for name in names) and lines[0][:2] == ["--data.root", "/a/b c"]
    with pytest.raises(ValueError, match=r"--sweep data\.root=/a/b,/a-b: two of the values give the same name of a run"):
        sweep.combinations([], ["data.root=/a/b,/a-b"], "a")

"""How runs are shown as tables."""

import dataclasses
import re

import pytest

from p2p_dist.common import files
from p2p_dist.jobs import stages, status, status_tables
from p2p_dist.settings import config, presets
from tests.jobs.run_on_lumi import run

__all__ = ["run"]


def test_the_nodes_that_a_training_had_are_told(run, capsys):
    """If it failed: nobody sees that a training of 1 to 4 nodes trains on one; or the bill to come is that of four."""
    settings = dataclasses.replace(
        presets.from_saved(run.config), resources=config.Resources(nodes=4, least_nodes=1, cluster="lumi")
    )
    files.write_text(run.config, presets.to_yaml(settings))
    lines = [
        "launch 7",
        "start 7.0 0 10000 4",
        "end 7.0 10 13600 75 stopped",
        "start 7.1 10 14000 4",
        "end 7.1 20 17600 75 stopped",
    ]
    lines += ["start 7.2 20 20000 1", "end 7.2 40 23600 75 stopped"]
    files.write_text(run.slurm / "train" / "attempts", "\n".join(lines) + "\n")
    found = status.gather(run)
    assert found["nodes"] == {
        "wanted": "1-4",
        "starts": [{"attempt": f"7.{n}", "nodes": nodes, "seconds": 3600.0} for n, nodes in enumerate((4, 4, 1))],
    }
    hours = found["gpu_hours"]
    assert hours["used"] == pytest.approx(4 * (4 + 4 + 1)) and hours["predicted"] == pytest.approx(
        hours["used"] + 4 * 60 / 3600
    )
    status_tables.show(found)
    assert re.search(r"nodes \(1-4 wanted\) *│ 4 for 2:00:00, then 1 for 1:00:00 ", capsys.readouterr().out)
    files.write_text(run.config, presets.to_yaml(dataclasses.replace(settings, resources=config.Resources(nodes=4))))
    files.write_text(run.slurm / "train" / "attempts", "\n".join(lines[:3]) + "\n")
    status_tables.show(status.gather(run))
    assert "nodes (" not in capsys.readouterr().out, "it had what was asked for"


def test_the_best_is_named(run, capsys):
    """By whoever evaluates, in a file for people."""
    assert status.gather(run)["best"] is None and not stages.last_lines(run).startswith("best")
    best = {"step": 40, "score": 0.5, "chosen_on": "valid", "note": ""}
    files.write_json(run.checkpoints / "best.json", best)
    (run.checkpoints / "step-00000040").mkdir(exist_ok=True)
    assert status.gather(run)["best"] == {**best, "schema": 0}
    status_tables.show(status.gather(run))
    assert "step 40, score 0.500 on valid songs" in capsys.readouterr().out
    run.page.parent.mkdir()
    run.page.touch()
    assert stages.last_lines(run).startswith("best checkpoint: step 40, score 0.500 on valid songs\npage: ")


def test_a_long_reason_stands_below_the_table(run, capsys):
    reason = "the shards of " + "many " * 30 + "songs are gone"
    run.write_outcome("train", "failed", reason)
    status_tables.show(status.gather(run))
    status_tables.show_all(status.gather_each([run]))
    shown = capsys.readouterr().out
    assert shown.count(f"\ntrain: failed: {reason}\n") == 1


def test_what_is_wrong_with_a_run_that_can_be_read_is_told_too(run):
    found = status.gather(run)
    _, lines = status_tables.table_of_all([found, {**found, "wrong": "the shards are gone"}])
    assert lines == ["mine: the shards are gone"]
    assert "wrong: the shards are gone" in status_tables.table_of_one({**found, "wrong": "the shards are gone"})[1]

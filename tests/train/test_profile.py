"""Profiles of steps: which steps, what the log says, and that the training stays the same."""

from __future__ import annotations

import gzip
import json
import os
import re

import pytest

from p2p_dist.common import console
from p2p_dist.settings.presets import PRESETS
from p2p_dist.train import profile
from tests.train import on_ranks
from tests.train.small import SMALLEST

AS_PRESET = {part: getattr(PRESETS["tiny"].model, part) for part in SMALLEST}
"""In the smallest networks convolutions may not be among the operations that take longest, which the log lists."""


def traced(run):
    """Events of every trace of a run, by the name of its file."""
    found = {}
    for path in sorted((run.path / "profile").iterdir()):
        with gzip.open(path, "rt") as text:
            found[path.name] = json.load(text)["traceEvents"]
    return found


def count(events, name):
    return sum(event.get("name") == name and event.get("cat") == "user_annotation" for event in events)


def train_and_note(folder):
    """Train; what is said goes to a file, because the ranks' output is not this test's."""
    with (folder / f"said-{os.environ['RANK']}.txt").open("w") as said:
        console.say = lambda text: print(text, file=said)
        return on_ranks.train(folder)


def test_the_steps_that_are_asked_for_by_each_rank(ranks, new_run):
    run, _ = new_run("profiled", model=AS_PRESET, train={"steps": 5, "profile": "2-4"})
    assert ranks(2, train_and_note, run.path) == [0, 0]
    found = traced(run)
    assert list(found) == ["steps-2-4-rank0.json.gz", "steps-2-4-rank1.json.gz"]
    for events in found.values():
        assert count(events, "data wait") == 3 and count(events, "backward") == 2 * 3 and count(events, "update") == 3 * 3
        assert any("all_reduce" in event.get("name", "") for event in events)
    said = (run.path / "said-0.txt").read_text()
    assert "profile" not in (run.path / "said-1.txt").read_text()
    (head,) = re.findall(r"profile: 3 steps of [0-9.e+]+ ms: (.*) \(they overlap\); per step:", said)
    shares = dict(re.findall(r"([a-z -]+?) ([0-9]+) %", head.replace(", ", "")))
    assert list(shares) == [*profile.PARTS, "all-reduce", "copies"]
    assert 10 < int(shares["backward"]) < 100 and 5 < int(shares["forward"]) < 100 and int(shares["copies"]) == 0
    rows = re.findall(r"profile: +([0-9.]+) ms, +([0-9]+) %, +([0-9.]+) calls: (.+)", said)
    assert len(rows) == profile.OPERATIONS and [float(row[0]) for row in rows] == sorted(
        (float(row[0]) for row in rows), reverse=True
    )
    assert any("convolution" in row[3] for row in rows)
    plain, _ = new_run("plain", model=AS_PRESET, train={"steps": 5})
    assert ranks(2, on_ranks.train, plain.path) == [0, 0]
    assert on_ranks.equal(on_ranks.state(run.path, 5), on_ranks.state(plain.path, 5)), "a profile changes no result"


def test_a_training_that_ends_before_writes_what_there_is(ranks, new_run):
    run, _ = new_run(train={"steps": 3, "profile": "3-20"})
    assert ranks(1, on_ranks.train, run.path) == [0]
    assert list(traced(run)) == ["steps-3-3-rank0.json.gz"]


def test_steps_that_do_not_come_are_not_recorded(tmp_path):
    one = profile.Profile(tmp_path / "profile", "4-5", on_ranks.CPU)
    for step in (1, 2, 3, 6):
        one.before(step)
        one.after(step, is_end=step == 6)
        assert one.recorder is None
    assert not one.folder.exists()


@pytest.mark.parametrize(("asked", "first", "trace"), [("4", 1, "4-4"), ("4-5", 1, "4-5"), ("2-5", 4, "4-5")])
def test_one_step_may_be_recorded_and_a_resumed_training_records_those_that_are_left(tmp_path, asked, first, trace):
    one = profile.Profile(tmp_path, asked, on_ranks.CPU)
    for step in range(first, 8):
        one.before(step)
        one.after(step, is_end=False)
    assert [path.name for path in tmp_path.iterdir()] == [f"steps-{trace}-rank0.json.gz"]

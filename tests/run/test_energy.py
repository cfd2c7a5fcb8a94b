"""The energy of a training, as its GPUs and Slurm's accounting tell it."""

import pytest

from p2p_dist.run import energy, rundir


def test_what_gpus_told_is_added_up_over_the_starts(tmp_path, monkeypatch):
    run = rundir.RunDir(tmp_path)
    assert energy.told_by_gpus(run) == []
    for attempt, step, joules in (("7.0", 5, 10.0), ("7.0", 10, 25.0), ("7.1", 10, 3.0), ("7.1", 20, 8.5)):
        monkeypatch.setenv("P2P_ATTEMPT", attempt)
        energy.note(run, step, joules)
    with run.energy.open("a") as file:
        file.write('{"schema": 1, "attempt": "7.2", "st')
    assert energy.told_by_gpus(run) == [(5, 10.0), (10, 25.0), (10, 28.0), (20, 33.5)]


def test_a_line_that_cannot_be_written_ends_no_training(tmp_path):
    energy.note(rundir.RunDir(tmp_path / "not there"), 5, 1.0)
    (tmp_path / "energy.jsonl").symlink_to(tmp_path / "elsewhere")
    energy.note(rundir.RunDir(tmp_path), 5, 1.0)
    assert not (tmp_path / "elsewhere").exists()


WHOLE = "7|REQUEUED|3000\n7.batch|CANCELLED|1000\n7.extern|COMPLETED|1010\n7.0|COMPLETED|2000\n"
AGAIN = "7|COMPLETED|900\n7.batch|COMPLETED|300\n7.0|COMPLETED|600\n"


@pytest.mark.parametrize(
    ("text", "joules"),
    [
        (WHOLE, 2000),
        (WHOLE + AGAIN, 2600),
        ("", None),
        ("7|COMPLETED|0\n7.batch|COMPLETED|0\n7.0|COMPLETED|0\n", None),
        ("7|COMPLETED|\n7.0|COMPLETED|\n", None),
        ("7|COMPLETED|18446744073709551614\n7.0|COMPLETED|18446744073709551614\n", None),
        (WHOLE + "7|COMPLETED|0\n7.0|COMPLETED|0\n", None),  # of one start only: half of it is not the whole
        ("7.0|COMPLETED|5\n", None),
        ("8|RUNNING|\n8.0|RUNNING|12\n", 12),
        (WHOLE + "9|COMPLETED|70\n9.0|COMPLETED|70\n", 2000),  # another element of the array 7
    ],
)
def test_what_the_accounting_tells(text, joules):
    assert energy.told_by_sacct(text, ["7", "8"]) == joules

"""What is sent to an experiment tracker, and when; with the real packages in tests/faults/test_trackers.py."""

from __future__ import annotations

from contextlib import closing

import pytest

from p2p_dist.cli import track
from p2p_dist.common import files
from p2p_dist.run import metrics_file, rundir
from p2p_dist.settings import presets
from p2p_dist.train import tracker


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run without metrics."""
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "TRACKIO_DIR"):
        monkeypatch.delenv(name, raising=False)
    run = rundir.find("one")
    files.write_text(run.config, presets.to_yaml(presets.preset("tiny")))
    return run


def add(run, *steps):
    for step in steps:
        metrics_file.Writer(run).append({"step": step, "epoch": step / 8, "l1": step / 10, "digests": "ab"})


def test_a_tracker_that_fails_is_told_once_and_the_rest_can_be_sent_later(run, monkeypatch, capsys):
    sent = []

    def opened(folder, name, known, settings):
        def send(step, values):
            if step == 2 and not sent[-1:] == ["up again"]:
                raise ConnectionError("the server is away\nas it was before")
            sent.append(step)

        return "x", send, lambda: None

    monkeypatch.setattr(tracker, "_open_mlflow", opened)
    add(run, 1)
    follower = tracker.Follower(run, "mlflow")
    for step in (2, 3):
        add(run, step)
        follower.log({"step": step, "l1": 0.5})
    follower.close()
    said = capsys.readouterr().err
    assert said == "warning: mlflow: the server is away; training continues without it, 'track' sends the rest later\n"
    assert sent == [1]
    sent.append("up again")
    with closing(tracker.Tracker(run, "mlflow")) as later:
        assert later.catch_up() == 2 and sent == [1, "up again", 2, 3]


def test_one_process_at_a_time(run, monkeypatch, capsys):
    monkeypatch.setattr(tracker, "_open_mlflow", lambda *_: ("x", print, lambda: None))
    with closing(tracker.Tracker(run, "mlflow")):
        with pytest.raises(ValueError, match="mlflow receives the metrics of the run one already"):
            tracker.Tracker(run, "mlflow")
        tracker.Follower(run, "mlflow").close()
        assert "training continues without it" in capsys.readouterr().err


def test_what_is_not_a_finite_number_is_not_sent(run, monkeypatch):
    sent = []
    monkeypatch.setattr(tracker, "_open_mlflow", lambda *_: ("x", lambda step, values: sent.append(values), lambda: None))
    with closing(tracker.Tracker(run, "mlflow")) as one:
        one.log({"step": 1, "l1": 0.5, "images": 3, "digests": "1", "none": None, "nan": float("nan"), "is": True})
    assert sent == [{"l1": 0.5, "images": 3.0}]


def test_a_record_of_somebody_else_is_checked(run):
    files.write_text(run.path / "trackers" / "mlflow" / "sent.json", '{"schema": 1, "id": "../x", "step": 3}')
    with pytest.raises(files.DamagedError, match=r"sent\.json"):
        tracker.Tracker(run, "mlflow")


def test_the_command_names_a_tracker_that_fails(run, monkeypatch, capsys):
    class OfThePackage(Exception):
        pass

    def opened(*_):
        raise OfThePackage("Run with id=x not found\nin its database")

    monkeypatch.setattr(track.packages, "is_installed", lambda name: True)
    monkeypatch.setattr(tracker, "_open_mlflow", opened)
    assert track.main(["one", "--to", "mlflow"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: mlflow: Run with id=x not found; check that its server answers; to send everything again")
    assert f"remove {run.path / 'trackers' / 'mlflow'}\n" in said

"""Experiment trackers over restarts, with the packages themselves: one run there, every step once."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import struct
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from p2p_dist.common import files
from p2p_dist.run import metrics_file, rundir
from p2p_dist.settings import presets
from p2p_dist.train import tracker
from tests.rank_processes import RanksFailed
from tests.train import on_ranks

CHECKOUT = Path(__file__).resolve().parents[2]


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


def track(run, kind):
    """The command, in a process of its own: what it says."""
    done = subprocess.run(
        [sys.executable, "launch/track.py", run.path.name, "--to", kind],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_mlflow(run):
    from mlflow.tracking import MlflowClient

    add(run, 1, 2, 3)
    with closing(tracker.Tracker(run, "mlflow")) as first:
        assert first.catch_up() == 3 and first.catch_up() == 0
    metrics_file.cut(run, 2)
    add(run, 3, 4, 5)
    assert track(run, "mlflow") == f"one: 2 lines sent to mlflow, run {first.id}, up to step 5\n"
    client = MlflowClient(f"sqlite:///{run.path}/trackers/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("p2p_dist")
    (there,) = client.search_runs([experiment.experiment_id])
    assert there.info.run_id == first.id and there.info.run_name == "one" and there.info.status == "FINISHED"
    assert there.data.params["data.task"] == "drums" and there.data.params["train.steps"] == "20"
    assert set(there.data.metrics) == {"epoch", "l1"}
    values = [(metric.step, metric.value) for metric in client.get_metric_history(first.id, "l1")]
    assert values == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4), (5, 0.5)]


def test_a_server_that_does_not_answer_does_not_hold_up_the_training(run, monkeypatch, capsys):
    """As behind a firewall that drops packets: MLflow alone waits 16 minutes, and the other ranks call the training hanging."""
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(name, "")  # restored after the test
        monkeypatch.delenv(name)
    monkeypatch.setattr(tracker, "_ANSWER", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()
        follower = tracker.Follower(run, "mlflow")
        assert 1 < time.monotonic() - begun < 20
    assert "training continues without it" in capsys.readouterr().err
    follower.log({"step": 1, "l1": 0.1})
    follower.close()


def test_trackio(run):
    add(run, 1, 2)
    assert "2 lines sent" in track(run, "trackio")
    add(run, 3)
    assert "1 lines sent" in track(run, "trackio") and "0 lines sent" in track(run, "trackio")
    (database,) = (run.path / "trackers" / "trackio").glob("*.db")
    with closing(sqlite3.connect(database)) as opened:
        rows = opened.execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert len({name for name, _, _ in rows}) == 1
    assert [(step, json.loads(metrics)["l1"]) for _, step, metrics in rows] == [(1, 0.1), (2, 0.2), (3, 0.3)]


def records_of(data):
    """The records of a file of Weights & Biases: 7 bytes of head, then a log as LevelDB's, in blocks of 32 KiB."""
    place, record = 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def wandb_steps(run):
    """Steps in the offline files of Weights & Biases, in order of the files, and the ids of their runs."""
    from wandb.proto import wandb_internal_pb2

    steps, ids = [], set()
    for path in sorted((run.path / "trackers").rglob("*.wandb")):
        for data in records_of(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.run.run_id:
                ids.add(record.run.run_id)
            if record.HasField("history"):
                steps.append(record.history.step.num)
    return steps, ids


def test_weights_and_biases_beside_a_training_that_is_killed(ranks, new_run, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run, _ = new_run(train={"steps": 5, "tracker": "wandb"})
    with pytest.raises(RanksFailed):
        ranks(1, on_ranks.train, run.path, 4)
    assert ranks(1, on_ranks.train, run.path) == [0]
    steps, ids = wandb_steps(run)
    assert steps == [1, 2, 3, 4, 5] and len(ids) == 1
    rundir.check_links(run)  # its own links keep no stage from starting
    texts = [path.read_text(errors="replace") for path in (run.path / "trackers").rglob("*") if path.is_file()]
    assert not any(os.uname().nodename in text for text in texts if len(os.uname().nodename) > 4), "nothing of the machine"

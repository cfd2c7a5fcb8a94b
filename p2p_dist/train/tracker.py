"""Send the lines of metrics.jsonl to an experiment tracker: MLflow, Weights & Biases or Trackio.

metrics.jsonl stays the truth. A run has one run there over all its restarts, and each line is sent once: the record
trackers/KIND/sent.json holds the id of that run and the last step that was sent. Lines of earlier starts that are missing there
are sent first, so `p2p-dist track RUN` fills a tracker after the training with the same code. Only this module imports the
three packages.

Without further variables nothing leaves the run's folder: MLflow writes a SQLite file (`MLFLOW_TRACKING_URI` names a server),
Weights & Biases offline folders (`wandb sync runs/NAME/trackers/wandb/*/wandb/offline-run-*` uploads them; `WANDB_MODE=online`
sends at once), Trackio a SQLite file (`TRACKIO_DIR` names another folder).
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from p2p_dist.common import console, files, records, schemas
from p2p_dist.run import metrics_file, rundir
from p2p_dist.run.lock import Owner
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import science

PROJECT = "p2p_dist"
"""Name of the experiment or project in the trackers."""

_ANSWER = 20  # seconds that MLflow waits for its server, twice

Send = Callable[[int, dict[str, float]], None]
"""Sends the values of one step."""


class Tracker:
    """Sends the metrics of a run. Only one process at a time may have a tracker of a kind open.

    Args:
        kind: mlflow, wandb or trackio.

    Raises:
        ValueError: another process has it open.
        ImportError: the package is not installed.
    """

    def __init__(self, run: RunDir, kind: str) -> None:
        self.run, self.kind = run, kind
        self.id, self.step = "", 0
        self.folder = run.path / "trackers" / kind
        self.owner = Owner(self.folder, f"{kind} receives the metrics of the run {run.name}", f"see {self.folder}")
        self.record = self.folder / "sent.json"
        try:
            self._open()
        except BaseException:
            self.owner.close()
            raise

    def _open(self) -> None:
        known, step = "", 0
        if self.record.is_file():
            sent = records.read(self.record, schemas.SENT)
            known, step = sent["id"], sent["step"]
        settings = {name: str(value) for name, _, value in science.rows(rundir.read_settings(self.run), resources=True)}
        folder = self.folder
        if self.kind == "wandb":
            folder /= f"from-{step}"
            files.remove_tree(folder)  # of a start that was killed: its lines are sent again
            folder.mkdir()
        opened = {"mlflow": _open_mlflow, "wandb": _open_wandb, "trackio": _open_trackio}[self.kind]
        self.id, self.send, self._close = opened(folder, self.run.name, known, settings)
        self._note(step)

    def catch_up(self) -> int:
        """Send all lines of metrics.jsonl that were not sent; return their number."""
        return sum(self.log(row) for row in metrics_file.read(self.run))

    def log(self, row: dict[str, Any]) -> bool:
        """Send a line, unless its step was sent; return whether it was.

        The step is recorded first. A process that is killed in between loses one line there rather than sending it twice.
        Weights & Biases writes behind the caller's back, so there the step is recorded when it has finished.
        """
        values = {name: float(value) for name, value in row.items() if _is_number(value) and name != "step"}
        if row["step"] <= self.step:
            return False
        before, note = self.step, self._note if self.kind != "wandb" else lambda step: None
        note(row["step"])
        try:
            self.send(row["step"], values)
        except BaseException:
            note(before)
            raise
        self.step = row["step"]
        return True

    def close(self) -> None:
        """Finish sending, and let other processes open it."""
        try:
            self._close()
            self._note(self.step)
        finally:
            self.owner.close()

    def _note(self, step: int) -> None:
        records.write(self.record, schemas.SENT, {"id": self.id, "step": step})
        self.step = step


class Follower:
    """A tracker beside a training: one that fails is reported once, and the training continues without it."""

    def __init__(self, run: RunDir, kind: str) -> None:
        self.kind = kind
        self.tracker: Tracker | None = None
        with self._or_without():
            self.tracker = Tracker(run, kind)
            self.tracker.catch_up()

    def log(self, row: dict[str, Any]) -> None:
        """Send a line."""
        if self.tracker is not None:
            with self._or_without():
                self.tracker.log(row)

    def close(self) -> None:
        """Finish sending."""
        tracker, self.tracker = self.tracker, None
        if tracker is not None:
            with self._or_without():
                tracker.close()

    @contextlib.contextmanager
    def _or_without(self) -> Any:
        try:
            yield
        except Exception as error:  # whatever a package of others raises
            why = (str(error).splitlines() or [type(error).__name__])[0]
            console.complain(f"warning: {self.kind}: {why}; training continues without it, 'track' sends the rest later")
            if self.tracker is not None:
                self.tracker.owner.close()
            self.tracker = None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _open_mlflow(folder: Path, name: str, known: str, settings: dict[str, str]) -> tuple[str, Send, Callable[[], None]]:
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    # MLflow itself waits 16 minutes for a server that does not answer: the other ranks would take the training for hanging.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(_ANSWER))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.absolute() / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=where)
    if not known:
        experiment = client.get_experiment_by_name(PROJECT)
        number = experiment.experiment_id if experiment is not None else client.create_experiment(PROJECT)
        known = client.create_run(number, run_name=name).info.run_id
        client.log_batch(known, params=[Param(key, value[:6000]) for key, value in settings.items()])

    def send(step: int, values: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        client.log_batch(known, metrics=[Metric(key, value, now, step) for key, value in values.items()])

    return known, send, lambda: client.set_terminated(known)


def _open_wandb(folder: Path, name: str, known: str, settings: dict[str, str]) -> tuple[str, Send, Callable[[], None]]:
    import wandb

    opened = wandb.init(
        project=PROJECT,
        id=known or secrets.token_hex(4),
        name=name,
        dir=str(folder),
        config=settings,
        resume="allow",
        mode=None if "WANDB_MODE" in os.environ else "offline",
        # Nothing of the machine, the program or its output is recorded: only the metrics and settings.
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True),
    )
    return opened.id, lambda step, values: opened.log(values, step=step), opened.finish


def _open_trackio(folder: Path, name: str, known: str, settings: dict[str, str]) -> tuple[str, Send, Callable[[], None]]:
    os.environ.setdefault("TRACKIO_DIR", str(folder.absolute()))  # read when it is imported
    import trackio

    known = known or f"{name}-{secrets.token_hex(4)}"
    with contextlib.redirect_stdout(io.StringIO()):  # coloured advice, which does not belong into a batch log
        opened = trackio.init(
            project=PROJECT,
            name=known,
            config=settings,
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def close() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            opened.finish()

    return known, lambda step, values: opened.log(values, step=step), close

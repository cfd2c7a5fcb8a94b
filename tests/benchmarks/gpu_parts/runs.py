"""Part 1: does it run. The launcher itself on the device, and the loop where the launcher's packages are not there."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gpu_parts import common
from gpu_parts.common import Measurement, Place, Row
from p2p_dist.run import metrics_file

ROOT = Path(__file__).resolve().parents[3]
NEEDED = ("tyro", "av", "soxr", "soundfile", "musdb", "stempeg", "mir_eval", "submitit", "jinja2", "matplotlib", "yaml", "rich")


def lacking() -> str:
    """Why the launcher can't run here, or nothing."""
    absent = [name for name in NEEDED if name != "tyro" and importlib.util.find_spec(name) is None]
    if not hasattr(common.tyro, "cli"):
        absent.insert(0, "tyro")
    return f"the launcher needs {', '.join(absent)}: make gpu-wheels" if absent else ""


def measurements(place: Place) -> list[Measurement]:
    skipped, title = lacking(), "The launcher, on the device"
    return [
        Measurement("the loop, on pairs made here", lambda: loop(place), "The loop, without the launcher", 60),
        Measurement("stopped and resumed", lambda: stop_and_resume(place), title, 150, "launcher", 40, skipped),
        Measurement("two processes", lambda: two_processes(place), title, 120, "launcher", 20, skipped),
        Measurement("to the page", lambda: to_the_page(place), title, 150, "launcher", 35, skipped),
    ]


def loop(place: Place) -> Iterator[Row]:
    """20 steps of the loop as it is, with checkpoints."""
    place.begin()
    from p2p_dist.run import rundir
    from p2p_dist.settings.presets import PRESETS
    from p2p_dist.train import loop

    run = common.lay_out(place.scratch / "loop", PRESETS["tiny"], 64)
    begun = time.perf_counter()
    code = loop.train(run, rundir.read_settings(run))
    rows = metrics_file.read(run)
    yield {
        "steps": rows[-1]["step"],
        "exit code": code,
        "seconds": time.perf_counter() - begun,
        "l1 at first": rows[0]["l1"],
        "l1 at last": rows[-1]["l1"],
        "checkpoints": ", ".join(str(step) for step, _ in rundir.find_steps(run.checkpoints)),
    }


def command(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "launch" / words[0]), *words[1:]]


def launch(place: Place, *words: str) -> tuple[int, str, float]:
    """A command of the launcher in the scratch folder: exit code, what it said, seconds. It sees a card only if we do."""
    hidden = {} if place.kind == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    begun = time.perf_counter()
    done = subprocess.run(
        command(*words), cwd=place.scratch, env={**os.environ, **hidden}, text=True, capture_output=True, errors="replace"
    )
    said = done.stdout + done.stderr
    print(said, flush=True)
    return done.returncode, said, time.perf_counter() - begun


def line_with(said: str, *words: str) -> str:
    """The first line that has one of these words."""
    return next((line.strip() for line in said.splitlines() if any(word in line for word in words)), "")


TINY = ("submit.py", "--preset", "tiny", "--cluster", "local")


def to_the_page(place: Place) -> Iterator[Row]:
    code, said, seconds = launch(place, *TINY, "--run", "tiny")
    page = place.scratch / "runs" / "tiny" / "page" / "index.html"
    assert code == 0 and page.is_file(), f"exit code {code}, page {'there' if page.is_file() else 'not there'}"
    yield {"what": "songs to page", "exit code": code, "seconds": seconds, "it said": line_with(said, " on cuda", " on cpu")}
    code, said, seconds = launch(place, *TINY, "--run", "tiny")
    assert code == 0 and "already done" in said
    yield {"what": "the same again", "exit code": code, "seconds": seconds, "it said": line_with(said, "already done")}


def stop_and_resume(place: Place) -> Iterator[Row]:
    """TERM once the first checkpoint is there, and the same command again; then the order of the batches is verified."""
    words = (*TINY, "--run", "stopped", "--train.steps", "60", "--evaluate", "never")
    folder = place.scratch / "runs" / "stopped"
    begun = time.perf_counter()
    with (place.scratch / "stopped.log").open("w") as output:
        child = subprocess.Popen(command(*words), cwd=place.scratch, stdout=output, stderr=subprocess.STDOUT)
        while child.poll() is None and not list(folder.glob("checkpoints/step-*")):
            time.sleep(0.02)
        child.send_signal(signal.SIGTERM)
        code = child.wait()
    said = (place.scratch / "stopped.log").read_text(errors="replace")
    print(said, flush=True)
    row = {"what": "TERM after a checkpoint", "exit code": code, "seconds": time.perf_counter() - begun}
    yield {**row, "it said": line_with(said, "stopped cleanly")}
    code, said, seconds = launch(place, *words)
    assert code == 0, f"it did not go on: exit code {code}"
    yield {"what": "the same again", "exit code": code, "seconds": seconds, "it said": line_with(said, "steps from")}
    code, said, seconds = launch(place, "status.py", "stopped", "--verify")
    row = {"what": "status --verify", "exit code": code, "seconds": seconds}
    yield {**row, "it said": said.strip().splitlines()[-1] if said.strip() else ""}


def two_processes(place: Place) -> Iterator[Row]:
    """On one card: either a refusal that says why, or gloo, and that is said."""
    code, said, seconds = launch(
        place, *TINY, "--run", "two", "--processes-per-node", "2", "--train.steps", "5", "--evaluate", "never"
    )
    assert "Traceback" not in said
    row = {"what": "two processes on one device", "exit code": code, "seconds": seconds}
    yield {**row, "it said": line_with(said, "note:", "error:", "2 processes x")}

"""One training through kills at random instants, compared bit for bit with the one that was never disturbed.

python -m tests.faults.soak --kills 2000
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from p2p_dist.common import console, files
from p2p_dist.run import rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import presets
from p2p_dist.train import checkpoint
from p2p_dist.train.verify import verify_run
from tests.faults.job import At, Job
from tests.train import on_ranks

SIGNALS = [signal.SIGKILL] * 6 + [signal.SIGTERM] * 2 + [signal.SIGUSR2] * 2
"""60 % SIGKILL, 20 % TERM, 20 % USR2."""

LONGEST = 0.5, 0.25
"""Seconds within which an attempt is killed: one half from its start, the others from their first step on, because on a busy
machine it may be long until then; so while it starts, trains or saves. Trained is much in little time: several intervals."""


@dataclasses.dataclass
class Told:
    """Figures of one soak. codes: exit codes of the disturbed attempts. lost: steps whose work a kill undid. meanwhile:
    those of them trained since the save began that the kill cut. in_a_save: kills that left half a folder."""

    kills: Counter[str]
    codes: Counter[int]
    lost: list[int]
    steps: int = 0
    seconds: float = 0.0
    meanwhile: list[int] = dataclasses.field(default_factory=list)
    in_a_save: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)

    def table(self, interval: int) -> str:
        """The figures as Markdown."""
        killed = sum(self.kills.values())
        rows = [
            ("kills", f"{killed} ({', '.join(f'{n} {name}' for name, n in sorted(self.kills.items()))})"),
            ("exit codes of the attempts", ", ".join(f"{code}: {n}" for code, n in sorted(self.codes.items()))),
            ("steps trained, without those undone", str(self.steps)),
            ("kills that cut a save, or the removal of an old one", str(self.in_a_save)),
            ("steps undone by a kill, mean and most", f"{sum(self.lost) / max(1, len(self.lost)):.2f}, {max(self.lost)}"),
            ("of these trained while a save was being written, most", str(max(self.meanwhile, default=0))),
            ("steps between two checkpoints", str(interval)),
            ("seconds", f"{self.seconds:.0f}"),
            ("not as the undisturbed training", "; ".join(self.problems) or "nothing: weights bit for bit, batches, files"),
        ]
        return "| | |\n| --- | --- |\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


def soak(run: RunDir, twin: RunDir, kills: int, seed: int = 0, sabotage: Any = None, seconds: float = float("inf")) -> Told:
    """Kill the training of `run` so often, at any instant and on any of its ranks; then train `twin` to the same step.

    Args:
        run, twin: equal and not begun, with more steps than will be trained.
        seconds: begin no further attempt after so long.
    """
    draw, told, begun = random.Random(seed), Told(Counter(), Counter(), []), time.monotonic()
    interval = rundir.read_settings(run).train.checkpoint_every
    for _ in range(kills):
        if time.monotonic() - begun > seconds:
            break
        before = lines_of(run)
        job = Job(run, sabotage=sabotage, grace=0.1)
        processes = job.ranks()
        if trains := draw.random() < 0.5:
            wait_for_a_step(run, before)
        time.sleep(draw.uniform(0, LONGEST[trains]))
        number = draw.choice(SIGNALS)
        chosen = [p for p in processes if draw.random() < 0.5] or [draw.choice(processes)]
        for process in chosen:
            try:
                os.kill(process, number)
            except ProcessLookupError:
                continue
        code = job.end()
        told.kills[signal.Signals(number).name] += 1
        told.codes[code] += 1
        reached, saved = job.step(), checkpoint.newest_step(run.checkpoints)
        told.lost.append(reached - saved)
        # The save at a multiple of the interval has begun once a later step is there.
        begun_for = max(saved, (reached - 1) // interval * interval)
        if begun_for > saved:
            told.meanwhile.append(reached - begun_for)
        told.in_a_save += any(run.checkpoints.glob(f"{files.TEMPORARY}*"))
        if number != signal.SIGKILL and (code != console.STOPPED or reached != saved):
            told.problems.append(f"{signal.Signals(number).name} ended with {code} at step {reached}, saved {saved}")
        # One interval, and the steps trained since the save at its end began.
        if begun_for - saved > interval or reached - begun_for > interval:
            told.problems.append(f"{reached - saved} steps undone: saved {saved}, being saved {begun_for}, reached {reached}")
    before = lines_of(run)
    job = Job(run, sabotage=sabotage)
    job.ranks()
    wait_for_a_step(run, before)
    job.signal(signal.SIGTERM)
    if job.end() != console.STOPPED:
        told.problems.append("the last attempt did not stop cleanly")
    told.steps = checkpoint.newest_step(run.checkpoints)
    told.problems += verify_run(run)
    told.problems += [f"left behind: {path}" for path in run.path.rglob(f"{files.TEMPORARY}*")]
    # An orderly stop saves two steps after it was asked for.
    undisturbed = Job(twin, At(told.steps - 2, _stop_self, (), (0,)), sabotage=sabotage)
    if undisturbed.end(3600) != console.STOPPED or checkpoint.newest_step(twin.checkpoints) != told.steps:
        told.problems.append(f"the undisturbed training is not at step {told.steps}")
    elif not on_ranks.equal(on_ranks.state(run.path, told.steps), on_ranks.state(twin.path, told.steps)):
        told.problems.append("other weights than the undisturbed training")
    if on_ranks.digests(run) != on_ranks.digests(twin):
        told.problems.append("other batches than the undisturbed training")
    told.seconds = time.monotonic() - begun
    return told


def lines_of(run: RunDir) -> int:
    """Bytes of the numbers of all attempts."""
    return run.metrics.stat().st_size if run.metrics.is_file() else 0


def wait_for_a_step(run: RunDir, before: int, seconds: float = 60) -> None:
    """Wait until an attempt has added a line; before, it may cut those after its checkpoint.

    Args:
        before: bytes that there were when it was started. No more is looked at than the size: a long soak has many lines.
    """
    lowest, end = before, time.monotonic() + seconds
    while time.monotonic() < end:
        if (now := lines_of(run)) > lowest:
            return
        lowest = now
        time.sleep(0.01)


def _stop_self() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    from p2p_dist.data import shards
    from tests.conftest import write_songs

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no further kill after so long")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_songs(root / "songs", {"train/one": 1.6, "train/two": 2.6, "train/three": 1.9, "test/five": 1.5})
        tiny = presets.PRESETS["tiny"]
        shards.preprocess(root / "songs", root / "shards" / "tiny", tiny.data, workers=1)
        train = dataclasses.replace(tiny.train, steps=10**6, keep_every=1000)
        settings = dataclasses.replace(tiny, train=train, resources=dataclasses.replace(tiny.resources, nodes=arguments.ranks))
        runs = []
        for name in ("killed", "undisturbed"):
            runs.append(RunDir(root / "runs" / name))
            files.write_json(runs[-1].dataset, {"name": "tiny"})
            files.write_text(runs[-1].config, presets.to_yaml(settings))
        told = soak(*runs, arguments.kills, arguments.seed, seconds=arguments.seconds)
        print(told.table(train.checkpoint_every))
    return 1 if told.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Size of the page of a run with whole songs, the time that it takes to write it, and the time until a browser plays it.

PYTHONPATH=. OMP_NUM_THREADS=1 python tests/benchmarks/page.py

Songs of chords and noise go through the page's own encoders; Chromium opens the page from disk. Exit code 1: it is too large.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from p2p_dist.common import files, records
from p2p_dist.evaluate.report import page
from p2p_dist.run.rundir import RunDir, step_name
from p2p_dist.settings.config import Config
from tests.browser.tab import Tab, chromium
from tests.evaluate import finished_run

LIMIT = 300e6
"""Bytes of a page of the default size that can still be sent."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--songs", type=int, default=10)
    parser.add_argument("--checkpoints", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=240.0, help="length of a song")
    options = parser.parse_args()
    finished_run.RATE = 44100  # of songs as they are sold
    times: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        run, settings = _evaluated(Path(folder) / "run", options.songs, options.checkpoints, options.seconds)
        with _timed("write the page", times):
            path = page.write(run, settings)
        with _timed("write it again, nothing new", times):
            page.write(run, settings)
        sizes = _sizes(run)
        driver = chromium(Path(folder) / "profile")
        tab = Tab(next(driver), path)
        with _timed("open it until waveform and spectrogram are there", times):
            tab.open()
            tab.wait("return views.shown?.length === 2")
        with _timed("press play until it sounds", times):
            tab.play()
        next(driver, None)
    print(f"{options.songs} songs of {options.seconds:g} s, {options.checkpoints} checkpoints\n\n| part | MB |\n| --- | --- |")
    for part, size in [*sizes.items(), ("all", total := sum(sizes.values()))]:
        print(f"| {part} | {size / 1e6:.1f} |")
    print("\n| time to | s |\n| --- | --- |", *(f"| {what} | {text} |" for what, text in times.items()), sep="\n")
    return int(total > LIMIT)


def _evaluated(folder: Path, songs: int, checkpoints: int, seconds: float) -> tuple[RunDir, Config]:
    """A run whose checkpoints made the same sounds, in the same files: the page writes those of each."""
    run, settings = finished_run.make(folder, {f"song-{n}": f"Song {n}" for n in range(songs)}, (100,), seconds)
    for step in range(200, 100 * checkpoints + 1, 100):
        evaluation = run.evaluations / step_name(step)
        shutil.copytree(run.evaluations / step_name(100), evaluation, copy_function=os.link)
        files.write_json(evaluation / "metrics.json", records.read(evaluation / "metrics.json") | {"step": step})
    return run, settings


@contextmanager
def _timed(what: str, times: dict[str, str]) -> Iterator[None]:
    begun, cpu = time.monotonic(), time.process_time()
    yield
    times[what] = f"{time.monotonic() - begun:.2f} ({time.process_time() - cpu:.2f} of CPU)"


def _sizes(run: RunDir) -> Counter[str]:
    """Bytes of the page by kind of file."""
    best = run.read_best()
    assert best is not None
    found: Counter[str] = Counter({"index.html": run.page.stat().st_size})
    for path in (run.page.parent / "media").rglob("*.*"):
        track = path.parent.name
        kind = "whole songs" if track in ("input", "target", step_name(best["step"])) else "clips of checkpoints and ceiling"
        found["waveforms and spectrograms" if path.name == "overview.js" else kind] += path.stat().st_size
    return found


if __name__ == "__main__":
    raise SystemExit(main())

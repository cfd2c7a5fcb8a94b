"""How long the launcher takes to answer: best of five of `--help`, `--dry-run` and the state of 200 runs, each in a process.

python tests/benchmarks/launch.py [--json FILE]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from p2p_dist.common import files
from p2p_dist.run import metrics_file
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import presets

CHECKOUT = Path(__file__).resolve().parents[2]
ROUNDS = 5


@dataclass
class Arguments:
    """Time the launcher's answers."""

    json: Path | None = None
    """also write the figures here"""


def best(*arguments: str) -> float:
    """Seconds of the fastest of five starts."""
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begun)
    return min(times)


def status_of_runs(folder: Path) -> float:
    """Seconds to show 200 runs that have trained."""
    for number in range(200):
        run = RunDir(folder / f"run-{number}")
        files.write_text(run.config, presets.to_yaml(presets.preset("small")))
        files.write_json(run.dataset, {"name": "songs"})
        for step in (1, 2):
            metrics_file.Writer(run).append({"step": step, "images_per_second": 64.0, "l1": 0.125})
    os.environ["P2P_RUNS"] = str(folder)
    return best("launch/status.py")


def main() -> None:
    arguments = tyro.cli(Arguments)
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "test"):
            (Path(folder) / split).mkdir()
            (Path(folder) / split / "a.stem.mp4").write_bytes(b"x")
        figures = {
            "python -c pass": best("-c", "pass"),
            "launch/submit.py --help": best("launch/submit.py", "--help"),
            "launch/submit.py --dry-run": best("launch/submit.py", "--dry-run", "--data", folder),
            "launch/status.py (200 runs)": status_of_runs(Path(folder) / "runs"),
        }
    print("| command | best of five, s |\n| --- | --- |")
    for name, seconds in figures.items():
        print(f"| `{name}` | {seconds:.2f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()

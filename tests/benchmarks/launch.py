"""How long the launcher takes to answer: best of five of `--help` and `--dry-run`, in their own processes.

python tests/benchmarks/launch.py [--json FILE]
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

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
        }
    print("| command | best of five, s |\n| --- | --- |")
    for name, seconds in figures.items():
        print(f"| `{name}` | {seconds:.2f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()

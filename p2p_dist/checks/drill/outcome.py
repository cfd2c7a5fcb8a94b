"""Compare a stopped training with an undisturbed one, on this machine or a cluster."""

from __future__ import annotations

from p2p_dist.common import console, files
from p2p_dist.run import metrics_file, rundir
from p2p_dist.run.rundir import RunDir

OTHER_WEIGHTS = "with other weights"


def difference(run: RunDir, other: RunDir) -> str | None:
    """Describe the difference between two trainings (last weights, batches, files left behind); None if equal."""
    sums = []
    for each in (run, other):
        _, path = rundir.find_steps(each.checkpoints)[-1]
        sums.append((path.name, files.sha256_file(path / "state.pt"), files.sha256_file(path / "generator.safetensors")))
    batches = [[(row["step"], row["digests"]) for row in metrics_file.read(each)] for each in (run, other)]
    if batches[0] != batches[1]:
        return "with other batches" + (" and weights" if sums[0] != sums[1] else "")
    if sums[0] != sums[1]:
        return OTHER_WEIGHTS
    if left := list(run.path.rglob(f"{files.TEMPORARY}*")):
        return f"and left {left[0]} behind"
    return None


def saved(run: RunDir) -> int:
    """Return the step of the newest checkpoint; 0 if there is none."""
    return max((step for step, _ in rundir.find_steps(run.checkpoints)), default=0)


def show(rows: list[tuple[str, str, str, str]]) -> None:
    """Print a Markdown table; the first row is its header."""
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    rule = tuple("-" * width for width in widths)
    lines = [" | ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)) for row in (rows[0], rule, *rows[1:])]
    console.say("\n" + "\n".join(f"| {line} |" for line in lines))

"""The folder in which a check (launch/check.py) keeps its runs and shards. One check of a kind uses it at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from p2p_dist.common import files
from p2p_dist.jobs import example_song
from p2p_dist.jobs.slurm import squeue
from p2p_dist.run import rundir
from p2p_dist.run.lock import Owner
from p2p_dist.run.rundir import RunDir


@contextmanager
def check_folder(name: str, example: Path | None = None) -> Iterator[Path]:
    """Yield the locked folder of the check `name`; the runs of an earlier check are removed.

    If a check is refused before it started or queued anything, the folders that it created are removed.

    Args:
        example: where the example song is laid out; None: it is not needed.

    Raises:
        ValueError: a run of the user's has this name, or such a check goes on: here, or as jobs that Slurm still has.
        OSError: an earlier one queued jobs, and Slurm does not answer for them.
    """
    root = rundir.runs_root() / name
    if RunDir(root).config.exists():
        raise ValueError(f"{root} is one of your runs, but the check {name} stores its trainings there: rename that run first")
    # Jobs may read this folder after their launcher has ended.
    if any(root.glob("runs/*/slurm")) and (left := squeue.jobs_within(root)):
        told = "; ".join(f"job {job.number}, {job.state.lower()}" for job in left)
        drop = " ".join(job.number for job in left)
        raise ValueError(
            f"the check {name} is already queued or running ({told}) and works in {root}: wait for it, or cancel it with "
            f"scancel {drop}, then run this command again"
        )
    made = [path for path in (root, example) if path is not None and not path.exists()]
    above = {parent for path in made for parent in path.parents if not parent.exists()}
    with closing(Owner(root, f"the check {name} is running", f"it works in {root}")):
        files.remove_tree(root / "runs")
        try:
            if example is not None:
                example_song.lay_out_example(example)
            (root / "shards").mkdir(exist_ok=True)  # a container is shown it before there are any
            yield root
        except (OSError, ValueError):
            if not any(root.glob("runs/*/slurm")) and not any(root.glob("runs/*/logs")):
                for path in made:
                    files.remove_tree(path)
                with suppress(OSError):  # another has put something there
                    for path in sorted(above, reverse=True):
                        path.rmdir()
            raise

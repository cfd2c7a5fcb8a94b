"""Verify a whole run: checkpoints and shards against their records, and the order of the batches."""

from __future__ import annotations

from p2p_dist.common import console
from p2p_dist.data import verify as dataset
from p2p_dist.data.index import Index
from p2p_dist.data.stream import Stream
from p2p_dist.run import metrics_file, rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import science
from p2p_dist.train import checkpoint


def verify_run(run: RunDir) -> list[str]:
    """Check every checkpoint and shard, and recompute every global batch from manifest and seed. Changes nothing.

    Returns:
        one line for each problem; an empty list if there are none.

    Raises:
        ValueError: there is no such run.
    """
    return _checkpoints(run) + _shards(run) + _batches(run)


def _checkpoints(run: RunDir) -> list[str]:
    found = []
    settings = rundir.read_settings(run)
    for each in checkpoint.find(run.checkpoints):
        try:
            meta = each.meta()
            each.check(checkpoint.GENERATOR)
            if not each.is_kept:
                each.check(checkpoint.STATE)
        except (ValueError, OSError) as error:
            found.append(_said(error))
            continue
        if meta["settings"] is None:
            found.append(f"{each.path} does not record its settings")
        elif changed := science.are_those(meta["settings"], settings):
            found.append(f"{each.path} was made with other settings: {', '.join(changed)}")
    aside = sorted(run.checkpoints.glob("damaged-*")) if run.checkpoints.is_dir() else []
    found += [f"{path} was damaged and renamed" for path in aside]
    return found


def _shards(run: RunDir) -> list[str]:
    try:
        dataset.verify_dataset(run.shards, without=rundir.read_settings(run).data.elsewhere)
    except (ValueError, OSError) as error:
        return [_said(error)]
    return []


def _batches(run: RunDir) -> list[str]:
    """Compare the batch digests in metrics.jsonl. They change if a sample is missing, duplicated or out of order."""
    settings = rundir.read_settings(run)
    rows = metrics_file.read(run)
    saved = checkpoint.newest_step(run.checkpoints)
    if not rows:
        return [f"{run.metrics} has no numbers, but there is a checkpoint of step {saved}"] if saved else []
    try:
        index = Index(run.shards, "train", is_here=not settings.data.elsewhere)
    except (ValueError, OSError) as error:
        return [f"the batches can't be recomputed: {_said(error)}"]
    stream = Stream(index, settings.data, seed=settings.train.seed, global_batch_size=settings.train.global_batch_size)
    found, step = [], 0
    for row in rows:
        noted = row.get("digests", "").split()
        if row["step"] != step + len(noted):
            found.append(f"{run.metrics}: the line of step {row['step']} follows step {step} with {len(noted)} batches")
            step = row["step"] - len(noted)
        for digest in noted:
            if digest != stream.keys_digest(step):
                found.append(f"{run.metrics}: the batch of step {step + 1} is {digest}, expected {stream.keys_digest(step)}")
            step += 1
    if step < saved:
        found.append(f"{run.metrics} ends at step {step}, but there is a checkpoint of step {saved}")
    if not run.metrics.read_bytes().endswith(b"\n"):
        found.append(f"{run.metrics} ends with an incomplete line: the training was killed and not resumed")
    return found


def _said(error: ValueError | OSError) -> str:
    return console.describe(error) if isinstance(error, OSError) else str(error)

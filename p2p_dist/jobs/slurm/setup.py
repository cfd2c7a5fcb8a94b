"""The lines of a batch script before its command: the variables that hpc/job.sh reads, and the check of the code."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from p2p_dist.common import files
from p2p_dist.jobs import site, stages
from p2p_dist.jobs.slurm import bill
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings.address import scheme
from p2p_dist.settings.config import Config, Data
from p2p_dist.settings.resources import sizes_in_words


def lines(
    run: RunDir, settings: Config, place: site.Site, stage: str, reached: Sequence[Path], flags: Sequence[str] = ()
) -> list[str]:
    """Return the variables for hpc/job.sh, and the lines that check the copy of the code.

    Args:
        reached: further folders that the job reads and writes. flags: further flags of srun.
    """
    resources = settings.resources
    image = place.image(resources)
    values: dict[str, Any] = {
        "P2P_PYTHON": sys.executable if image is None else "python",
        "P2P_MAX_REQUEUES": resources.max_requeues,
        "P2P_MAX_CRASH_RESTARTS": resources.max_crash_restarts,
    }
    if stage == "train" and (rate := bill.gpu_hours_an_hour(resources, place, nodes=1)):
        values["P2P_RATE"] = f"{rate:.6f}"
        if resources.max_gpu_hours is not None:
            seconds = resources.max_gpu_hours / rate * 3600
            if len(resources.sizes) == 1:
                values["P2P_MAX_SECONDS"] = int(seconds / resources.nodes)
            else:
                values["P2P_MAX_NODE_SECONDS"] = max(1, int(seconds))
    if stage == "train" and len(resources.sizes) > 1:
        values["P2P_NODES"] = sizes_in_words(resources.sizes)
    if stage == "evaluate" and resources.evaluate == "during":
        values["P2P_EVALUATE"] = "during"
    # On a shared node, the cores of the job are not known in advance.
    if place.cpu_masks and stage in ("train", *stages.CHECKS) and place.takes_whole_nodes(stage, resources):
        values["P2P_CPU_MASKS"] = ",".join(place.cpu_masks[: place.processes_per_node(resources)])
    if (place.srun or flags) and stage not in stages.ONE_PROCESS:
        values["P2P_SRUN"] = " ".join([*place.srun, *flags])
    if place.rendezvous != "name" or place.rendezvous_suffix:
        values["P2P_RENDEZVOUS"] = f"{place.rendezvous}:{place.rendezvous_suffix or ''}"
    if place.environment:
        path = Path(place.environment)
        if path.is_absolute() or not (site.HPC / path).is_file():
            values["P2P_ENVIRONMENT"] = path.absolute()
    if image is not None:
        values["P2P_CONTAINER"] = image
        if place.container_runtime != "singularity":
            values["P2P_RUNTIME"] = place.container_runtime
        if place.container_options:
            values["P2P_RUNTIME_OPTIONS"] = " ".join(place.container_options)
        if resources.overlay:
            values["P2P_OVERLAY"] = _bindable(str(files.expanded(resources.overlay).absolute()))
        values["P2P_BINDS"] = ",".join([*place.container_binds, *_folders(run, settings.data, stage, reached)])
    exports = [f"run={shlex.quote(str(run.path))}"]  # first: `sweeps.job_of` replaces it
    exports += [f"export {name}={shlex.quote(str(value))}" for name, value in values.items()]
    exports += [f'export {name}="${{{name}:-{value}}}"' for name, value in place.variables.items()]  # the user's own wins
    if place.environment and "P2P_ENVIRONMENT" not in values:
        exports.append(f'export P2P_ENVIRONMENT="$run"/code/hpc/{shlex.quote(place.environment)}')
    check = (site.HPC / "check_code.sh").read_text(encoding="utf-8").splitlines()[1:]
    return [*exports, *check]


def _folders(run: RunDir, data: Data, stage: str, reached: Sequence[Path] = ()) -> list[str]:
    """List the folders that a job reads and writes, with and without links resolved.

    Raises:
        ValueError: a path that can't be passed to Singularity.
    """
    folders = [run.path.parent, run.path.parent.parent / "shards", *reached]
    if stage in ("preprocess", "pattern", *stages.CHECKS) and data.root is not None:
        folders.append(Path(data.root))
    if stage in ("preprocess", "train") and data.shards is not None and scheme(data.shards) is None:
        folders.append(Path(data.shards))
    found = dict.fromkeys(str(path) for folder in folders for path in (folder, folder.resolve()))
    return [_bindable(path) for path in found]


def _bindable(path: str) -> str:
    if "," in path or ":" in path:
        raise ValueError(f"{path}: a path with ',' or ':' cannot be bound into a container; choose another")
    return path

"""What jobs are billed, in GPU-hours, by the rule of the site's file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2p_dist.jobs import site
from p2p_dist.settings.config import Resources

if TYPE_CHECKING:
    from p2p_dist.jobs.slurm.specs import Job


def gpu_hours_an_hour(resources: Resources, place: site.Site, nodes: int | None = None) -> float:
    """Return the GPU-hours billed for an hour of training on its nodes, or on a given number."""
    whole = place.takes_whole_nodes("train", resources)
    gpus = place.gpus(place.processes_per_node(resources), whole=whole)
    return place.gpu_hours(1, nodes or resources.nodes, gpus, whole=whole)


def check_max_gpu_hours(resources: Resources, place: site.Site) -> None:
    """Check that --max-gpu-hours can be enforced.

    Raises:
        ValueError: the site's file does not describe the billing.
    """
    if resources.max_gpu_hours is not None and not gpu_hours_an_hour(resources, place):
        raise ValueError(
            f"--max-gpu-hours {resources.max_gpu_hours:g}: the billing of this cluster is not known: "
            "describe it in a file for --site (gpus_per_node, gpu_hours_per_gpu_hour), or leave it out"
        )


def of_jobs(asked: list[Job], resources: Resources, place: site.Site) -> dict[str, tuple[float, str]]:
    """Map stage -> the maximum of GPU-hours that can be billed for all its starts, and how it is computed.

    Stages without a bill are omitted.
    """
    starts, found = 1 + resources.max_requeues, {}
    for job in asked:
        hours, array = job.options["time"] / 60, job.array or 1
        once = place.gpu_hours(hours, job.sizes[-1], job.gpus, whole=place.is_whole(job.tier))
        most = once * starts * array
        words = f"{starts} {'start' if starts == 1 else 'starts'} of {once:.1f}" + (f", {array} jobs" if job.array else "")
        limit = resources.max_gpu_hours if job.stage == "train" else None
        if limit is not None and limit + once < most:
            # The usage is updated when a start ends, so the last start may begin just below the limit.
            most, words = (
                limit + once,
                (f"--max-gpu-hours {limit:g}, and the start that is running when it is reached: {once:.1f}"),
            )
        if most:
            found[job.stage] = most, words
    return found

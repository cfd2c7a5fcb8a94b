"""Find out from Slurm whether a waiting training would start sooner on fewer nodes."""

from __future__ import annotations

import dataclasses

from p2p_dist.common import console
from p2p_dist.jobs import fits, site
from p2p_dist.jobs.slurm import launch, reasons, sbatch, specs
from p2p_dist.run import rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings.config import Config, Resources
from p2p_dist.settings.resources import sizes_in_words


def advise(run: RunDir, *, queued: bool, start: float | None) -> list[str]:
    """Ask Slurm when a training would start on each number of nodes; return lines for the user.

    Args:
        queued: whether it waits in Slurm. start: when Slurm expects it to start, seconds since 1970; None: not known.

    Raises:
        ValueError: the site's file is not valid.
        OSError: Slurm does not answer.
    """
    settings = rundir.read_settings(run)
    where, wanted = site.resolve_cluster(settings.resources.cluster), settings.resources.sizes
    if where == "local":
        return [f"{run.name}: its last launch was for this machine alone (--cluster local)"]
    place = site.load_site(where, settings.resources.site)
    told = {nodes: _start(run, settings, place, nodes) for nodes in sizes_to_try(settings.resources)}
    found = {nodes: start for nodes, start in told.items() if isinstance(start, float)}
    if start is not None and wanted[0] in found:
        # For --test-only the training that waits is one more job ahead, which delays each size by as much (22.05).
        found = {nodes: one - found[wanted[0]] + start for nodes, one in found.items()}
    lines = [f"  on {nodes}: {reasons.when(found[nodes]) if nodes in found else told[nodes]}" for nodes in told]
    title = f"{run.name}: {sizes_in_words(wanted)} wanted; by number of nodes, Slurm expects a start"
    return [title, *lines, *_advice(run, settings.resources, found, queued=queued)]


def sizes_to_try(resources: Resources) -> list[int]:
    """List the numbers of nodes to ask for: both ends of the range (of a number: from 1), and the powers of two between."""
    least, most = resources.least_nodes or 1, resources.nodes
    return sorted({least, most, *(2**n for n in range(least.bit_length(), most.bit_length()))})


def _start(run: RunDir, settings: Config, place: site.Site, nodes: int) -> float | str:
    """Return when a training on so many nodes would start, seconds since 1970; or why it would not."""
    fixed = dataclasses.replace(settings, resources=dataclasses.replace(settings.resources, nodes=nodes, least_nodes=None))
    try:
        fits.check_node(fixed, place, place.processes_per_node(fixed.resources))
        (job,) = specs.jobs(run, fixed, place, ("train",))
        return sbatch.expected_start(job)
    except ValueError as error:
        return f"not possible: {error}"


def _advice(run: RunDir, resources: Resources, found: dict[int, float], *, queued: bool) -> list[str]:
    """Return what to do, with the command.

    Args:
        found: number of nodes -> when that many would start. queued: whether the training waits in Slurm.
    """
    most, name = resources.nodes, run.name
    if most not in found:
        return [f"Slurm does not say when {most} would start"]
    best = max(nodes for nodes, start in found.items() if start < min(found.values()) + reasons.SOON)
    if best == most:
        return ["fewer nodes would not start sooner"]
    if resources.least_nodes is not None:
        return [f"{best} would start sooner, and this training takes what is free: nothing to do"]
    typed = str(best) if not launch.knows_ranges(run) else f"{best}-{most}"
    cancel = f"{console.again('cancel', [name])} && " if queued else ""
    loses = ["(the new job has waited for no time yet, which on many clusters lowers its priority: then it starts later)"]
    return [
        f"fewer nodes start sooner: {cancel}{console.again('submit', ['--run', name, '--nodes', typed])}",
        *(loses if queued else []),
        "(a training gets more nodes only when it is requeued, at the end of its --time at the latest)",
    ]

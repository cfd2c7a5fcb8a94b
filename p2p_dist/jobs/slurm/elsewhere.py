"""Preprocessing that no job of this cluster can do, because its CPU nodes are another cluster's or need other programs."""

from __future__ import annotations

import platform
import shlex
from dataclasses import fields
from typing import Any

from p2p_dist.common import console
from p2p_dist.jobs import site
from p2p_dist.run import rundir
from p2p_dist.settings import presets
from p2p_dist.settings.config import Config, Resources


def advice(settings: Config, place: site.Site) -> str | None:
    """Return what to run where before the training can be queued, as commands; None if a job of this cluster can do it."""
    if not place.has_other_cpu_nodes or settings.data.shards is not None:  # a finished dataset is only copied
        return None
    if place.cpu_cluster is not None:
        where, typed = f"the cluster {place.cpu_cluster}, which has the CPU nodes", command(settings, here=False)
    else:
        where, typed = f"a login node with {place.cpu_architecture} processors", command(settings)
    text = (
        f"the shards are not there, and no job of this cluster can make them: log in to {where}, install this program there, "
        f"and run, with the same folder of runs:\n  {typed}\nWhen it is done, run this command again here"
    )
    if place.cpu_cluster is not None:
        stage = "preprocess" if place.tiers else "train"  # a long training may go to a tier that takes few jobs
        typed = command(settings, partition=place.tier(stage, settings.resources)[0].name)
        text += f". To make them on GPU nodes instead, at the price of GPU nodes:\n  {typed}"
    return text


def command(settings: Config, partition: str | None = None, *, here: bool = True) -> str:
    """Return the command that makes the shards of a run; here: on the site of the run, else on any Slurm cluster."""
    words = ["--data", settings.data.root] if settings.data.root is not None else []
    words += ["--task", settings.data.task, "--preset", settings.preset]
    usual = presets.preset(settings.preset).data
    for one in fields(usual):
        value: Any = getattr(settings.data, one.name)
        if one.name not in ("root", "task") and value != getattr(usual, one.name):
            name = one.name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--data.{name}" if value else f"--data.no-{name}")
            else:
                words += [f"--data.{name}", str(value)]
    asked = settings.resources
    words += ["--cluster", asked.cluster if here else "slurm"]
    for option, text in (("--account", asked.account), ("--partition", partition), ("--site", asked.site if here else None)):
        if text is not None:
            words += [option, text]
    program = console.command("preprocess")
    return f"P2P_RUNS={shlex.quote(str(rundir.runs_root()))} {program} {shlex.join(words)}"


def check_architecture(resources: Resources, place: site.Site, wanted: str | None) -> None:
    """Check that the Python of the launcher, which jobs without a container run with, is for the processors of their nodes.

    Args:
        wanted: architecture of the nodes; None: not known.

    Raises:
        ValueError: it is not.
    """
    if wanted is not None and place.image(resources) is None and platform.machine() != wanted:
        raise ValueError(
            f"the nodes have {wanted} processors, and this machine {platform.machine()}: jobs run with the Python of the "
            f"launcher, so start it on a login node with {wanted} processors, or name an image with --container"
        )

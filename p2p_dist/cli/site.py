"""The site command: compare a site's file with what Slurm says on the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from p2p_dist.cli import command_line
from p2p_dist.common import console
from p2p_dist.jobs import site
from p2p_dist.jobs.slurm import site_check


@dataclass(frozen=True)
class Command:
    """Compare a site's file with the partitions, QoS and GPUs that Slurm has, on a login node of the cluster.

    Exit code 0: they agree; 1: they differ (each difference is named); 2: wrong usage.
    """

    what: Annotated[tyro.conf.Positional[Literal["check"]], tyro.conf.arg(metavar="check")]
    """compare the file with what Slurm says"""
    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
    """the file, or the name of one in hpc/sites"""


def main(arguments: list[str]) -> int:
    """Compare; return the exit code."""
    asked = command_line.parse(Command, "site", arguments)
    known = {path.stem: path for path in (site.HPC / "sites").glob("*.yaml")}
    file = known.get(asked.file, Path(asked.file))
    if not file.is_file():
        hint = console.did_you_mean(asked.file, known) or f"; those in {site.HPC / 'sites'}: {', '.join(sorted(known))}"
        raise ValueError(f"{asked.file} is neither a file nor the name of a site{hint}")
    differences = site_check.compare(site.load_site("slurm", str(file)))
    for text in differences:
        console.say(f"differs: {text}")
    if differences:
        number = f"{len(differences)} difference{'s' if len(differences) > 1 else ''}"
        console.complain(f"{file}: {number} from this cluster: correct a copy of it, and name the copy with --site")
        return console.FAILED
    console.say(f"{file}: agrees with this cluster; {console.command('check')} preflight tries a job")
    return console.DONE

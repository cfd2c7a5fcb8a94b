"""What a cluster offers: one YAML file in hpc/sites for each."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from p2p_dist.config import Resources, seconds_of

HPC = Path(__file__).parents[2] / "hpc"


@dataclass(frozen=True)
class Site:
    """See the comments in hpc/sites/slurm.yaml."""

    partition: str | None
    cpu_partition: str | None
    gpus_per_node: int
    cores_per_process: int
    memory_per_node: str | None
    preprocess_cores: int
    preprocess_time: str
    evaluate_time: str

    def processes_per_node(self, resources: Resources) -> int:
        """Training processes on a node: as asked for, else one a GPU, else one."""
        return resources.processes_per_node or self.gpus_per_node or 1


def load(name: str) -> Site:
    """The site called `name`.

    Raises:
        ValueError: no such file, an unknown name in it, or one left out.
    """
    path = HPC / "sites" / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"no site {name}: {path} does not exist")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = {field.name for field in dataclasses.fields(Site)}
    if wrong := set(content) ^ known:
        raise ValueError(f"{path}: {', '.join(sorted(wrong))} unknown or left out; a site has {', '.join(sorted(known))}")
    site = Site(**content)
    for name in ("preprocess_time", "evaluate_time"):
        if not isinstance(getattr(site, name), str):
            raise ValueError(f"{path}: put {name} into quotes, YAML takes 2:00:00 for a number")
        seconds_of(getattr(site, name))
    return site


def resolve(cluster: str) -> str:
    """`auto` as what it means on this machine: slurm where sbatch is found, else local."""
    if cluster == "auto":
        return "slurm" if shutil.which("sbatch") else "local"
    return cluster

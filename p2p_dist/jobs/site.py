"""What a cluster offers: one YAML file in hpc/sites for each, or a user's own."""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
import subprocess
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
    needs_account: bool
    requeue: bool
    gpus_per_node: int
    cores_per_process: int
    memory_per_node: str | None
    whole_nodes: list[str]
    cpu_masks: list[str] | None
    environment: str | None
    container: str | None
    container_binds: list[str]
    preprocess_cores: int
    preprocess_memory: str | None
    preprocess_time: str
    evaluate_processes: int
    evaluate_time: str
    gpu_hours_per_node_hour: float
    gpu_hours_per_gpu_hour: float

    def processes_per_node(self, resources: Resources) -> int:
        """Training processes on a node: as asked for, else one a GPU, else one."""
        return resources.processes_per_node or self.gpus_per_node or 1

    def image(self, resources: Resources) -> Path | None:
        """The image that jobs run in: as asked for, else the site's, which may lie in the checkout; None: no container."""
        if resources.container:
            return Path(resources.container).expanduser().absolute()
        return HPC.parent / self.container if self.container else None

    def gpu_hours(self, hours: float, nodes: int, partition: str | None) -> float:
        """What so many hours on so many nodes are billed."""
        if partition in self.whole_nodes:
            return hours * nodes * self.gpu_hours_per_node_hour
        return hours * nodes * self.gpus_per_node * self.gpu_hours_per_gpu_hour


def load(name: str, file: str | None = None) -> Site:
    """The site called `name`, or the one described in the user's own `file`.

    Raises:
        ValueError: no such file, an unknown name in it, or one left out.
    """
    path = Path(file) if file else HPC / "sites" / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"no file {path}: --site names a YAML file" if file else f"no site {name}: {path} does not exist")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = {field.name for field in dataclasses.fields(Site)}
    if not isinstance(content, dict) or (wrong := set(content) ^ known):
        names = ", ".join(sorted(wrong)) if isinstance(content, dict) else "all of it"
        raise ValueError(f"{path}: {names} unknown or left out; a site has {', '.join(sorted(known))}")
    site = Site(**content)
    for key in ("preprocess_time", "evaluate_time"):
        if not isinstance(getattr(site, key), str):
            raise ValueError(f"{path}: put {key} into quotes, YAML takes 2:00:00 for a number")
        seconds_of(getattr(site, key))
    if site.cpu_masks is not None and len(site.cpu_masks) < max(1, site.gpus_per_node):
        raise ValueError(f"{path}: {len(site.cpu_masks)} cpu_masks for {site.gpus_per_node} GPUs: each process needs one")
    if site.environment and not (HPC / site.environment).is_file() and not Path(site.environment).is_file():
        raise ValueError(f"{path}: no file {site.environment} for environment")
    for bind in site.container_binds:
        if not re.fullmatch(r"/[^:,]*(:/[^:,]*)?", bind):
            raise ValueError(f"{path}: {bind!r} in container_binds: write an absolute path, or /here:/in/the/container")
    return site


def resolve(cluster: str) -> str:
    """`auto` as what it means on this machine: slurm where there is a configured one, else local."""
    if cluster != "auto":
        return cluster
    if shutil.which("sbatch") is None or shutil.which("sinfo") is None:
        return "local"
    # Installed is not configured. A controller that is only away answers nothing here and still is a cluster.
    asked = subprocess.run(["sinfo", "--version"], capture_output=True, text=True)
    return "local" if asked.returncode else "slurm"


def hours_of(time: str) -> float:
    """A time limit in hours."""
    return seconds_of(time) / 3600


def minutes_of(time: str) -> int:
    """A time limit in whole minutes, rounded up: Slurm's unit."""
    return math.ceil(seconds_of(time) / 60)

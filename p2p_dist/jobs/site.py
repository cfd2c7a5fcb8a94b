"""Sites: what a cluster offers, described by a YAML file in hpc/sites or by a user's own file."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shutil
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from p2p_dist.common import yaml_file
from p2p_dist.jobs.slurm import commands
from p2p_dist.run import snapshot
from p2p_dist.settings.config import Resources, seconds_of

HPC = snapshot.batch_scripts()


@dataclass(frozen=True)
class Site:
    """A site. The entries are explained in hpc/sites/slurm.yaml; an entry that a file omits has the default given here."""

    partition: str | None = None
    cpu_partition: str | None = None
    limits: dict[str, dict[str, Any]] = field(default_factory=dict)
    needs_account: bool = False
    requeue: bool = True
    gpus_per_node: int = 0
    cores_per_process: int = 2
    cores_per_node: int | None = None
    memory_per_node: str | None = None
    whole_nodes: list[str] = field(default_factory=list)
    cpu_masks: list[str] | None = None
    environment: str | None = None
    container: str | None = None
    container_binds: list[str] = field(default_factory=list)
    preprocess_cores: int = 8
    preprocess_memory: str | None = None
    preprocess_time: str = "2:00:00"
    evaluate_processes: int = 1
    evaluate_time: str = "4:00:00"
    gpu_hours_per_node_hour: float = 0
    gpu_hours_per_gpu_hour: float = 1

    def processes_per_node(self, resources: Resources) -> int:
        """Training processes on a node: as asked for, else one a GPU, else one."""
        return resources.processes_per_node or self.gpus_per_node or 1

    def image(self, resources: Resources) -> Path | None:
        """The image that jobs run in: as asked for, else the site's, which may lie in the checkout; None: no container."""
        if resources.container:
            return Path(resources.container).expanduser().absolute()
        return HPC.parent / self.container if self.container else None

    def check_images(self, resources: Resources) -> None:
        """Make sure that the files of the container are there, as far as this machine can see.

        Raises:
            ValueError: one is not; names the option and how to build it.
        """
        overlay = Path(resources.overlay).expanduser() if resources.overlay else None
        for option, path in (("container", self.image(resources)), ("overlay", overlay)):
            if path is not None and not path.is_file():
                how = snapshot.where_is("containers/README.md")
                raise ValueError(f"no image {path}: build it (see {how}), or name yours with --{option}")
        if overlay and self.image(resources) is None:
            raise ValueError(f"--overlay {overlay} needs an image: name one with --container")

    def minutes(self, time: str, partition: str | None) -> int:
        """The time limit of a job that is begun again where it was, in minutes: what a partition gives, where that is less."""
        limit = self.limits.get(partition or "", {}).get("time", time)
        return min(minutes_of(time), minutes_of(limit))

    def gpus(self, processes: int, partition: str | None) -> int:
        """GPUs asked for on a node, for so many processes: all where nodes are given out whole, else one for each."""
        return self.gpus_per_node if partition in self.whole_nodes else min(processes, self.gpus_per_node)

    def memory(self, processes: int, partition: str | None) -> str | None:
        """Memory asked for on a node: all that it has, or the share of the GPUs that are asked for."""
        share = self.gpus(processes, partition)
        if self.memory_per_node is None or share == self.gpus_per_node:
            return self.memory_per_node
        megabytes = bytes_of(self.memory_per_node) // 1024**2 * share // self.gpus_per_node
        return f"{megabytes // 1024}G" if megabytes % 1024 == 0 else f"{megabytes}M"

    def gpu_hours(self, hours: float, nodes: int, partition: str | None, gpus: int) -> float:
        """What so many hours on so many nodes are billed, of each of which so many GPUs were asked for."""
        if partition in self.whole_nodes:
            return hours * nodes * self.gpu_hours_per_node_hour
        return hours * nodes * gpus * self.gpu_hours_per_gpu_hour


_MEMORY = r"([1-9]\d*)([KMGTkmgt])?"
"""How Slurm writes memory; without a unit it is megabytes."""


def bytes_of(memory: str) -> int:
    """Memory as Slurm writes it, in bytes; it has been checked."""
    number, unit = re.fullmatch(_MEMORY, memory).groups("M")  # type: ignore[union-attr]
    return int(number) * 1024 ** (1 + "KMGT".index(unit.upper()))


_WANTED = {
    "bool": "true or false",
    "int": "a whole number without quotes, 0 or more",
    "float": "a finite number without quotes, 0 or more",
    "str": "text, and not none of it",
    "list[str]": "a list of texts, as [one, two], or [] for none",
    "dict[str, dict[str, Any]]": '{partition: {time: "2-00:00:00", nodes: 4, jobs: 200}}, or {} for none',
}
"""What is to be written for the type of a setting."""


def _read(value: object, kind: Any) -> Any:
    """A value read from YAML as what a setting of this type takes.

    Raises:
        TypeError: it is not written as one, is below 0 or not finite, or is empty text.
    """
    value = yaml_file.convert(value, kind)
    texts = value if isinstance(value, list) else [value]
    if any(isinstance(one, str) and not one.strip() for one in texts):
        raise TypeError("empty text")
    if isinstance(value, int | float) and not 0 <= value < math.inf:
        raise TypeError("below 0 or not finite")
    return value


_KINDS = {field.name: str(field.type) for field in dataclasses.fields(Site)}


def _limit(path: Path, partition: str, limit: object) -> dict[str, Any]:
    """What a site's file says of one partition."""
    kinds: dict[str, Any] = {"time": str, "nodes": int, "jobs": int}
    try:
        found = {str(key): _read(value, kinds[key]) for key, value in yaml_file.convert(limit, dict[str, Any]).items()}
        if not all(found.values()):
            raise TypeError("0")
    except (TypeError, KeyError):
        raise ValueError(
            f'{path}: limits of {partition}: write {{time: "2-00:00:00", nodes: 4, jobs: 200}}, or some of them'
        ) from None
    return found


def load(name: str, file: str | None = None) -> Site:
    """The site called `name`, or the one described in the user's own `file`.

    Raises:
        ValueError: no such file, an unknown name in it, or a value that can't be.
    """
    path = Path(file) if file else HPC / "sites" / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"no file {path}: --site names a YAML file" if file else f"no site {name}: {path} does not exist")
    content = yaml_file.read(path)
    types = typing.get_type_hints(Site)
    if not isinstance(content, dict) or (wrong := set(content) - set(types)):
        names = ", ".join(sorted(map(str, wrong))) if isinstance(content, dict) else "all of it"
        raise ValueError(f"{path}: {names} unknown; a site may have {', '.join(sorted(types))}")
    settings = {}
    for key, value in content.items():
        try:
            settings[str(key)] = _read(value, types[key])
        except TypeError:
            wanted = _WANTED[_KINDS[key].removesuffix(" | None")]
            raise ValueError(f"{path}: {key} is {value!r}: write {wanted}") from None
    settings["limits"] = {name: _limit(path, name, limit) for name, limit in settings.get("limits", {}).items()}
    site = Site(**settings)
    times = {f"limits of {name}": limit["time"] for name, limit in site.limits.items() if "time" in limit}
    for key, time in {**times, "preprocess_time": site.preprocess_time, "evaluate_time": site.evaluate_time}.items():
        try:
            seconds_of(time)
        except ValueError as error:
            raise ValueError(f"{path}: {key}: {error}") from error
    for key in ("cores_per_process", "cores_per_node", "preprocess_cores", "evaluate_processes"):
        if getattr(site, key) == 0:
            raise ValueError(f"{path}: {key} is 0: a job takes at least 1")
    for key in ("memory_per_node", "preprocess_memory"):
        if (memory := getattr(site, key)) is not None and not re.fullmatch(_MEMORY, memory):
            raise ValueError(f"{path}: {key} is {memory!r}: write it as 480G or 500000M")
    for mask in site.cpu_masks or ():
        if not re.fullmatch(r"0[xX](?=.*[1-9a-fA-F])[0-9a-fA-F]+", mask):
            raise ValueError(f"{path}: {mask!r} in cpu_masks: write the cores of a process in hexadecimal, as 0xfe00")
    if site.cpu_masks is not None and len(site.cpu_masks) < max(1, site.gpus_per_node):
        raise ValueError(f"{path}: {len(site.cpu_masks)} cpu_masks for {site.gpus_per_node} GPUs: each process needs one")
    if site.environment and not (HPC / site.environment).is_file():
        environment = path.absolute().parent / site.environment  # whatever folder it is looked up from
        if not environment.is_file():
            raise ValueError(f"{path}: no file {environment} for environment, nor one in {HPC}")
        site = dataclasses.replace(site, environment=str(environment))
    for bind in site.container_binds:
        if not re.fullmatch(r"/[^:,]*(:/[^:,]*)?", bind):
            raise ValueError(f"{path}: {bind!r} in container_binds: write an absolute path, or /here:/in/the/container")
    return site


def account(resources: Resources) -> str | None:
    """The project that is billed: as asked for, else as sbatch itself would take it from the environment."""
    return resources.account or os.environ.get("SBATCH_ACCOUNT") or None


def resolve(cluster: Literal["auto", "local", "slurm", "lumi"]) -> Literal["local", "slurm", "lumi"]:
    """`auto` as what it means on this machine: lumi there, slurm where there is another configured one, else local."""
    if cluster != "auto":
        return cluster
    if shutil.which("sbatch") is None or shutil.which("sinfo") is None:
        return "local"
    # Installed is not configured. A controller that is only away answers nothing here and still is a cluster.
    asked = commands.ask("sinfo", "--version")
    if asked.returncode:
        return "local"
    return "lumi" if os.environ.get("SLURM_CLUSTER_NAME") == "lumi" else "slurm"


def minutes_of(time: str) -> int:
    """A time limit in whole minutes, rounded up: Slurm's unit."""
    return math.ceil(seconds_of(time) / 60)

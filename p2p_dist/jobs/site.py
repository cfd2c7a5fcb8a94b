"""Sites: what a cluster offers, described by a YAML file in hpc/sites or by a user's own file."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

from p2p_dist.common import files
from p2p_dist.jobs import environment_file, stages, tiers
from p2p_dist.jobs.slurm import commands, options
from p2p_dist.jobs.tiers import Tier
from p2p_dist.run import snapshot
from p2p_dist.settings import values
from p2p_dist.settings.config import Resources
from p2p_dist.settings.resources import Cluster, Time
from p2p_dist.settings.values import NotNegative, NotNegativeNumber, Positive, Rule, Text

HPC = environment_file.HPC

_KINDS: dict[str, Literal["gpu", "test", "cpu"]] = {**dict.fromkeys(stages.ONE_PROCESS, "cpu"), "preflight": "test"}
"""stage -> kind of its tier; all others: gpu"""


_MEMORY = r"([1-9][0-9]*)([KMGTkmgt])?"
"""Format of memory in Slurm; without a unit it is megabytes."""

Memory = Annotated[str, Rule(re.compile(_MEMORY).fullmatch, "written as 480G or 500000M")]
Mask = Annotated[str, Rule(re.compile(r"0[xX](?=.*[1-9a-fA-F])[0-9a-fA-F]+").fullmatch, "the cores of a process, as 0xfe00")]
Date = Annotated[str, Rule(re.compile(r"20[0-9]{2}-[01][0-9]-[0-3][0-9]").fullmatch, "a date, as 2026-11-27")]
Architecture = Literal["x86_64", "aarch64"]
Bind = Annotated[str, Rule(re.compile(r"/[^:,]*(:/[^:,]*)?").fullmatch, "an absolute path, or /here:/in/the/container")]


@dataclass(frozen=True)
class Limit:
    """The limits of a partition. None: no limit is known."""

    time: Time | None = None
    """of one job"""
    nodes: Positive | None = None
    """of one job"""
    jobs: Positive | None = None
    """of one user, at once"""


@dataclass(frozen=True)
class Site:
    """A site. The entries are explained in hpc/sites/slurm.yaml; an entry that a file omits has the default given here."""

    partition: Text | None = None
    cpu_partition: Text | None = None
    limits: dict[str, Limit] = field(default_factory=dict)
    needs_account: bool = False
    requeue: bool = True
    gpus_per_node: NotNegative = 0
    cores_per_process: Positive = 2
    cores_per_node: Positive | None = None
    memory_per_node: Memory | None = None
    whole_nodes: list[Text] = field(default_factory=list)
    cpu_masks: list[Mask] | None = None
    environment: Text | None = None
    container: Text | None = None
    container_binds: list[Bind] = field(default_factory=list)
    preprocess_cores: Positive = 8
    preprocess_memory: Memory | None = None
    preprocess_time: Time = "2:00:00"
    evaluate_processes: Positive = 1
    evaluate_time: Time = "4:00:00"
    gpu_hours_per_node_hour: NotNegativeNumber = 0
    gpu_hours_per_gpu_hour: NotNegativeNumber = 1
    tiers: list[Tier] = field(default_factory=list)
    accounts: dict[options.Group, options.Account] = field(default_factory=dict)
    sbatch: dict[options.Group, dict[options.Option, options.OptionValue | None]] = field(default_factory=dict)
    srun: list[options.StepFlag] = field(default_factory=list)
    container_runtime: Literal["singularity", "apptainer", "none"] = "singularity"
    container_options: list[options.RuntimeFlag] = field(default_factory=list)
    variables: dict[options.Variable, options.VariableValue] = field(default_factory=dict)
    rendezvous: Literal["name", "ipv4"] = "name"
    rendezvous_suffix: options.Suffix | None = None
    architecture: Architecture | None = None
    cpu_architecture: Architecture | None = None
    cpu_cluster: Text | None = None
    scratch: options.OptionValue | None = None
    scratch_days: Positive | None = None
    billing_unit: options.OptionValue | None = None
    billing_per_gpu_hour: NotNegativeNumber = 1
    source: options.OptionValue | None = None
    checked: Date | None = None

    def __post_init__(self) -> None:
        values.check(self, spelled=str)
        if self.cpu_masks is not None and len(self.cpu_masks) < max(1, self.gpus_per_node):
            raise ValueError(
                f"{len(self.cpu_masks)} cpu_masks for {self.gpus_per_node} GPUs: each process needs one (null: bind no cores)"
            )
        if self.cpu_masks is not None and any(flag.startswith("--cpu-bind") for flag in self.srun):
            raise ValueError("srun and cpu_masks both bind processes to cores: remove one")
        if self.tiers and (self.partition or self.cpu_partition or self.limits):
            raise ValueError("tiers name the partitions and their limits: remove partition, cpu_partition and limits")
        named = [name for tier in self.tiers for name in (tier.partition, tier.qos) if name is not None]
        for name in named if self.cpu_cluster is None else [*named, self.cpu_cluster]:
            if not options.NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a partition, a QoS or a cluster: use letters, digits and _.,@+-")
        if self.tiers and not any(tier.kind == "gpu" for tier in self.tiers):
            raise ValueError("tiers has none of kind gpu, for the training: add one")
        if self.container and self.container_runtime == "none":
            raise ValueError("container names an image, and container_runtime is none: remove one")

    def limit(self, partition: str | None) -> Limit:
        """Return the known limits of a partition that `limits` names."""
        return self.limits.get(partition or "", Limit())

    @property
    def limits_jobs(self) -> bool:
        """Whether the number of a user's jobs is limited somewhere."""
        return bool(self.limits) or any(tier.jobs for tier in self.tiers)

    @property
    def has_other_cpu_nodes(self) -> bool:
        """Whether CPU nodes belong to another cluster, or need other programs than GPU nodes."""
        return self.cpu_cluster is not None or (self.cpu_architecture or self.architecture) != self.architecture

    def tier(self, stage: str, resources: Resources) -> tuple[Tier, str]:
        """Choose the tier of a stage or check; return it, and why not an earlier one: see `tiers.choose`."""
        kind = _KINDS.get(stage, "gpu")
        single = stage in ("evaluate", "generate") or kind == "cpu"
        sizes, minutes = ((1,), 0) if single else (resources.sizes, tiers.minutes_of(resources.time))
        gpus = 0 if kind == "cpu" else min(self.processes(stage, resources), self.gpus_per_node)
        found = self._tiers(kind, resources.partition)
        if single and gpus < self.gpus_per_node:  # of a whole node, the rest would be billed and idle
            shared = [tier for tier in (*found, *self._tiers(kind, None)) if not self.is_whole(tier)]
            found = list(dict.fromkeys([*shared, *found]))
        return tiers.choose(found, [(nodes, nodes * gpus) for nodes in sizes], minutes)

    def _tiers(self, kind: Literal["gpu", "test", "cpu"], partition: str | None) -> list[Tier]:
        """List the tiers that a job of this kind may use, the preferred one first."""
        if kind != "cpu" and partition is not None:
            named = [tier for tier in self.tiers if partition in (tier.partition, tier.qos)]
            named.sort(key=lambda tier: (tier.kind == "cpu", (tier.kind == "test") != (kind == "test")))
            return named or [self._tier_of(kind, partition)]
        if not self.tiers:
            return [self._tier_of(kind, self.cpu_partition if kind == "cpu" else self.partition)]
        on_gpus = [tier for tier in self.tiers if tier.kind == "gpu"]
        if kind == "cpu" and self.has_other_cpu_nodes:
            return on_gpus
        own = [tier for tier in self.tiers if tier.kind == kind]
        return own or on_gpus if kind == "cpu" else [*(own if kind == "test" else []), *on_gpus]

    def _tier_of(self, kind: Literal["gpu", "test", "cpu"], partition: str | None) -> Tier:
        limit = self.limit(partition)
        return Tier(kind, partition, time=limit.time, nodes=limit.nodes, jobs=limit.jobs)

    def preprocessing_in(self, partition: str | None) -> Site:
        """Return the site for jobs that only preprocess, in a partition or QoS; None: on its CPU nodes."""
        if partition is None:
            return (
                self if self.cpu_cluster else dataclasses.replace(self, architecture=self.cpu_architecture or self.architecture)
            )
        if not self.tiers:
            return dataclasses.replace(self, cpu_partition=partition)
        named = [dataclasses.replace(tier, kind="cpu") for tier in self.tiers if partition in (tier.partition, tier.qos)]
        others = [tier for tier in self.tiers if tier.kind != "cpu"]
        cpu = named or [Tier("cpu", partition)]
        return dataclasses.replace(self, tiers=[*others, *cpu], cpu_cluster=None, cpu_architecture=None)

    def is_whole(self, tier: Tier) -> bool:
        """Whether a tier gives out whole nodes only."""
        return bool({tier.partition, tier.qos} & set(self.whole_nodes))

    def takes_whole_nodes(self, stage: str, resources: Resources) -> bool:
        """Whether a job asks for whole nodes; a check asks for what a training does, also in a tier for tests."""
        return self.is_whole(self.tier("train" if _KINDS.get(stage) == "test" else stage, resources)[0])

    def processes(self, stage: str, resources: Resources) -> int:
        """Return the processes of a job per node."""
        if stage in (*stages.ONE_PROCESS, stages.GENERATE):
            return 1
        training = self.processes_per_node(resources)
        if stage != "evaluate":
            return training
        # On shared nodes, at most as many processes evaluate as train, because smaller jobs are billed less.
        shared = bool(self.gpus_per_node) and not self.takes_whole_nodes("train", resources)
        return min(self.evaluate_processes, training) if shared else self.evaluate_processes

    def account_of(self, groups: tuple[str, ...], account: str | None) -> str | None:
        """Return the project that a job is billed to: as `accounts` says for the last of its groups, else `account`.

        Raises:
            ValueError: `accounts` adds to the project what it ends with already.
        """
        rule = next((self.accounts[group] for group in reversed(groups) if group in self.accounts), "{account}")
        if "{account}" not in rule:
            return rule
        suffix = rule.rpartition("{account}")[2]
        if account is not None and suffix and account.endswith(suffix):
            raise ValueError(f"--account {account}: the site's file adds {suffix} itself, name {account.removesuffix(suffix)}")
        return rule.replace("{account}", account) if account is not None else None

    def processes_per_node(self, resources: Resources) -> int:
        """Return the training processes per node: as requested, else one per GPU, else one."""
        return resources.processes_per_node or self.gpus_per_node or 1

    def image(self, resources: Resources) -> Path | None:
        """Return the image of the jobs: as requested, else the site's; None: no container."""
        if resources.container:
            return files.expanded(resources.container).absolute()
        return HPC.parent / self.container if self.container else None

    def check_images(self, resources: Resources) -> None:
        """Check that the files of the container exist, as far as this machine can see.

        Raises:
            ValueError: one is not; names the option and how to build it.
        """
        if self.container_runtime == "none" and (resources.container or resources.overlay):
            raise ValueError(
                "this site's file says that it has neither Singularity nor Apptainer (container_runtime: none): "
                "omit --container and --overlay, and install this program where the launcher runs"
            )
        overlay = files.expanded(resources.overlay) if resources.overlay else None
        for option, path in (("container", self.image(resources)), ("overlay", overlay)):
            if path is not None and not path.is_file():
                how = snapshot.where_is("containers/README.md")
                raise ValueError(f"the image {path} does not exist: build it (see {how}), or name another with --{option}")
        if overlay and self.image(resources) is None:
            raise ValueError(f"--overlay {overlay} needs an image: name one with --container")

    def gpus(self, processes: int, *, whole: bool) -> int:
        """Return the GPUs to request per node: all on whole nodes, else one per process."""
        return self.gpus_per_node if whole else min(processes, self.gpus_per_node)

    def memory(self, processes: int, *, whole: bool) -> str | None:
        """Return the memory to request per node: all of it, or the share of the requested GPUs."""
        share = self.gpus(processes, whole=whole)
        if self.memory_per_node is None or share == self.gpus_per_node:
            return self.memory_per_node
        megabytes = bytes_of(self.memory_per_node) // 1024**2 * share // self.gpus_per_node
        return f"{megabytes // 1024}G" if megabytes % 1024 == 0 else f"{megabytes}M"

    def gpu_hours(self, hours: float, nodes: int, gpus: int, *, whole: bool) -> float:
        """Return the GPU-hours billed for a number of hours, nodes and GPUs per node."""
        if whole:
            return hours * nodes * self.gpu_hours_per_node_hour
        return hours * nodes * gpus * self.gpu_hours_per_gpu_hour


def bytes_of(memory: str) -> int:
    """Convert memory in Slurm's format to bytes; the format was checked before."""
    number, unit = re.fullmatch(_MEMORY, memory).groups("M")  # type: ignore[union-attr]
    return int(number) * 1024 ** (1 + "KMGT".index(unit.upper()))


def load_site(name: str, file: str | None = None) -> Site:
    """Load the site called `name`, or the one in the user's own `file`.

    Raises:
        ValueError: no such file, an unknown name in it, or a value that can't be.
    """
    path = Path(file) if file else HPC / "sites" / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"no file {path}: --site names a YAML file" if file else f"no site {name}: {path} does not exist")
    site = values.from_file(path, lambda _: Site())
    if site.environment:
        site = dataclasses.replace(site, environment=environment_file.find(site.environment, path))
    return site


def account(resources: Resources) -> str | None:
    """Return the project to bill: as requested, else from the environment as sbatch does."""
    return resources.account or os.environ.get("SBATCH_ACCOUNT") or None


def has_slurm() -> bool:
    """Whether this machine belongs to a Slurm cluster, even if its controller does not answer now."""
    if shutil.which("sbatch") is None or shutil.which("sinfo") is None:
        return False
    return not commands.ask("sinfo", "--version").returncode  # Slurm may be installed without being configured


def resolve_cluster(cluster: Cluster) -> Cluster:
    """Resolve `auto` for this machine: a cluster by its name in Slurm, slurm on any other configured cluster, else local."""
    if cluster != "auto":
        return cluster
    if not has_slurm():
        return "local"
    known: dict[str, Cluster] = {one: one for one in get_args(Cluster) if one not in ("auto", "local")}
    return known.get(name_in_slurm().lower().replace("-", "_"), "slurm")


def name_in_slurm() -> str:
    """Return the name that Slurm gives this cluster; empty if its controller does not answer.

    $SLURM_CLUSTER_NAME has it in jobs alone, and the launcher runs on login nodes.
    """
    found = re.search(r"^ClusterName\s*=\s*(\S+)", commands.ask("scontrol", "show", "config").stdout, re.MULTILINE)
    return found[1] if found else ""

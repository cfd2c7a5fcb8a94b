"""Compare a site's file with what Slurm says of its partitions, QoS and GPUs, on a login node of the cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from p2p_dist.jobs import site, tiers
from p2p_dist.jobs.slurm import commands
from p2p_dist.jobs.tiers import Tier
from p2p_dist.settings.config import Resources


@dataclass(frozen=True)
class Limits:
    """What Slurm says of a partition or a QoS; None: no limit."""

    minutes: int | None = None
    default_minutes: int | None = None
    least_nodes: int | None = None
    nodes: int | None = None
    gpus: int | None = None
    jobs: int | None = None
    running: int | None = None
    qos: str | None = None
    """that applies to jobs in a partition that name none"""


def compare(place: site.Site) -> list[str]:
    """List the differences between a site's file and Slurm, in words; empty if there are none.

    Raises:
        OSError: Slurm does not answer.
        ValueError: it answers with an error.
    """
    partitions, qos, gpus = _partitions(), _qos(), _gpus()
    named = place.tiers or [place.tier(stage, Resources())[0] for stage in ("train", "preprocess")]
    found = []
    for number, tier in enumerate(named, 1):
        where = f"tiers.{number} ({tier.name})" if place.tiers else f"the partition {tier.name}"
        if not tier.name:
            continue
        if missing := [*_missing("partition", tier.partition, partitions), *_missing("QoS", tier.qos, qos)]:
            found += [f"{where}: {text}" for text in missing]
            continue
        of_partition = None if tier.partition is None else partitions[tier.partition]
        named_qos = tier.qos or (of_partition.qos if of_partition else None)
        both = [one for one in (of_partition, qos.get(named_qos or "")) if one is not None]
        others = [one for one in named if (one.partition, one.qos, one.kind) == (tier.partition, tier.qos, tier.kind)]
        found += [f"{where}: {text}" for text in _differences(tier, others, both)]
        there = gpus.get(tier.partition or "", set())
        if tier.kind != "cpu" and there and place.gpus_per_node not in there:
            numbers = " or ".join(map(str, sorted(there)))
            found.append(f"{where}: gpus_per_node is {place.gpus_per_node}, its nodes have {numbers}")
    return found


def _missing(what: str, name: str | None, known: dict[str, Limits]) -> Iterator[str]:
    if name is not None and name not in known:
        yield f"there is no {what} {name}; there are {', '.join(sorted(known)) or 'none'}"


def _differences(tier: Tier, others: list[Tier], there: list[Limits]) -> Iterator[str]:
    """Compare one tier with its partition and its QoS, of which the lower limit counts.

    Args:
        others: all tiers of the file with this partition and QoS. Slurm knows only the highest of their limits.
    """
    minutes = tiers.minutes_of(tier.time) if tier.time else None
    ours = {"time": minutes, "nodes": tier.nodes, "gpus": tier.gpus, "jobs": tier.jobs, "running": tier.running}
    slurm = {
        "time": _least(one.minutes for one in there),
        "nodes": _least(one.nodes for one in there),
        "gpus": _least(one.gpus for one in there),
        "jobs": _least(one.jobs for one in there),
        "running": _least(one.running for one in there),
    }
    for name, limit in slurm.items():
        value, shown = ours[name], getattr(tier, name)
        if limit is None:
            continue
        said = _time(limit) if name == "time" else limit
        if value is None:
            yield f"{name} is not in the file, Slurm allows {said}"
        elif value > limit or (value < limit and len(others) == 1):
            yield f"{name} is {shown}, Slurm allows {said}"
    least = max((one.least_nodes or 1 for one in there), default=1)
    if least > tier.least_nodes:
        yield f"least_nodes is {tier.least_nodes}, Slurm wants at least {least}"
    default = next((one.default_minutes for one in there if one.default_minutes), None)
    if tier.default_time and default and tiers.minutes_of(tier.default_time) != default:
        yield f"default_time is {tier.default_time}, Slurm's is {_time(default)}"


def _least(values: Iterator[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _partitions() -> dict[str, Limits]:
    """Map partition -> its limits."""
    found = {}
    for line in _answer("scontrol", "--oneliner", "show", "partition").splitlines():
        said = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "PartitionName" in said:
            found[said["PartitionName"]] = Limits(
                _minutes(said.get("MaxTime")),
                _minutes(said.get("DefaultTime")),
                _number(said.get("MinNodes")),
                _number(said.get("MaxNodes")),
                qos=said.get("QoS"),
            )
    return found


def _qos() -> dict[str, Limits]:
    """Map QoS -> its limits. Empty where there is no accounting."""
    fields = "format=name,maxwall,maxtresperjob,mintresperjob,maxsubmitjobsperuser,maxjobsperuser"
    asked = commands.ask("sacctmgr", "-nP", "show", "qos", fields)
    found = {}
    for line in asked.stdout.splitlines() if asked.returncode == 0 else ():
        name, wall, most, least, jobs, running = [*line.split("|"), "", "", "", "", ""][:6]
        found[name] = Limits(
            minutes=_minutes(wall),
            least_nodes=_of_tres(least, "node"),
            nodes=_of_tres(most, "node"),
            gpus=_of_tres(most, "gres/gpu"),
            jobs=_number(jobs),
            running=_number(running),
        )
    return found


def _gpus() -> dict[str, set[int]]:
    """Map partition -> numbers of GPUs of its nodes."""
    found: dict[str, set[int]] = {}
    for line in _answer("sinfo", "--noheader", "--all", "--format=%R %G").splitlines():
        partition, _, text = line.partition(" ")
        numbers = [int(number) for number in re.findall(r"\bgpu(?::[^:,()]+)?:(\d+)", text)]
        if numbers:
            found.setdefault(partition, set()).add(sum(numbers))
    return found


def _answer(*command: str) -> str:
    asked = commands.ask(*command)
    if asked.returncode:
        raise ValueError(f"{command[0]} answers: {(asked.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    return asked.stdout


def _minutes(text: str | None) -> int | None:
    return (tiers.minutes_of(text) or None) if text else None  # UNLIMITED and NONE are no times


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _of_tres(text: str, name: str) -> int | None:
    return next((_number(part.partition("=")[2]) for part in text.split(",") if part.partition("=")[0] == name), None)


def _time(minutes: int) -> str:
    days, rest = divmod(minutes, 24 * 60)
    return f"{days}-{rest // 60:02d}:{rest % 60:02d}:00" if days else f"{rest // 60}:{rest % 60:02d}:00"

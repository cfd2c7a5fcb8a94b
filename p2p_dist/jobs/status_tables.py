"""Show runs as tables: one run with all its figures, or several with a row each."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from p2p_dist.common import console
from p2p_dist.jobs import stages
from p2p_dist.run import rundir

if TYPE_CHECKING:
    from rich.table import Table

LISTED = 8
"""Checkpoints whose cost the table of one run shows."""


def show(found: dict[str, Any]) -> None:
    """Print one run as a table."""
    _print(*table_of_one(found))


def show_all(found: list[dict[str, Any]]) -> None:
    """Print several runs as one table, a row each."""
    _print(*table_of_all(found))


def _print(table: Table, lines: list[str]) -> None:
    console.wide().print(table)
    for line in lines:
        console.say(line)


def table_of_one(found: dict[str, Any]) -> tuple[Table, list[str]]:
    """Return one run as a table, and lines below it."""
    from rich.table import Table

    table = Table(title=console.cell(f"run {found['run']}"), show_header=False, title_justify="left")
    for stage, text in found["stages"].items():
        table.add_row(stage, console.cell(_in_short(text)))

    def number(value: float | None, form: str = ".3g") -> str:
        return "unknown" if value is None else f"{value:{form}}"

    hours = found["gpu_hours"]
    table.add_section()
    table.add_row("attempt", console.cell(f"{found['attempt'] or '-'} ({found['attempts']} in all)"))
    starts = found["nodes"]["starts"]
    if starts and {str(one["nodes"]) for one in starts} != {found["nodes"]["wanted"]}:
        table.add_row(f"nodes ({found['nodes']['wanted']} wanted)", _nodes_in_words(starts))
    table.add_row("step", f"{found['step']} of {number(found['total'], 'd')}")
    table.add_row("images/s, l1", f"{number(found['images_per_second'])}, {number(found['l1'])}")
    if found["memory"] is not None:
        table.add_row("memory of rank 0", f"{found['memory'] / 1e9:.3g} GB")
    table.add_row("last checkpoint", "none" if found["checkpoint"] is None else f"step {found['checkpoint']}")
    table.add_row("evaluations", f"{found['evaluated']} of {found['to_evaluate']}")
    if found["best"]:
        table.add_row("best", console.cell(rundir.in_words(found["best"])))
    table.add_row("time left", "unknown" if found["seconds_left"] is None else console.duration(found["seconds_left"]))
    told = f"{hours['used']:.2f} used, {hours['lost']:.2f} lost to restarts, {number(hours['predicted'])} predicted"
    if hours["estimated"]:
        several = hours["estimated"] > 1
        told += (
            f"\n{hours['estimated']} of the starts {'were' if several else 'was'} killed: counted until "
            f"{'their' if several else 'its'} last status update, Slurm may bill more"
        )
    table.add_row("GPU-hours of training", told)
    kwh = found["energy"]["kwh"]
    table.add_row("energy of training", "not known" if kwh is None else f"{kwh:.3g} kWh, from {found['energy']['told_by']}")
    if len(found["costs"]) > LISTED:
        table.add_row("", f"the cost of {len(found['costs']) - LISTED} earlier checkpoints: --json")
    for cost in found["costs"][-LISTED:]:
        energy_of_it = "energy not known" if cost["kwh"] is None else f"{cost['kwh']:.3g} kWh"
        table.add_row(f"up to step {cost['step']}", f"{cost['gpu_hours']:.2f} GPU-hours, {energy_of_it}")
    lines = [f"{stage}: {text}" for stage, text in found["stages"].items() if _in_short(text) != text]
    if (waits := found["waiting"].get(stage := current_stage(found))) is not None:
        lines.append(f"{stage} waits: {waits['why']}")
    return table, [*lines, *([f"wrong: {found['wrong']}"] if found["wrong"] else [])]


def _nodes_in_words(starts: list[dict[str, Any]]) -> str:
    """Return the numbers of nodes that a training had one after the other, and for how long."""
    parts = []
    for nodes, of in itertools.groupby(starts, lambda one: one["nodes"]):
        parts.append(f"{nodes} for {console.duration(sum(one['seconds'] for one in of))}")
    return ", then ".join(parts)


_NOTHING_TO_DO = ("done", stages.NOT_ASKED, stages.SHARDS_ONLY)


def current_stage(found: dict[str, Any]) -> str:
    """Return the first stage of a run that is not done; the last one if all are done."""
    stage = next((name for name, text in found["stages"].items() if text not in _NOTHING_TO_DO), None)
    if stage is None:
        stage = "preprocess" if found["stages"].get("train") == stages.SHARDS_ONLY else list(found["stages"])[-1]
    return stage


def table_of_all(found: list[dict[str, Any]]) -> tuple[Table, list[str]]:
    """Return several runs as one table, a row each, and lines below it."""
    from rich.table import Table

    table = Table("run", "stage", "state", "step", "l1", "evaluated", "GPU-hours")
    reasons = []
    for one in found:
        name = console.cell(one["run"])
        if "stages" not in one:
            table.add_row(name, "?", "can't be read", "?", "", "", "")
            reasons.append(f"{one['run']}: {one['wrong']}")
            continue
        stage = current_stage(one)
        state = one["stages"][stage]
        reasons += [f"{one['run']}: {stage}: {state}"] if _in_short(state) != state else []
        reasons += [f"{one['run']}: {one['wrong']}"] if one["wrong"] else []
        step = f"{one['step']} of {'?' if one['total'] is None else one['total']}"
        l1 = "" if one["l1"] is None else f"{one['l1']:.4f}"
        evaluated = f"{one['evaluated']} of {one['to_evaluate']}"
        table.add_row(name, stage, console.cell(_in_short(state)), step, l1, evaluated, f"{one['gpu_hours']['used']:.2f}")
    return table, reasons


def _in_short(state: str) -> str:
    """Return a state without its reason, which is printed below the table."""
    return re.split(r": |; |, see ", state, maxsplit=1)[0]

"""Measure how the speed of a training grows with the number of nodes (weak and strong scaling), beside a model's prediction.

Weak: the batch per process is constant, the global batch grows. Strong: the global batch is constant. What
each process measures is in ranks.py: several times each way, of which the median counts. On one machine, which may
have other work at any moment, all sizes are measured once upwards and once downwards.
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

from p2p_dist.checks.folder import check_folder
from p2p_dist.common import console, files, linux, records, svg
from p2p_dist.common.records import COUNT, Maybe
from p2p_dist.common.svg import Line
from p2p_dist.data import dataset as datasets
from p2p_dist.jobs import begin_run, child, example_song, fits, packages, site
from p2p_dist.jobs.slurm import launch, specs, squeue
from p2p_dist.run import rundir
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import presets
from p2p_dist.settings.config import Resources

WAYS = ("weak", "strong")

WINDOW = 0.16
"""Share of a step in which communication is hidden: most are ready when two thirds of the generator's backward are done, and
that backward is about half of the step's arithmetic."""

SCATTER = 1.25
"""Ratio of the highest to the lowest measurement of a row from which a warning is printed."""


def scaling(nodes: str, steps: int, preset: str, resources: Resources, songs: Path | None) -> int:
    """Measure every size and print the table. Plot and results are in `scaling` in the folder of runs.

    Args:
        nodes: numbers of nodes, as `1,2,4`.

    Returns:
        exit code: 0 every size was measured, 1 some were not.

    Raises:
        ValueError: no such preset or numbers, Slurm would refuse a job, or another scaling is queued or running.
        OSError: Slurm does not answer, or preprocessing failed.
    """
    try:
        sizes = sorted({int(part) for part in nodes.split(",")})
    except ValueError:
        raise ValueError(f"--nodes {nodes}: write numbers of nodes as in 1,2,4,8") from None
    if sizes[0] < 1:
        raise ValueError(f"--nodes {nodes}: at least one node")
    where = site.resolve_cluster(resources.cluster)
    place = site.load_site(where, resources.site)
    if where == "local":
        packages.check_packages()
    else:
        place.check_images(resources)
    base = presets.preset(preset)
    resources = dataclasses.replace(resources, max_requeues=0, max_crash_restarts=0)
    # On the smallest size, weak and strong are equal: both use the preset's batch.
    smallest = sizes[0] * place.processes_per_node(resources)
    share = max(1, base.train.global_batch_size // smallest)
    example = example_song.example_folder() if songs is None else None
    songs = songs or example_song.example_folder()
    settings_of = {}
    for size in sizes:
        settings_of[size] = settings = dataclasses.replace(
            base,
            resources=dataclasses.replace(resources, nodes=size),
            data=dataclasses.replace(base.data, root=str(songs)),
            evaluate=dataclasses.replace(base.evaluate, allow_overlap=True),  # of the example, which has one song
            train=dataclasses.replace(base.train, epochs=None, steps=steps),
        )
        per_node = place.processes_per_node(resources)
        # The largest batch that is measured.
        shared = dataclasses.replace(
            settings, train=dataclasses.replace(settings.train, global_batch_size=share * size * per_node)
        )
        if where == "local":
            fits.check_this_machine(shared, size * per_node)
        else:
            fits.check_node(shared, place, per_node)
    if example is None:
        fits.check_training_songs(songs, base.data.split_by_title)
    with check_folder("scaling", example) as root:
        runs = []
        for size, settings in settings_of.items():
            run = RunDir(root / "runs" / f"nodes-{size}")
            begin_run.begin(run, settings, datasets.dataset_name(songs, settings.data))
            files.write_json(run.path / "plan.json", {"share": share, "global_batch": share * smallest})
            runs.append(run)
        if where == "local":
            measure_here(runs)
        else:
            _on_slurm(runs, place)
        return report(root, runs)


def measure_here(runs: list[RunDir]) -> None:
    """Measure each size on this machine in ascending and descending order, because its speed may drift."""
    cores, load = linux.usable_cores(), os.getloadavg()[0]
    if load > cores / 2:
        console.complain(f"warning: this machine is busy (load {load:.1f}, {cores} cores): measurements will vary")
    console.say(
        f"all nodes share the {cores} cores of this machine, so this efficiency does not predict the efficiency on a cluster"
    )
    run_here("preprocess", runs[0], 0)
    for number, run in enumerate([*runs, *reversed(runs)] if len(runs) > 1 else runs, 1):
        run_here("scaling", run, number)
        _say_measured(run)


def run_here(stage: str, run: RunDir, number: int) -> None:
    log = run.logs / f"{stage}.log"
    console.say(f"{stage}, {run.name}: log {log}")
    code = child.start(stage, run, f"scaling.{os.getpid()}.{run.name}.{number}", log).wait()
    if code and stage == "preprocess":
        raise OSError(5, "preprocessing failed", str(log))


def _say_measured(run: RunDir) -> None:
    """Print the results of a size once they exist."""
    if not (run.path / "scaling.json").is_file():
        return
    one = records.read(run.path / "scaling.json", MEASURED)
    found = [f"{way} {one[way]['images_per_second']:.4g} images/s ({_range(one[way])})" for way in WAYS if one[way]]
    console.say(f"{run.name}: {', '.join(found)}")


def _range(way: dict[str, Any]) -> str:
    """Format the lowest and highest measurement of a row."""
    return f"{min(way['measured']):.4g} to {max(way['measured']):.4g}"


def _on_slurm(runs: list[RunDir], place: site.Site) -> None:
    """Queue one job per size after the preprocessing; print their states until the last has ended."""
    numbers: dict[str, str] = {}
    before = None
    for run, stage in ((runs[0], "preprocess"), *((run, "scaling") for run in runs)):
        (job,) = specs.jobs(run, rundir.read_settings(run), place, (stage,))
        numbers[f"{stage}, {run.name}"] = number = launch.queue_check(job, place, f"afterok:{before}" if before else None)
        before = before or number
    shown: dict[str, str] = {}
    waiting = list(runs)
    begun = time.monotonic()
    while any(number in (states := squeue.job_states()) for number in numbers.values()):
        for name, number in numbers.items():
            if number in states and shown.get(name) != states[number]:
                shown[name] = states[number]
                console.say(f"{name}: {states[number]}, job {number}")
        for run in [run for run in waiting if (run.path / "scaling.json").is_file()]:
            waiting.remove(run)
            _say_measured(run)
        time.sleep(squeue.patience([states[number] for number in numbers.values() if number in states], begun))


def predict(one: dict[str, Any], first: dict[str, Any], share: float) -> float:
    """Predict the images per second of a size from the measured smallest size and all-reduce.

    The compute time per image is that of the smallest size. The time for the all-reduce of the generator's gradients, with
    2 (n - 1) / n of their bytes at the measured rate, is added as far as it is not hidden behind the backward.

    Args:
        one: the results of this size. first: those of the smallest size. share: images per process and step.
    """
    step = first["weak"]["batch"] / first["weak"]["images_per_second"]
    travel = _travel(first)
    # step = compute + max(0, travel - WINDOW x compute)
    compute = step if travel <= WINDOW * step else max((step - travel) / (1 - WINDOW), 0.1 * step)
    compute *= share * first["processes"] / first["weak"]["batch"]
    return float(one["processes"] * share / (compute + max(0.0, _travel(one) - WINDOW * compute)))


def _travel(one: dict[str, Any]) -> float:
    """Return the seconds for the all-reduce of the generator's gradients."""
    if one["all_reduce"] is None:
        return 0.0
    return float(one["gradient_bytes"] * 2 * (one["processes"] - 1) / one["processes"] / one["all_reduce"]["bus"])


_WAY = {"batch": COUNT, "images_per_second": float, "measured": [float], "data_wait": float}
MEASURED = {
    "nodes": COUNT,
    "processes": COUNT,
    "device": str,
    "precision": str,
    "flops_per_image": float,
    "gradient_bytes": COUNT,
    "all_reduce": Maybe({"bus": float}),
    "weak": Maybe(_WAY),
    "strong": Maybe(_WAY),
}
"""Shape of scaling.json, see ranks.py."""


def report(root: Path, runs: list[RunDir]) -> int:
    """Print the table and write it with the numbers and the plot; return the exit code."""
    found = [records.read(path, MEASURED) for run in runs if (path := run.path / "scaling.json").is_file()]
    missing = [run for run in runs if not (run.path / "scaling.json").is_file()]
    for run in missing:
        logs = run.slurm / "scaling" if run.slurm.is_dir() else run.logs / "scaling.log"
        console.complain(f"error: {run.name} was not measured; see its logs: {logs}")
    if not found:
        return console.FAILED
    first = found[0]
    # The smallest size of each kind. A size with more processes than the batch has pairs has no strong row.
    base = {way: next((one for one in found if one[way] is not None), first) for way in WAYS}
    head = ["nodes", "processes", "scaling", "batch", "images/s", "of so many", "lowest to highest", "efficiency", "model"]
    head += ["data wait", "all-reduce"]
    rows = [head]
    notes: list[str] = []
    for one in found:
        for way in WAYS:
            measured = one[way]
            size = [str(one["nodes"]), str(one["processes"]), way]
            if measured is None:
                rows.append([*size, "-", "too few pairs", *[""] * (len(head) - 5)])
                continue
            rate = measured["images_per_second"]
            measured["efficiency"] = rate / base[way][way]["images_per_second"] * base[way]["processes"] / one["processes"]
            measured["model"] = predict(one, first, measured["batch"] / one["processes"])
            bus = f"{one['all_reduce']['bus'] / 1e9:.2f} GB/s" if one["all_reduce"] else "-"
            cells = [str(measured["batch"]), f"{rate:.4g}", str(len(measured["measured"])), _range(measured)]
            cells += [f"{measured['efficiency']:.0%}", f"{measured['model']:.4g}", f"{measured['data_wait']:.1%}", bus]
            rows.append([*size, *cells])
            notes += explain(one, base[way], way)
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    rows.insert(1, ["-" * width for width in widths])
    lines = ["| " + " | ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    about = (
        f"{first['device']}, {first['precision']}, {first['flops_per_image'] / 1e9:.3g} GFLOP an image, "
        f"{first['gradient_bytes'] / 1e6:.3g} MB of gradients a step"
    )
    table = "\n".join([about, "", *lines, *([""] if notes else []), *notes])
    console.say(f"\n{table}\n")
    files.write_text(root / "scaling.md", table + "\n")
    files.write_json(root / "scaling.json", found)
    console.say(f"numbers: {root / 'scaling.json'}")
    files.write_text(root / "scaling.svg", plot(found))
    console.say(f"plot: {root / 'scaling.svg'}")
    return console.FAILED if missing else console.DONE


def explain(one: dict[str, Any], first: dict[str, Any], way: str) -> list[str]:
    """Return warnings about a row: measurements that vary, an efficiency over 100 %.

    Args:
        one: the results of a size, with its efficiency. first: those of the size that it is compared with.
    """
    row, smallest = one[way], first[way]
    name = f"{one['nodes']} nodes, {way}"
    found = []
    if max(row["measured"]) > SCATTER * min(row["measured"]):
        found.append(
            f"warning: {name}: the measurements vary ({_range(row)} images/s): other work ran on these nodes, or "
            "--steps is too small; measure again before you rely on them"
        )
    if round(row["efficiency"], 2) > 1:
        share = one["processes"] / first["processes"]
        if min(row["measured"]) <= share * max(smallest["measured"]):
            why = (
                "the measurements of this size and of the smallest size overlap, so the difference is chance or "
                "other work on the nodes"
            )
        elif way == "strong":
            why = "the smaller batch of each process fits its caches better, or other work slowed the smallest size"
        else:
            why = "other work slowed the smallest size all the time, or it ran on slower nodes"
        found.append(f"note: {name}: over 100 %: {why}")
    return found


def plot(found: list[dict[str, Any]]) -> str:
    """Draw images per second over processes as SVG: measured, with the range of the measurements, and predicted."""
    first = found[0]
    lines = []
    for way, colour, dashes in (("weak", "accent", ""), ("strong", "b0", "10 3")):
        of = {one["processes"]: one[way] for one in found if one[way] is not None}
        rates = {processes: row["images_per_second"] for processes, row in of.items()}
        ranges = {processes: (min(row["measured"]), max(row["measured"])) for processes, row in of.items()}
        lines.append(Line(f"{way}, measured", rates, ranges, colour, dashes, marked=True))
        model = {processes: row["model"] for processes, row in of.items()}
        lines.append(Line(f"{way}, model", model, colour=colour, dashes="2 3"))
    ideal = first["weak"]["images_per_second"] / first["processes"]
    lines.append(Line("ideal", {one["processes"]: ideal * one["processes"] for one in found}, colour="quiet"))
    lines = [line for line in lines if line.points]
    drawn = svg.plot(f"{first['device']}, {first['precision']}", lines, "processes", "images/s", log=True)
    return svg.document([drawn], lines, 1)

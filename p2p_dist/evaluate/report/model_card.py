"""Write MODEL.md, the model card of a run's best checkpoint: what it is, its training data and its measures.

After Mitchell et al.: Model cards for model reporting (2019). That of the data, DATASET.md, lies beside the shards.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from p2p_dist.common import console, files, records, schemas
from p2p_dist.common.console import one_line
from p2p_dist.data import manifest as manifests
from p2p_dist.data.dataset_card import overlapping
from p2p_dist.evaluate.baselines.baseline_stems import BASELINES
from p2p_dist.evaluate.measures.table import MEASURES, columns, is_pitched, label, remarks
from p2p_dist.run.rundir import RunDir, step_name
from p2p_dist.settings.config import Config, parse_task


def write(run: RunDir, config: Config, evaluated: dict[int, Any], baselines: Any) -> Path | None:
    """Write the card of the checkpoint that best.json names; None where there is none.

    Args:
        evaluated, baselines: the contents of metrics.json by step, and of baselines.json.
    """
    path = run.path / "MODEL.md"
    if (best := run.read_best()) is None:
        return None
    folder = run.checkpoints / step_name(best["step"])
    if not (folder / "generator.safetensors").is_file() or best["step"] not in evaluated:
        return None
    try:
        facts = _facts(run, config, folder)
    except SafetensorError as error:  # it was damaged after it had been measured
        console.complain(f"warning: {folder / 'generator.safetensors'} is damaged ({error}): no model card is written")
        return None
    heard, made = (" + ".join(stems) for stems in parse_task(config.data.task))
    lines = [f"# Model card: {run.path.name}, step {best['step']}", ""]
    lines += [f"Makes {made} for a song of which {heard} is heard. The song itself is never touched: what is made is a stem"]
    lines += ["that is added to it. It is a U-Net trained against a discriminator on patches (Pix2Pix, Isola et al. 2017)."]
    lines += ["", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in facts]
    lines += ["", "## Trained on", "", *_trained_on(run, config)]
    lines += ["", "## How it measures", "", *_figures(config, best, evaluated[best["step"]], baselines)]
    lines += ["", "## What it is for, and what not", ""]
    lines += [
        "For sketches of an accompaniment, to be listened to before they are used, and for research on training such networks.",
        "It knows music like the songs above; of others, of live tempo and of long silence expect less. It hears a few seconds",
        "at a time: it has no plan for a whole song. Where a baseline above is better, the baseline is better.",
        "No listening test was made.",
        "",
        "## Licence",
        "",
        "The program is under the MIT licence. What was learnt from songs is bound by theirs: MUSDB18 and what is made of it",
        "are for non-commercial, educational use.",
    ]
    files.write_text(path, "\n".join(line.rstrip() for line in lines) + "\n")
    return path


def _facts(run: RunDir, config: Config, folder: Path) -> list[tuple[str, str]]:
    weights = folder / "generator.safetensors"
    with safe_open(weights, framework="numpy") as opened:
        parameters = sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118 - no dict
    data, model, train = config.data, config.model, config.train
    made_by = records.read(run.provenance, schemas.PROVENANCE, "remove it") if run.provenance.is_file() else {}
    versions = made_by.get("packages", {})
    facts = [
        (
            "weights",
            f"checkpoints/{folder.name}/{weights.name}, {weights.stat().st_size / 1e6:.1f} MB, sha256 {_sha256(folder)}",
        ),
        ("parameters of the generator", f"{parameters:,}"),
        ("preset", config.preset),
        (
            "pictures",
            f"{data.mels} mels x {data.frames} frames at {data.sample_rate} Hz, n_fft {data.n_fft}, hop {data.hop_length}, "
            f"{data.channels}, representation {data.representation}",
        ),
        (
            "networks",
            f"depth {model.depth}, {model.channels} to {model.max_channels} channels, {model.upsample}, {model.norm} norm",
        ),
        (
            "losses",
            f"{train.adversarial_loss}, L1 x {train.l1_weight:g}, differences x {train.difference_weight:g}, "
            f"features x {train.feature_weight:g}",
        ),
        (
            "optimisers",
            f"Adam, learning rate {train.learning_rate:g}, {train.global_batch_size} pairs a step, "
            f"moving average {train.ema:g}, precision {train.precision}, seed {train.seed}",
        ),
    ]
    if made_by:
        facts.append(("begun", f"{made_by['begun']}, p2p_dist {made_by['version']}, commit {made_by['commit'] or 'not known'}"))
        facts.append(("software", ", ".join(f"{name} {v}" for name, v in versions.items() if v)))
    return facts


def _sha256(folder: Path) -> str:
    meta = folder / "meta.json"
    if not meta.is_file():
        return "not recorded"
    return str(records.read(meta, schemas.CHECKPOINT)["files"]["generator.safetensors"]["sha256"])


def _trained_on(run: RunDir, config: Config) -> list[str]:
    manifest = manifests.read(run.shards)
    lines = ["| split | songs | hours | windows |", "| --- | --- | --- | --- |"]
    for split, part in manifest["splits"].items():
        songs = part.get("songs", [])
        hours = sum(song["seconds"] for song in songs) / 3600
        lines.append(f"| {split} | {len(songs)} | {hours:.2f} | {len(part['samples'])} |")
    lines += ["", f"The rest is in DATASET.md of the shards `{run.shards.name}`: levels, silence, what was left out."]
    overlap = _twice(manifest)
    if overlap:
        lines += [
            "",
            f"Trained and tested on the same titles, so its figures say nothing of other songs: {', '.join(overlap)}.",
        ]
    if same := overlapping(manifest):
        counted = "counted in the figures, which say nothing of other songs" if config.evaluate.allow_overlap else "left out"
        lines += ["", f"Held out, and yet trained on, so {counted}:", "", *(f"- {one_line(line)}" for line in same)]
    return lines


def _twice(manifest: dict[str, Any]) -> list[str]:
    names = {split: {song["name"] for song in part.get("songs", [])} for split, part in manifest["splits"].items()}
    return sorted(names.get("train", set()) & (names.get("test", set()) | names.get("valid", set())))


def _figures(config: Config, best: dict[str, Any], measured: Any, baselines: Any) -> list[str]:
    split = best["reported_on"]
    one, known = measured["splits"][split], baselines["splits"][split]
    decisive, _ = columns(pitched=is_pitched(config.data.task))
    names = [n for n in decisive if any(row["mean"].get(n) is not None for row in [one, *known["rows"].values()])]
    over = f"{known['songs']} {split} songs" if known["songs"] != 1 else f"one {split} song"
    lines = [f"Means over {over}; in brackets the 95 % confidence interval (jackknife, Student's t).", ""]
    lines += [
        "| | " + " | ".join(f"{MEASURES[n].family} {MEASURES[n].label}" for n in names) + " |",
        "| --- " * (1 + len(names)) + "|",
    ]
    for name in (*BASELINES, ""):
        row = one if not name else known["rows"].get(name)
        if row is not None:
            lines.append(f"| {name or '**this checkpoint**'} | " + " | ".join(_text(row, n) for n in names) + " |")
    for remark in remarks(row["mean"] for row in [one, *known["rows"].values()]):
        lines += ["", remark]
    absent = {label(n): why for n, why in one["absent"].items() if n in decisive} | known["missing"]
    lines += ["", *(f"- {name}: {why}" for name, why in absent.items())] if absent else []
    chosen = f"Chosen on the {best['chosen_on']} songs" + (f" ({best['note']})" if best["note"] else "")
    return [*lines, "", f"{chosen} by score {best['score']:.3f}: {best['rule']}"]


def _text(row: dict[str, Any], name: str) -> str:
    if (value := row["mean"].get(name)) is None:
        return "–"
    interval, text = row["interval"].get(name), MEASURES[name].text
    return text(value) + (f" [{text(interval[0])}, {text(interval[1])}]" if interval else "")

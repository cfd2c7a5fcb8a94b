"""Write model cards: a description of a generator, its training data and its measures. MODEL.md describes the best checkpoint.

After Mitchell et al.: Model cards for model reporting (2019). The card of the dataset, DATASET.md, is beside the shards.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

from p2p_dist.audio.musdb18 import known_of_musdb18
from p2p_dist.common import console, files, records, schemas
from p2p_dist.common.console import one_line
from p2p_dist.data import manifest as manifests
from p2p_dist.data.dataset_card import LICENCE, overlapping
from p2p_dist.evaluate import ranking
from p2p_dist.evaluate.baselines.baseline_stems import BASELINES
from p2p_dist.evaluate.measures import descriptors
from p2p_dist.evaluate.measures.table import MEASURES, columns, is_pitched, label, remarks
from p2p_dist.run.rundir import RunDir, step_name
from p2p_dist.settings.config import Config, parse_task


def write(run: RunDir, config: Config, evaluated: dict[int, Any], baselines: Any) -> Path | None:
    """Write the card of the checkpoint in best.json; None if there is none.

    Args:
        evaluated, baselines: the contents of metrics.json by step, and of baselines.json.
    """
    path = run.path / "MODEL.md"
    if (best := run.read_best()) is None:
        return None
    weights = run.checkpoints / step_name(best["step"]) / "generator.safetensors"
    if not weights.is_file() or best["step"] not in evaluated:
        return None
    try:
        parameters = _parameters(weights)
    except SafetensorError as error:  # damaged since its evaluation
        console.complain(f"warning: {weights} is damaged ({error}): no model card is written")
        return None
    where = f"checkpoints/{weights.parent.name}/{weights.name}"
    facts = [
        ("weights", f"{where}, {weights.stat().st_size / 1e6:.1f} MB, sha256 {_sha256(weights.parent)}"),
        ("parameters of the generator", f"{parameters:,}"),
    ]
    figures = _figures(config, best, evaluated[best["step"]], baselines, _chosen(best))
    lines = _card(run, config, best["step"], facts, [], manifests.read(run.shards), figures)
    files.write_text(path, _text_of(lines))
    return path


def exported(run: RunDir, config: Config, content: dict[str, Any]) -> str:
    """Return the card of an exported model, with the YAML header that model hubs read. Writes nothing.

    Args:
        content: of its config.json, see generate/exported.py.

    Raises:
        ValueError: a record of the run is damaged.
    """
    try:
        manifest = manifests.read(run.shards)
    except FileNotFoundError:
        manifest = None
    measured, measures = _evaluation(run, config, content["step"])
    weights = content["weights"]
    facts = [
        ("weights", f"model.safetensors, {weights['dtype']}, {weights['bytes'] / 1e6:.1f} MB, sha256 {weights['sha256']}"),
        ("made of", f"the run's weights of step {content['step']}, sha256 {weights['checkpoint_sha256']}"),
        ("parameters of the generator", f"{weights['parameters']:,}"),
    ]
    head = yaml.safe_dump(_head(config, manifest, measures), sort_keys=False, allow_unicode=True, width=120)
    lines = _card(run, config, content["step"], facts, _use(content), manifest, measured)
    return f"---\n{head}---\n\n{_text_of(lines)}"


def _card(
    run: RunDir,
    config: Config,
    step: int,
    weights: list[tuple[str, str]],
    use: list[str],
    manifest: dict[str, Any] | None,
    figures: list[str],
) -> list[str]:
    """Return the lines of a card.

    Args:
        weights: table rows about the weights. use: a section on how to use them. manifest: None if the shards were removed.
    """
    heard, made = (" + ".join(stems) for stems in parse_task(config.data.task))
    lines = [f"# Model card: {run.name}, step {step}", ""]
    lines += [f"Makes {made} for a song of which {heard} is heard. The song itself is never changed: the output is a stem"]
    lines += ["that is added to it. It is a U-Net trained against a discriminator on patches (Pix2Pix, Isola et al. 2017)."]
    lines += ["", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in [*weights, *_facts(run, config)]]
    lines += use
    lines += ["", "## Trained on", "", *_trained_on(run, config, manifest)]
    lines += ["", "## How it measures", "", *figures]
    lines += ["", "## What it is for, and what not", ""]
    lines += [
        "For sketches of an accompaniment, to be listened to before they are used, and for research on training such networks.",
        "It works for music like the songs above, and less well for other music, live tempo and long silence. It hears "
        "a few seconds",
        "at a time, so it does not plan a whole song. Where a baseline above has better measures, use the baseline.",
        "No listening test was made.",
    ]
    return [*lines, "", "## Licence", "", *_licence(manifest)]


def _text_of(lines: list[str]) -> str:
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _head(config: Config, manifest: dict[str, Any] | None, measures: list[str]) -> dict[str, Any]:
    """Return the YAML header that model hubs read: https://huggingface.co/docs/hub/model-cards.

    Results are only in the text, where they are shown with their baselines.
    """
    musdb18 = _of_musdb18(manifest)
    licence = {
        "license": "other",
        "license_name": "musdb18-non-commercial",
        "license_link": "https://sigsep.github.io/datasets/musdb.html",
    }
    return {
        **(licence if musdb18 else {"license": "unknown"}),
        "library_name": "p2p_dist",
        "pipeline_tag": "audio-to-audio",
        "tags": ["music", "audio", "spectrogram", "pix2pix", "accompaniment-generation", *parse_task(config.data.task)[1]],
        "datasets": ["musdb18"] if musdb18 else [],
        "metrics": measures,
    }


def _use(content: dict[str, Any]) -> list[str]:
    network, size = content["network"], content["spectrogram"]
    shape = f"windows, {network['pictures']}, {size['mels']}, {size['frames']}"
    lines = ["", "## Use it", "", "With the program that trained it, for a song in any format, in this folder:", ""]
    lines += ["    p2p-dist generate SONG --model .", ""]
    lines += [
        "Without it: `config.json` describes the spectrogram, the scaling and the network, and explains in `notes` how "
        "to combine them;"
    ]
    lines += ["`tests/generate/run_exported.py` of the program runs the network with torch and safetensors alone."]
    if content["program"] is not None:
        noise = f", noise of ({shape.replace(str(network['pictures']), str(network['noise_channels']), 1)}) from N(0, 1)"
        lines += ["", f"`model.pt2`, written with torch {content['program']['torch']}, is the network as a program:", ""]
        lines += ["    network = torch.export.load('model.pt2').module()"]
        more = [", noise"] * bool(network["noise_channels"]) + [", guide=guide"] * network.get("sketch", False)
        lines += [f"    output = network(input{''.join(more)})", ""]
        lines += [f"Input and output are ({shape}) from -1 to 1{noise if network['noise_channels'] else ''}."]
    return lines


def _of_musdb18(manifest: dict[str, Any] | None) -> list[str]:
    """Return the titles of songs of MUSDB18 that were used for training or to choose the checkpoint."""
    parts = [manifest["splits"].get(split, {}) for split in ("train", "valid")] if manifest is not None else []
    return known_of_musdb18(song["name"] for part in parts for song in part.get("songs", []))


def _licence(manifest: dict[str, Any] | None) -> list[str]:
    lines = [
        "The program, p2p_dist, is under the MIT licence, which does not cover the weights: what was learnt from songs "
        "is bound by"
    ]
    lines += ["theirs."]
    if known := _of_musdb18(manifest):
        songs = f"{len(known)} of the songs have titles" if len(known) > 1 else "One of the songs has a title"
        return [*lines, f"{songs} of MUSDB18. MUSDB18 and what is made of it are for non-commercial, educational use."]
    lines += [
        "No record of the run names the licence of its songs, so the licence of the weights is unknown. Before you "
        "publish them,"
    ]
    return [*lines, f"find out the licence and state it. {LICENCE}"]


def _parameters(weights: Path) -> int:
    with safe_open(weights, framework="numpy") as opened:
        return sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118 - no dict


def _facts(run: RunDir, config: Config) -> list[tuple[str, str]]:
    data, model, train = config.data, config.model, config.train
    made_by = records.read(run.provenance, schemas.PROVENANCE, "remove it") if run.provenance.is_file() else {}
    versions = made_by.get("packages", {})
    facts = [
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
            f"features x {train.feature_weight:g}"
            + (f", compressed magnitudes x {train.compressed_weight:g}" if train.compressed_weight else "")
            + (f", correlation of rises x {train.flux_weight:g}" if train.flux_weight else ""),
        ),
        (
            "optimisers",
            f"Adam, learning rate {train.learning_rate:g}, {train.global_batch_size} pairs a step, "
            f"moving average {train.ema:g}{' with warm-up' if train.ema and train.ema_warmup else ''}, "
            f"precision {train.precision}, seed {train.seed}",
        ),
    ]
    if model.sketch:
        extras = " on the steps of the beat" * model.on_steps + ", of each class in every 24 seconds" * model.even_classes
        extras += ", each beat like those around it" * model.repeat_pattern + ", with soft hats" * model.soft_hats
        extras += ", the place in the beat" * model.beat_phase
        extras += ", and the output is the sketch, changed" * model.residual
        extras += " but as loud" * (model.residual and model.keep_level)
        told = f"real strokes laid at predicted onsets{extras}; {train.pattern_steps} steps of the network that predicts them"
        told += "; the generator learnt from true onsets" + ", and a quarter predicted ones" * train.predicted_strokes
        told += "; strokes of the louder half of each class" * train.loud_strokes
        told += f"; strokes of the songs named {_plain(train.kits)} alone" * (train.kits != "*")
        if run.pattern_measures.is_file():
            measured = records.read(run.pattern_measures, schemas.PATTERN_MEASURES, cure="remove it: it is only shown")
            curves = [f"{_plain(kind)} {value:.2f}" for kind, value in measured["heard"].items() if value is not None]
            told += f"; correlation of its output with the true strokes of {len(measured['songs'])} validation songs: "
            told += ", ".join(curves)
        facts.insert(3, ("sketch", told))
    if made_by:
        begun = f"{made_by['begun']}, p2p_dist {made_by['version']}, commit {made_by['commit'] or 'not known'}"
        facts.append(("begun", _plain(begun)))
        facts.append(("software", _plain(", ".join(f"{name} {v}" for name, v in versions.items() if v))))
    return facts


def _sha256(folder: Path) -> str:
    meta = folder / "meta.json"
    if not meta.is_file():
        return "not recorded"
    return str(records.read(meta, schemas.CHECKPOINT)["files"]["generator.safetensors"]["sha256"])


def _trained_on(run: RunDir, config: Config, manifest: dict[str, Any] | None) -> list[str]:
    if manifest is None:
        return ["The shards of the run no longer exist, so nothing is known about its songs."]
    lines = ["| split | songs | hours | windows |", "| --- | --- | --- | --- |"]
    for split, part in manifest["splits"].items():
        songs = part.get("songs", [])
        hours = sum(song["seconds"] for song in songs) / 3600
        lines.append(f"| {split} | {len(songs)} | {hours:.2f} | {manifests.windows(part)} |")
    lines += ["", f"Levels, silence and omitted songs are in DATASET.md of the shards `{run.shards.name}`."]
    overlap = _twice(manifest)
    if overlap:
        titles = ", ".join(map(_plain, overlap))
        lines += ["", f"Trained and tested on the same titles, so its figures do not apply to other songs: {titles}."]
    if same := overlapping(manifest):
        counted = (
            ("included in the figures, which therefore do not apply to other songs")
            if config.evaluate.allow_overlap
            else "left out"
        )
        lines += [
            "",
            f"Held-out songs with the same audio as training songs, so {counted}:",
            "",
            *(f"- {_plain(line)}" for line in same),
        ]
    return lines


def _twice(manifest: dict[str, Any]) -> list[str]:
    names = {split: {song["name"] for song in part.get("songs", [])} for split, part in manifest["splits"].items()}
    return sorted(names.get("train", set()) & (names.get("test", set()) | names.get("valid", set())))


def _evaluation(run: RunDir, config: Config, step: int) -> tuple[list[str], list[str]]:
    """Return the lines on the evaluation of one step, and the labels of its measures."""
    read = ranking.read_evaluations(run.evaluations)
    if read is None or step not in read[0]:
        return ["This checkpoint was not evaluated, so its quality is unknown."], []
    evaluated, baselines = read
    pitched = is_pitched(config.data.task)
    ranked = ranking.rank(evaluated, baselines, config.evaluate, pitched=pitched)
    best = run.read_best()
    score = next(item["score"] for item in ranked["checkpoints"] if item["step"] == step)
    if best is not None and best["step"] == step:
        said = _chosen({**ranked, "score": best["score"]})
    else:
        said = f"Its score on the {ranked['chosen_on']} songs is {'not known' if score is None else f'{score:.3f}'}"
        said += f", that of the best checkpoint, step {best['step']}, is {best['score']:.3f}" if best is not None else ""
        said += f". The score: {ranked['rule']}"
    mean = evaluated[step]["splits"][ranked["reported_on"]]["mean"]
    measures = [MEASURES[name].label for name in columns(pitched=pitched)[0] if mean.get(name) is not None]
    return _figures(config, ranked, evaluated[step], baselines, said), measures


def _chosen(best: dict[str, Any]) -> str:
    chosen = f"Chosen on the {best['chosen_on']} songs" + (f" ({best['note']})" if best["note"] else "")
    return _plain(f"{chosen} by score {best['score']:.3f}: {best['rule']}")


def _figures(config: Config, ranked: dict[str, Any], measured: Any, baselines: Any, said: str) -> list[str]:
    split = ranked["reported_on"]
    one, known = measured["splits"][split], baselines["splits"][split]
    decisive, _ = columns(pitched=is_pitched(config.data.task))
    names = [n for n in decisive if any(row["mean"].get(n) is not None for row in [one, *known["rows"].values()])]
    over = f"{known['songs']} {split} songs" if known["songs"] != 1 else f"one {split} song"
    how = "jackknife, Student's t"
    if known["songs"] != 1:
        medians = ", ".join(MEASURES[n].label for n in names if MEASURES[n].median)
        over += f" (median for {medians})" if medians else ""
        how += "; sign test for a median" if medians else ""
    lines = [f"Means over {over}; in brackets the 95 % confidence interval ({how})."]
    if (generations := config.evaluate.seeds) > 1:
        lines += [f"For the checkpoint, {generations} generations of each song are averaged."]
    lines += [""]
    certain = descriptors.is_certain(known.get("distance"))
    lines += [
        "| | " + " | ".join(f"{MEASURES[n].family} {MEASURES[n].label}" for n in names) + " |",
        "| --- " * (1 + len(names)) + "|",
    ]
    for name in (*BASELINES, ""):
        row = one if not name else known["rows"].get(name)
        if row is not None:
            lines.append(
                f"| {name or '**this checkpoint**'} | " + " | ".join(_text(row, n, certain=certain) for n in names) + " |"
            )
    for remark in remarks((row["mean"] for row in [one, *known["rows"].values()]), known.get("distance")):
        lines += ["", remark]
    absent = {label(n): why for n, why in one["absent"].items() if n in decisive} | known["missing"]
    lines += ["", *(f"- {_plain(name)}: {_plain(why)}" for name, why in absent.items())] if absent else []
    return [*lines, "", said]


def _plain(text: str) -> str:
    """Escape text from songs and records for Markdown: no markup, no HTML, one line."""
    return re.sub(r"([\\`*\[\]|<>&])", lambda found: f"&#{ord(found[1])};", one_line(text))


def _text(row: dict[str, Any], name: str, *, certain: bool) -> str:
    if (value := row["mean"].get(name)) is None:
        return "–"
    interval, text = row["interval"].get(name), MEASURES[name].text
    return text(value, certain=certain) + (f" [{text(interval[0])}, {text(interval[1])}]" if interval else "")

"""Rank checkpoints by a fixed rule over the three families of measures, applied to all existing evaluations.

evaluations/ranking.json   all checkpoints and baselines by score, the rule, and the songs that it was applied to
evaluations/curves.svg     the measures over steps, with the baselines as lines
checkpoints/best.json      the best checkpoint, for users and for export; training does not read it
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from p2p_dist.common import files, records, schemas
from p2p_dist.evaluate.baselines.baseline_stems import CEILING
from p2p_dist.evaluate.measures import descriptors
from p2p_dist.evaluate.measures.averages import over_songs
from p2p_dist.evaluate.measures.kinds import AMOUNT, REAL, TIME, OfSongs, Row
from p2p_dist.evaluate.measures.table import MEASURES, columns, is_pitched
from p2p_dist.evaluate.report import curves
from p2p_dist.run.rundir import RunDir, find_steps, step_name
from p2p_dist.settings.config import Config, Evaluate

CHOOSING = "valid"
"""The split on which the best checkpoint is chosen, if it has songs."""


def _weights(weights: Evaluate) -> dict[str, float]:
    return {TIME: weights.time_weight, REAL: weights.real_weight, AMOUNT: weights.amount_weight}


def rule(weights: Evaluate) -> str:
    """Describe the ranking rule, with its weights."""
    short = dict(zip(_weights(weights), ("time", "real", "amount"), strict=True))
    shares = " + ".join(f"{share:g} x {short[family]}" for family, share in _weights(weights).items())
    described = []
    for family, name in short.items():
        words = [
            m.score.words.format(m.label) + (" where the stem has one" if m.pitched else "")
            for m in MEASURES.values()
            if m.family == family and m.score is not None
        ]
        listed = words[0] if len(words) == 1 else f"mean of {', '.join(words[:-1])} and {words[-1]}"
        described.append(f"{name}: {listed}")
    return (
        f"({shares}) / {sum(_weights(weights).values()):g}; {'; '.join(described)}; each from 0 to 1. What can be measured of "
        "the true stem and not of this one counts 0; a family that can't be measured at all is left out, and so is a distance "
        f"of fewer than {descriptors.ENOUGH} windows."
    )


def families(row: Row, ceiling: Row, *, pitched: bool, distance: bool = True) -> dict[str, float]:
    """Return the score of each family, without families that can't be measured even for the ceiling.

    Args:
        distance: whether the distance is certain enough to count.
    """
    scores: dict[str, list[float]] = {}
    for name, measure in MEASURES.items():
        counts = distance or not isinstance(measure.computed, OfSongs)
        if counts and measure.score is not None and ceiling.get(name) is not None and (pitched or not measure.pitched):
            value = row.get(name)
            scores.setdefault(measure.family, []).append(0.0 if value is None else measure.score.of(value))
    return {family: sum(values) / len(values) for family, values in scores.items()}


def score(of_families: dict[str, float], weights: Evaluate) -> float | None:
    """Return the weighted mean of the families, from 0 to 1; None if there is no family with a weight."""
    shares = _weights(weights)
    total = sum(shares[family] for family in of_families)
    return sum(shares[family] * value for family, value in of_families.items()) / total if total > 0 else None


_GAINS = ("gain_db", "unrecorded_gain_db")


def read_evaluations(out: Path) -> tuple[dict[int, Any], Any] | None:
    """Read the evaluations: step -> metrics.json, and baselines.json; None if there are none yet.

    Earlier schemas (see `schemas.METRICS`) are adapted: intervals of schema 1 are ignored; the level error becomes the median
    over songs; and if any of the files has an earlier schema, the distance is taken as uncertain.
    """
    steps = [(step, path) for step, path in find_steps(out) if (path / "metrics.json").is_file()]
    if not steps or not (out / "baselines.json").is_file():
        return None
    cure = "remove it and evaluate again"
    evaluated = {step: records.read(path / "metrics.json", schemas.METRICS, cure) for step, path in steps}
    baselines = records.read(out / "baselines.json", schemas.BASELINES, cure)
    for content in (baselines, *evaluated.values()):
        songs = content["songs"].values() if content is baselines else content["songs"]
        for song in songs:
            if not (0 <= song.get("begins", 0) < 1e7 and all(-200 <= song.get(name, 0) <= 0 for name in _GAINS)):
                where = "baselines.json" if content is baselines else f"{step_name(content['step'])}/metrics.json"
                raise files.DamagedError(f"{out / where} is damaged: the start or gain of a song is out of range; {cure}")
        for split in content["splits"].values() if content["schema"] < 2 else ():
            for one in (split, *split.get("rows", {}).values()):
                one["interval"] = {}
    for content in evaluated.values():
        for split in content["splits"].values() if content["schema"] < 3 else ():
            _take_medians(split, [song["output"] for song in split.get("songs", content["songs"])])
    for name, split in baselines["splits"].items():
        if min(baselines["schema"], *(content["schema"] for content in evaluated.values())) < 3:
            split["distance"] = None
        for base, one in split["rows"].items() if baselines["schema"] < 3 else ():
            songs = [song["rows"].get(base, {}) for song in baselines["songs"].values() if song["split"] == name]
            _take_medians(one, songs)
    return evaluated, baselines


def _take_medians(average: Any, songs: list[Row]) -> None:
    """Replace means over songs by medians, where these are taken since schema 3."""
    for name in (name for name, measure in MEASURES.items() if measure.median and name in average["mean"]):
        if values := [value for song in songs if (value := song.get(name)) is not None]:
            average["mean"][name] = over_songs(name, values)
            average["interval"].pop(name, None)


def rank(evaluated: dict[int, Any], baselines: Any, evaluate: Evaluate, *, pitched: bool) -> dict[str, Any]:
    """Rank all checkpoints and baselines, best first; those without a score last. Each has its reported figures."""
    reported, names = evaluate.split, [name for table in columns(pitched=pitched) for name in table]
    chosen_on = CHOOSING if baselines["splits"].get(CHOOSING, {}).get("songs") else reported

    def entry(row: Row, split: str) -> tuple[dict[str, float], float | None]:
        ceiling = baselines["splits"][split]["rows"].get(CEILING, {"mean": {}})["mean"]
        certain = descriptors.is_certain(baselines["splits"][split].get("distance"))
        found = families(row, ceiling, pitched=pitched, distance=certain)
        return found, score(found, evaluate)

    def shown(one: dict[str, Any]) -> dict[str, Any]:
        values = {name: one["mean"][name] for name in names if one["mean"].get(name) is not None}
        return {"values": values, "interval": {name: one["interval"][name] for name in values if name in one["interval"]}}

    def order(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        # If scores are equal, the earlier checkpoint comes first.
        return sorted(items, key=lambda item: -1.0 if item["score"] is None else item["score"], reverse=True)

    checkpoints = []
    for step, content in evaluated.items():
        found, value = entry(content["splits"][chosen_on]["mean"], chosen_on)
        there, reported_value = entry(content["splits"][reported]["mean"], reported)
        checkpoints.append(
            {
                "step": step,
                "score": value,
                "families": found,
                "reported_score": reported_value,
                "reported_families": there,
                **shown(content["splits"][reported]),
            }
        )
    others = []
    for name, one in baselines["splits"][reported]["rows"].items():
        found, value = entry(one["mean"], reported)
        others.append({"name": name, "score": value, "families": found, **shown(one)})
    note = ""
    if chosen_on == reported == CHOOSING:
        note = "the songs that are reported are the validation songs, on which the checkpoint was chosen"
    elif chosen_on == reported:
        note = "there are no validation songs: the checkpoint was chosen on the songs that are reported"
    return {
        "rule": rule(evaluate),
        "chosen_on": chosen_on,
        "reported_on": reported,
        "note": note,
        "checkpoints": order(checkpoints),
        "baselines": order(others),
    }


def conclude(run: RunDir, config: Config, out: Path | None = None) -> dict[str, Any] | None:
    """Rank all evaluations, draw the curves, and record the best existing checkpoint.

    Several processes may do so at once. Each repeats this if an evaluation was written meanwhile, so the last process has read
    all evaluations. The page stage repeats it after all evaluations.

    Args:
        out: the folder of the evaluations; None for that of the run. Otherwise best.json is not written.

    Returns:
        the ranking; None if there is no evaluation.
    """
    folder = run.evaluations if out is None else out
    while True:
        before = _written(folder)
        ranked = _conclude_once(run, config, folder)
        if _written(folder) == before:
            return ranked


def _written(folder: Path) -> dict[Path, int]:
    """Map the metrics of each evaluation to the time at which they were written, in ns."""
    found = {}
    for _, path in find_steps(folder):
        with contextlib.suppress(FileNotFoundError):  # not written yet, or just removed
            found[path] = (path / "metrics.json").stat().st_mtime_ns
    return found


def _conclude_once(run: RunDir, config: Config, folder: Path) -> dict[str, Any] | None:
    if (found := read_evaluations(folder)) is None:
        return None
    evaluated, baselines = found
    pitched = is_pitched(config.data.task)
    ranked = rank(evaluated, baselines, config.evaluate, pitched=pitched)
    records.write(folder / "ranking.json", schemas.RANKING, ranked)
    curves.draw(folder / "curves.svg", curves.collect(evaluated, baselines, ranked, pitched=pitched))
    if folder == run.evaluations:
        best = choice(run, ranked)
        if best is not None:
            records.write(run.best, schemas.BEST, best)
        else:
            run.best.unlink(missing_ok=True)
    return ranked


def choice(run: RunDir, ranked: dict[str, Any]) -> dict[str, Any] | None:
    """Return the content of best.json; None if no existing checkpoint has a score."""
    for item in ranked["checkpoints"]:
        folder = run.checkpoints / step_name(item["step"])
        if item["score"] is not None and (folder / "generator.safetensors").is_file():
            return {
                "step": item["step"],
                "rule": ranked["rule"],
                "score": item["score"],
                "chosen_on": ranked["chosen_on"],
                "reported_on": ranked["reported_on"],
                "note": ranked["note"],
                "families": item["families"],
                "reported_score": item["reported_score"],
                "values": item["values"],
                "interval": item["interval"],
            }
    return None

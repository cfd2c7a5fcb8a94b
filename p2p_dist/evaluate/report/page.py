"""Write the page of a run: audio, spectrograms and measures of every checkpoint. A browser can open it from disk.

page/index.html      the page without audio and images; it needs no network
page/media/          SONG/TRACK/, see media.py and tracks.py: the folder page/ can be zipped and sent
"""

from __future__ import annotations

import shlex
from itertools import groupby
from pathlib import Path
from typing import Any

import soundfile

from p2p_dist.audio import flac
from p2p_dist.common import files, svg
from p2p_dist.common.svg import thousands
from p2p_dist.data import manifest
from p2p_dist.data.dataset_card import overlapping
from p2p_dist.evaluate import ranking
from p2p_dist.evaluate.baselines.baseline_stems import BASELINES
from p2p_dist.evaluate.measures import descriptors
from p2p_dist.evaluate.measures.kinds import OfSongs, Row
from p2p_dist.evaluate.measures.table import MEASURES, UNKNOWN, columns, is_pitched, label, remarks, why_absent
from p2p_dist.evaluate.report import curves, model_card
from p2p_dist.evaluate.report.listening import (
    CEILING,
    INPUT,
    TARGET,
    Choice,
    ListeningSong,
    content,
    template,
)
from p2p_dist.evaluate.report.media import CLIP, LOSSLESS, Media, common_gain, recorded_gain, scale, stamp
from p2p_dist.evaluate.report.tracks import Sound, of_file
from p2p_dist.run import metrics_file, provenance
from p2p_dist.run.rundir import RunDir, check_links, find_steps, step_name
from p2p_dist.settings.config import STEMS, TASKS, Config, parse_task

_AIM = {"high": "↑", "low": "↓", "one": "→1"}

Columns = tuple[list[str], list[str]]
"""The measures of both tables: those in the score, and those that are only reported."""

Cell = tuple[str | None, str]
"""The text of a table cell, None for a dash; and its tooltip: the interval, or why the value is missing."""


def write(run: RunDir, config: Config) -> Path:
    """Rebuild the ranking, and write the page of a run and MODEL.md from its evaluations, replacing earlier ones.

    Returns:
        its index.html.

    Raises:
        ValueError: there is no evaluation to show.
    """
    check_links(run)
    submit = provenance.command(run.provenance, "submit")
    ranked = ranking.conclude(run, config)
    if ranked is None:
        again = f"{submit} --run {run.name}"
        raise ValueError(f"no evaluation in {run.evaluations}: the page needs one; create both with: {again}")
    read = ranking.read_evaluations(run.evaluations)
    assert read is not None
    evaluated, baselines = read
    heard, wanted = parse_task(config.data.task)
    pitched = is_pitched(config.data.task)
    names = columns(pitched=pitched)
    last, media = max(evaluated), Media(run)
    paths = dict(find_steps(run.evaluations))
    # The values that depend on the selected checkpoint: step -> key of the song -> values.
    made: dict[int, dict[str, Any]] = {step: {} for step in evaluated}
    songs, playable, best = [], [], run.read_best()
    chosen = best["step"] if best and best["step"] in evaluated else last
    lossless = 3 * sum(baselines["songs"][song["key"]]["seconds"] for song in evaluated[last]["songs"]) <= LOSSLESS
    for key in [song["key"] for song in evaluated[last]["songs"]]:
        fixed = baselines["songs"][key]
        of = {step: song for step, content in evaluated.items() for song in content["songs"] if song["key"] == key}
        gain, of_song = common_gain(list(of.values()), fixed), _columns(list(of.values()), fixed, names)
        for step, song in of.items():
            made[step][key] = {"row": [[_cell(name, song["output"], song["absent"]) for name in table] for table in of_song]}
        absent: dict[str, list[str]] = {}
        for name in names[0]:
            # Measures of all songs together are not missing in a single song.
            if name not in of_song[0] and not isinstance(MEASURES[name].computed, OfSongs):
                absent.setdefault(why_absent(name, of[last]["output"], of[last]["absent"]), []).append(label(name))
        songs.append({**_song(fixed, key, of_song, run.evaluations, gain), "absent": absent})
        playable.append(_playable(fixed, of, paths, media, gain, chosen, lossless=lossless))
    drawn = curves.collect(evaluated, baselines, ranked, pitched=pitched)
    training = [row for row in metrics_file.read(run) if row.get("l1") is not None]
    page = template("page.html").render(
        title=run.name,
        submit=submit,
        task=config.data.task,
        quoted_task=shlex.quote(config.data.task),
        stems=TASKS.get(config.data.task, config.data.task).replace("->", " → "),
        overlap=overlapping(manifest.read(run.shards)),
        allow_overlap=config.evaluate.allow_overlap,
        # The example song, which is both training and test song.
        is_example=Path(config.data.root or "").parts[-2:] == ("songs", "falcon69"),
        wanted=", ".join(wanted),
        listening=content(
            playable,
            [_choice(step, last, best) for step in reversed(evaluated)],
            list(reversed(evaluated)).index(chosen),
            made=", ".join(wanted),
            chooser="Checkpoint",
            input=_input(heard, wanted),
        ),
        songs=songs,
        clip=CLIP,
        cut=any(song["length"] > CLIP for song in songs),
        lossless=lossless,
        chosen=chosen,
        generations=config.evaluate.seeds,
        made=made,
        shortened={
            step_name(step): {key: [_short(cell) for cells in one["row"] for cell in cells] for key, one in of.items()}
            for step, of in made.items()
        },
        last=last,
        **_figures(evaluated, baselines, ranked, names),
        best=best,
        ranked=ranked,
        plot_style=svg.STYLE,
        curves=[[curve.plot() for curve in drawn if curve.decides == decides] for decides in (True, False)],
        legend=[(svg.key(line), line.label) for line in curves.legend(drawn)],
        training=curves.of_training(training),
        settings=_settings(training, config, last),
    )
    model_card.write(run, config, evaluated, baselines)
    if config.train.tensorboard:
        from p2p_dist.train import tensorboard_log  # imports torch, which the page does not need otherwise

        tensorboard_log.write_curves(run.path / "tensorboard" / "evaluation", curves.for_board(drawn))
    files.write_text(run.page, page)
    media.remove_others()
    return run.page


def _figures(evaluated: dict[int, Any], baselines: dict[str, Any], ranked: dict[str, Any], names: Columns) -> dict[str, Any]:
    """Return what the page says of all songs together: tables of checkpoints and baselines, and remarks below them."""
    split = ranked["reported_on"]
    reported, newest = baselines["splits"][split], evaluated[max(evaluated)]["splits"][split]
    certain = descriptors.is_certain(reported.get("distance"))
    return {
        "remarks": remarks(_means(evaluated, reported, split), reported.get("distance")),
        "medians": [MEASURES[name].label for table in names for name in table if MEASURES[name].median],
        "earlier": [step for step, content in evaluated.items() if content["schema"] < 3],
        "heads": [_head(table) for table in names],
        "measures": [(MEASURES[name].label, MEASURES[name].meaning) for table in names for name in table],
        "baselines": [
            (name, meaning, _cells(reported["rows"][name], names, certain=certain), _score(ranked["baselines"], "name", name))
            for name, meaning in BASELINES.items()
            if name in reported["rows"]
        ],
        "missing": reported["missing"],
        "absent": {
            label(name): why_absent(name, newest["mean"], newest["absent"])
            for name in names[0]
            if name in newest["absent"] or name not in newest["mean"]
        },
        "intervals": any(content["splits"][split]["interval"] for content in evaluated.values()),
        "without_intervals": [step for step, content in evaluated.items() if content["schema"] < 2],
        "rows": [
            (
                step,
                _cells(content["splits"][split], names, certain=certain),
                _score(ranked["checkpoints"], "step", step),
            )
            for step, content in evaluated.items()
        ],
    }


def _columns(songs: list[dict[str, Any]], fixed: dict[str, Any], names: Columns) -> Columns:
    """Return the measures for which one song has a value, at any checkpoint or for a baseline."""
    rows = [*(song["output"] for song in songs), *fixed["rows"].values()]
    decide, reported = ([name for name in table if any(row.get(name) is not None for row in rows)] for table in names)
    return decide, reported


def _means(evaluated: dict[int, Any], reported: Any, split: str) -> list[Row]:
    """Return the means in the tables of all songs."""
    rows = [*(content["splits"][split] for content in evaluated.values()), *reported["rows"].values()]
    return [row["mean"] for row in rows]


def _head(names: list[str]) -> dict[str, Any]:
    """Return the header of a table: its families with their sizes, and label, best value and meaning of each measure."""
    measures = [MEASURES[name] for name in names]
    return {
        "families": [(family, len(list(of))) for family, of in groupby(m.family for m in measures)],
        "measures": [(m.label, _AIM[m.best], m.meaning) for m in measures],
    }


def _score(ranked: list[dict[str, Any]], what: str, which: str | int) -> str | None:
    item = next(item for item in ranked if item[what] == which)
    value = item.get("reported_score", item["score"])
    return None if value is None else f"{value:.3f}"


def _cells(one: dict[str, Any], names: Columns, *, certain: bool) -> list[list[Cell]]:
    """Return the cells of both tables, from means, intervals and the reasons for missing values.

    Args:
        certain: whether distances are.
    """
    mean, absent, interval = one["mean"], one["absent"], one["interval"]
    return [[_cell(name, mean, absent, interval.get(name), certain=certain) for name in table] for table in names]


def _cell(name: str, row: Row, absent: dict[str, str], interval: list[float] | None = None, *, certain: bool = True) -> Cell:
    if (value := row.get(name)) is None:
        return None, why_absent(name, row, absent)
    text = MEASURES[name].text
    return text(value, certain=certain), "" if interval is None else f"{text(interval[0])} to {text(interval[1])}"


def _short(cell: Cell) -> str | list[str] | None:
    """Return a cell for the page's script, kept short: its text, or only the reason if it is missing."""
    text, said = cell
    return text if text is not None else None if said == UNKNOWN else [said]


def _input(heard: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[str, str, str]:
    """Return label, name within a sentence, and meaning of the input."""
    names = ", ".join(heard)
    if {*heard, *wanted} == {*STEMS}:
        return (
            ("song", "the song", f"the song without its {', '.join(wanted)}")
            if len(heard) > 1
            else (names,) + 2 * (f"the {names}",)
        )
    return names, f"the {names}", f"the {names} of the song"


def _choice(step: int, last: int, best: dict[str, Any] | None) -> Choice:
    notes = ["the best"] if best and step == best["step"] else []
    notes += ["the last"] if step == last else []
    return Choice(step_name(step), f"step {thousands(step)}", ", ".join(notes))


def _playable(
    fixed: dict[str, Any],
    of: dict[int, dict[str, Any]],
    paths: dict[int, Path],
    media: Media,
    gain: float | None,
    chosen: int,
    *,
    lossless: bool,
) -> ListeningSong:
    """Write the tracks of one song.

    Args:
        fixed, of: its entries in baselines.json and, by step, in metrics.json. gain: of all its tracks, dB.
        chosen: the step whose whole excerpt is written, not a clip.
    """
    key = next(iter(of.values()))["key"]
    evaluations = paths[chosen].parent if chosen in paths else next(iter(paths.values())).parent

    def sound(path: Path, own: float | None, *, whole: bool) -> tuple[Sound, str]:
        factor, seconds = scale(own, gain), None if whole else CLIP
        return of_file(path, key, "", factor, seconds), stamp(path, factor, seconds)

    audio = evaluations / "references" / "audio"
    own = fixed.get("gain_db")
    input, of_input = sound(audio / f"{key}-input.flac", own, whole=True)
    found = {INPUT: media.add(key, INPUT, input, of_input, lossless=lossless, beside=None)}
    heard = {whole: sound(audio / f"{key}-input.flac", own, whole=whole)[0] for whole in (True, False)}
    stems = {TARGET: (audio / f"{key}-target.flac", own, True), CEILING: (audio / f"{key}-ceiling.flac", own, False)}
    for step, song in of.items():
        path = paths[step] / "audio" / f"{key}-stem.flac"
        stems[step_name(step)] = (path, recorded_gain(song, fixed), step == chosen)
    for name, (path, its_gain, whole) in stems.items():
        stem, of_stem = sound(path, its_gain, whole=whole)
        found[name] = media.add(key, name, stem, f"{of_stem} + {of_input}", lossless=whole and lossless, beside=heard[whole])
    return ListeningSong(key, fixed["name"], found)


def _song(fixed: dict[str, Any], key: str, shown: Columns, evaluations: Path, gain: float | None) -> dict[str, Any]:
    """Return the values that are equal for all checkpoints: baselines, position of the excerpt, gain of its tracks."""
    rows = [
        (base, meaning, [[_cell(n, fixed["rows"][base], fixed["absent"][base]) for n in table] for table in shown])
        for base, meaning in BASELINES.items()
        if base in fixed["rows"]
    ]
    minutes, seconds = divmod(fixed["begins"], 60)
    rate = soundfile.info(evaluations / "references" / "audio" / f"{key}-input.flac").samplerate
    return {
        "name": fixed["name"],
        "key": key,
        "rows": rows,
        "heads": [_head(table) for table in shown],
        "begins": f"{int(minutes)}:{seconds:09.6f}",
        "begin_sample": thousands(round(fixed["begins"] * rate)),
        "rate": thousands(rate),
        "length": fixed["seconds"],
        "seconds": f"{fixed['seconds']:.3g}",
        "measured": f"{fixed['measured']['seconds']:.3g}" if "measured" in fixed else None,
        "gain": None if gain is None else f"{abs(gain):.4g}",
        "factor": None if gain is None else f"{flac.factor(gain):.4g}",
    }


def _settings(rows: list[dict[str, Any]], config: Config, last: int) -> list[tuple[str, str]]:
    data = config.data
    window, hop = (frames * data.hop_length / data.sample_rate for frames in (data.frames, data.window_hop))
    passes = f", {rows[-1]['epoch']:.3g} passes over the windows" if rows else ""
    return [
        ("preset", config.preset),
        ("steps", thousands(rows[-1]["step"] if rows else last) + passes),
        ("pairs in a step", str(config.train.global_batch_size)),
        ("sample rate of the pictures", f"{data.sample_rate} Hz (the input keeps its own)"),
        ("windows", f"{data.mels} mels × {data.frames} frames ({window:.2f} s), one every {hop:.2f} s"),
    ]

"""The page of a run: what every checkpoint sounds like, looks like and measures, to be opened by a double click.

page/index.html      all of it but sound and pictures; asks nothing of any network
page/media/          references/ and step-.../, hard links where possible: the folder page/ can be zipped and sent
"""

from __future__ import annotations

import math
import shlex
import struct
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from p2p_dist import files
from p2p_dist.config import TASKS, Config, parse_task
from p2p_dist.evaluate.metrics import BASELINES, MEASURES
from p2p_dist.rundir import RunDir, find_steps, read_metrics

_FIXED = ("input", "true-mix", "target", "ceiling")  # sounds that are the same at all checkpoints
_AIM = {"high": "↑", "low": "↓", "one": "→1"}
_TRAINING_POINTS = 300  # of the curve of the training: more can't be seen
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 340, 210, 40, 332, 10, 178  # of a curve, and of the plot in it


def write(run: RunDir, config: Config) -> Path:
    """Write the page of a run from its evaluations, in place of an earlier one.

    Returns:
        its index.html.

    Raises:
        ValueError: there is no evaluation to show.
    """
    found = find_steps(run.evaluations)
    if not found:
        again = f"python launch/submit.py --run {run.path.name}"
        raise ValueError(f"no evaluation in {run.evaluations}: the page shows what one finds; make both with {again}")
    evaluated = {step: files.read_json(path / "metrics.json") for step, path in found}
    means = {step: content["mean"] for step, content in evaluated.items()}
    last = found[-1][0]
    baselines = [name for name in means[last] if name != "output"]
    media = _Media(run)
    # What changes with the checkpoint that is heard: step -> key of the song -> addresses and figures.
    made = {step: {s["key"]: _made(s, path, media) for s in evaluated[step]["songs"]} for step, path in found}
    training = [row for row in read_metrics(run) if "l1" in row]
    heard, wanted = (", ".join(stems) for stems in parse_task(config.data.task))
    page = _template().render(
        name=run.path.name,
        task=config.data.task,
        quoted_task=shlex.quote(config.data.task),
        stems=TASKS.get(config.data.task, config.data.task).replace("->", " → "),
        # The song of the bare command, which is trained and tested on itself.
        is_example=Path(config.data.root or "").parts[-2:] == ("songs", "falcon69"),
        wanted=wanted,
        versions=_versions(heard, wanted),
        songs=[_song(song, baselines, media) for song in evaluated[last]["songs"]],
        made=made,
        last=last,
        measures=[(m.label, _AIM[m.best], m.meaning) for m in MEASURES.values()],
        families=[{"name": f, "size": len(list(of))} for f, of in groupby(m.family for m in MEASURES.values())],
        baselines=[(name, BASELINES.get(name, ""), _texts(means[last][name])) for name in baselines],
        rows=[(step, _texts(mean["output"])) for step, mean in means.items()],
        curves=[c for name in MEASURES if (c := _measure_curve(name, means, baselines))],
        training=_training_curve(training),
        settings=_settings(training, config, last),
    )
    files.write_text(run.page, page)
    media.remove_others()
    return run.page


class _Media:
    """The folder of sounds and pictures beside index.html."""

    def __init__(self, run: RunDir) -> None:
        self.run, self.page, self.used = run, run.page.parent, set[Path]()

    def add(self, path: Path) -> str:
        """Put a file of the evaluations there; returns its relative address."""
        # One folder a checkpoint is enough: what lies in its audio/ and spectrograms/ differs in the suffix.
        target = self.page / "media" / path.relative_to(self.run.evaluations).parts[0] / path.name
        assert target not in self.used
        self.used.add(target)
        files.link_or_copy(path, target)
        return quote(target.relative_to(self.page).as_posix())

    def remove_others(self) -> None:
        """Remove what an earlier page showed and this one does not, so that nobody sends it."""
        for path in (self.page / "media").rglob("*"):
            if path.is_file() and path not in self.used:
                path.unlink()


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["thousands"] = _thousands
    return environment.get_template("page.html")


def _thousands(number: float) -> str:
    return f"{number:,.0f}".replace(",", "\u202f")  # a narrow space that does not break


def _versions(heard: str, wanted: str) -> dict[str, tuple[str, str]]:
    """What can be heard of a song: name -> label and explanation."""
    return {
        "input": ("input", f"what was given: {heard}"),
        "mix": ("mix", f"the input, untouched, plus the generated {wanted}"),
        "stem": (f"generated {wanted}", "the generated stem alone"),
        "true-mix": ("true mix", f"the input plus the true {wanted}"),
        "target": (f"true {wanted}", "the stem as it was recorded"),
        "ceiling": ("ceiling", BASELINES["ceiling"]),
    }


def _made(song: dict[str, Any], folder: Path, media: _Media) -> dict[str, Any]:
    sounds = {name: media.add(folder / "audio" / f"{song['key']}-{name}.flac") for name in ("mix", "stem")}
    picture = folder / "spectrograms" / f"{song['key']}.png"
    # Width and height, at a fixed place of every PNG: nothing on the page jumps when a picture arrives late.
    with picture.open("rb") as file:
        size = struct.unpack(">16xII", file.read(24))
    return {**sounds, "picture": media.add(picture), "size": size, "row": _texts(song["output"])}


def _song(song: dict[str, Any], baselines: list[str], media: _Media) -> dict[str, Any]:
    """What is the same at all checkpoints: addresses, the baselines' figures, the part of the song."""
    audio = media.run.evaluations / "references" / "audio"
    return {
        "name": song["name"],
        "key": song["key"],
        "sounds": {name: media.add(audio / f"{song['key']}-{name}.flac") for name in _FIXED},
        "rows": [(name, BASELINES.get(name, ""), _texts(song[name])) for name in baselines],
        "begins": f"{int(song['begins']) // 60}:{int(song['begins']) % 60:02d}",
        "seconds": f"{song['seconds']:.3g}",
    }


def _texts(row: dict[str, float | None]) -> list[str | None]:
    return [None if (value := row.get(name)) is None else f"{value:.2f}" for name in MEASURES]


def _curve(title: str, points: list[tuple[int, float]], lines: list[tuple[str, float]]) -> dict[str, Any]:
    """A drawing of values over steps, from 0 on both axes; `lines` are the baselines'."""
    right = max(step for step, _ in points)
    top = 1.05 * max(value for _, value in [*points, *lines]) or 1.0

    def x(step: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * step / right, 1)

    def y(value: float) -> float:
        return round(_BOTTOM + (_TOP - _BOTTOM) * value / top, 1)

    return {
        "title": title,
        "size": (_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM),
        "points": [(x(step), y(value), step, f"{value:.3g}") for step, value in points],
        "lines": [(name, y(value), f"{value:.3g}") for name, value in lines],
        "x_ticks": [(x(step), _thousands(step)) for step in _ticks(right, 4) if step == int(step)],
        "y_ticks": [(y(value), f"{value:g}") for value in _ticks(top, 5)],
    }


def _ticks(top: float, most: int) -> list[float]:
    """Round numbers from 0 up to `top`, not more than `most` after 0."""
    unit = 10.0 ** math.floor(math.log10(top))
    step = next(unit * factor for factor in (0.1, 0.2, 0.5, 1, 2, 5, 10) if top / (unit * factor) < most + 1)
    return [round(n * step, 12) for n in range(int(top / step + 1e-9) + 1)]


def _measure_curve(name: str, means: dict[int, Any], baselines: list[str]) -> dict[str, Any] | None:
    points = [(step, value) for step, mean in means.items() if (value := mean["output"].get(name)) is not None]
    last = means[max(means)]
    lines = [(baseline, value) for baseline in baselines if (value := last[baseline].get(name)) is not None]
    aim = {"high": "higher is better", "low": "lower is better", "one": "1 is best"}[MEASURES[name].best]
    return _curve(f"{MEASURES[name].label} ({aim})", points, lines) if points else None


def _training_curve(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The generator's L1 over all steps, neighbours averaged to what can be seen; None before the first line."""
    size = -(-len(rows) // _TRAINING_POINTS)
    parts = [rows[start : start + size] for start in range(0, len(rows), size or 1)]
    points = [(int(part[-1]["step"]), sum(row["l1"] for row in part) / len(part)) for part in parts]
    return _curve("L1 of the pictures in training (lower is better)", points, []) if points else None


def _settings(rows: list[dict[str, Any]], config: Config, last: int) -> list[tuple[str, str]]:
    data = config.data
    window, hop = (frames * data.hop_length / data.sample_rate for frames in (data.frames, data.window_hop))
    passes = f", {rows[-1]['epoch']:.3g} passes over the windows" if rows else ""
    return [
        ("preset", config.preset),
        ("steps", _thousands(rows[-1]["step"] if rows else last) + passes),
        ("pairs in a step", str(config.train.global_batch_size)),
        ("sample rate of the pictures", f"{data.sample_rate} Hz (the input keeps its own)"),
        ("windows", f"{data.mels} mels × {data.frames} frames ({window:.2f} s), one every {hop:.2f} s"),
    ]

"""The evaluate command: evaluate checkpoints of a run on its own or other songs, or audio files from any source."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from p2p_dist.audio import layouts
from p2p_dist.common import console, files
from p2p_dist.data import dataset as datasets
from p2p_dist.evaluate.baselines.baseline_stems import BASELINES
from p2p_dist.evaluate.measures.table import MEASURES, Row, columns, is_pitched, label, remarks, why_absent
from p2p_dist.run import rundir
from p2p_dist.run.lock import Owner
from p2p_dist.settings import config


@dataclass(frozen=True)
class Command:
    """Measure what a run's checkpoints generate, beside what needs no network; or sound files made by anything.

    Exit code 0: done; 1: the machine refused; 2: wrong usage.
    """

    run: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="RUN")] = None
    """name of the run, a folder in ./runs or $P2P_RUNS, or its path"""
    checkpoints: tuple[int | Literal["best"], ...] = ()
    """their steps, or best (default: all that have no evaluation yet)"""
    data: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """folder of other songs, laid out like MUSDB18: measured into RUN/measured/, the run's own evaluations stay as they are"""
    files: Annotated[str | None, tyro.conf.arg(metavar="PATTERN")] = None
    """instead of a run: 'DIR/{input,output,target}/*.wav', in quotes; three folders of files with the same names"""
    mixes: bool = False
    """of --files: output and target hold the input too, as the thesis's do"""
    best_gain: bool = False
    """of --files: give each output the one gain that brings it nearest to its target"""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """write all figures there too"""

    def __post_init__(self) -> None:
        if (self.run is None) == (self.files is None):
            raise ValueError("name a run, or sound files with --files 'DIR/{input,output,target}/*.wav'")
        if self.files is not None and (self.checkpoints or self.data):
            raise ValueError("--checkpoints and --data need a run: omit them with --files")
        if self.files is None and (self.mixes or self.best_gain):
            raise ValueError("--mixes and --best-gain only apply to --files: the output of a run is a stem at its own level")


def main(arguments: list[str]) -> int:
    """What `launch/evaluate.py` does; its exit code."""
    command = tyro.cli(Command, prog="launch/evaluate.py", args=arguments)
    if command.json:
        files.check_can_be_written(command.json)
    if command.files is not None:
        from p2p_dist.evaluate.audio_files import measure_files

        found, pitched = measure_files(command.files, mixes=command.mixes, best_gain=command.best_gain), True
    else:
        assert command.run is not None
        found, pitched = _measure_run(command, rundir.find(command.run))
    for song, rows in found["songs"].items():
        console.say(f"\n{song}")
        console.say(table(rows, pitched=pitched))
    console.say(
        f"\nmean over {len(found['songs'])} {'song' if len(found['songs']) == 1 else 'songs'}" if found["songs"] else ""
    )
    console.say(table(found["mean"], pitched=pitched))
    for remark in remarks(found["mean"].values()):
        console.say(remark)
    for reason in dict.fromkeys(found["absent"].values()):
        names = ", ".join(name for name, why in found["absent"].items() if why == reason)
        console.say(f"absent: {names}: {reason}")
    for line in found["said"]:
        console.say(line)
    if command.json:
        files.write_json(command.json, found)
    return console.DONE


def table(rows: dict[str, Row], *, pitched: bool) -> str:
    """Figures as Markdown, one table of what decides and one of what is only reported; columns without any are left out."""
    texts = []
    for measures in columns(pitched=pitched):
        names = [name for name in measures if any(row.get(name) is not None for row in rows.values())]
        if names:
            lines = ["| | " + " | ".join(MEASURES[name].label for name in names) + " |", "| --- " * (len(names) + 1) + "|"]
            for label, row in rows.items():
                values = ["–" if (value := row.get(name)) is None else MEASURES[name].text(value) for name in names]
                lines.append(f"| {label} | " + " | ".join(values) + " |")
            texts.append("\n".join(lines))
    return "\n\n".join(texts)


def _measure_run(command: Command, run: rundir.RunDir) -> tuple[dict[str, Any], bool]:
    settings = rundir.resolve(run)
    only = _steps(run, command.checkpoints)
    from p2p_dist.evaluate import checkpoints, claims, held_out_songs, ranking
    from p2p_dist.evaluate.report import page

    claims.find(run, only)  # before anything is written
    if command.data is None:
        out = run.evaluations
        with closing(rundir.own(run)):  # the launcher evaluates, too
            checkpoints.evaluate(run, settings, only)
            page.write(run, settings)
    else:
        root = command.data.expanduser().absolute()
        data = dataclasses.replace(settings.data, root=str(root), split_by_title=not layouts.is_split(root))
        out = run.path / "measured" / datasets.dataset_name(root, data)
        held_out = held_out_songs.from_folder(root, settings, settings.evaluate.songs)
        what = f"the run {run.path.name} is being measured on the songs in {root}"
        with closing(Owner(out, what, f"its figures come into {out}")):
            checkpoints.evaluate(run, settings, only, held_out, out)
    read = ranking.read(out)
    assert read is not None
    return _summary(run, settings, out, *read, only), is_pitched(settings.data.task)


def _steps(run: rundir.RunDir, asked: tuple[int | str, ...]) -> tuple[int, ...]:
    """The steps that are asked for; `best` is the one that the evaluations of the run have named.

    Raises:
        ValueError: none has been named yet.
    """
    best = run.read_best() if "best" in asked else None
    if "best" in asked and best is None:
        raise ValueError(
            f"no best checkpoint of the run {run.path.name} is known yet: evaluate it first, without --checkpoints"
        )
    return tuple(dict.fromkeys(best["step"] if best is not None and step == "best" else int(step) for step in asked))


def _summary(
    run: rundir.RunDir, settings: config.Config, out: Path, evaluated: dict[int, Any], baselines: Any, only: tuple[int, ...]
) -> dict[str, Any]:
    split = settings.evaluate.split
    steps = {step: content["splits"][split] for step, content in evaluated.items() if not only or step in only}
    known = baselines["splits"][split]
    rows = {name: known["rows"][name]["mean"] for name in BASELINES if name in known["rows"]}
    rows |= {f"step {step}": one["mean"] for step, one in steps.items()}
    absent = dict(known["missing"])
    for one in steps.values():
        later = {name: why_absent(name, one["mean"], {}) for name in MEASURES if name not in one["mean"]}
        absent |= {label(name): why for name, why in (one["absent"] | later).items()}
    said = [f"\nfigures: {out}"]
    if out == run.evaluations and (best := run.read_best()) is not None:
        said.append(f"best checkpoint: {rundir.in_words(best)}")
    return {"songs": {}, "mean": rows, "absent": absent, "said": said}


if __name__ == "__main__":
    console.exit_with(lambda: main(sys.argv[1:]))

"""The evaluate command: evaluate checkpoints of a run on its own or other songs, or audio files from any source."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from p2p_dist.cli import command_line
from p2p_dist.common import console, files
from p2p_dist.run import rundir
from p2p_dist.settings.fields import SAYS_DEFAULT


@dataclass(frozen=True)
class Command:
    """Evaluate the stems of a run's checkpoints and of baselines, or audio files from any program.

    Exit code 0: done; 1: failed; 2: wrong usage.
    """

    run: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="RUN")] = None
    """name of the run, a folder in ./runs or $P2P_RUNS, or its path"""
    checkpoints: Annotated[tuple[int | Literal["best"], ...], SAYS_DEFAULT] = ()
    """steps of checkpoints, or best (default: all that have no evaluation yet)"""
    data: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """folder of other songs, in the layout of MUSDB18; the results go to RUN/measured/, RUN/evaluations/ does not change"""
    files: Annotated[str | None, tyro.conf.arg(metavar="PATTERN")] = None
    """instead of a run: 'DIR/{input,output,target}/*.wav', in quotes; three folders of files with the same names"""
    mixes: bool = False
    """for --files: output and target are mixes that include the input, as in the thesis"""
    best_gain: bool = False
    """for --files: apply to each output, and to the copied input, the gain that brings it closest to its target"""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """also write all figures to this file"""

    def __post_init__(self) -> None:
        if (self.run is None) == (self.files is None):
            raise ValueError("name a run, or audio files with --files 'DIR/{input,output,target}/*.wav'")
        if self.files is not None and (self.checkpoints or self.data):
            raise ValueError("--checkpoints and --data need a run: omit them with --files")
        if self.files is None and (self.mixes or self.best_gain):
            raise ValueError("--mixes and --best-gain only apply to --files: the output of a run is a stem at its own level")


def main(arguments: list[str]) -> int:
    """Measure and print the figures; return the exit code."""
    command = command_line.parse(Command, "evaluate", arguments)
    for name, what in (("--data", "folder"), ("--json", "file")):
        if "" in command_line.take_option(arguments, name)[0]:
            raise ValueError(f"{name} is empty: specify a {what}, or omit {name}")
    json = None if command.json is None else files.expanded(command.json)
    if json:
        # What is not a file, such as /dev/stdout or a pipe, must not be replaced by one.
        if os.path.lexists(json) and (json.is_symlink() or not json.is_file()):
            what = "a folder" if json.is_dir() else "a link" if json.is_symlink() else "not a regular file"
            raise ValueError(f"--json names a file to write, and {json} is {what}: name another file")
        files.check_can_be_written(json)
    # Imported late, because it is slow: errors in the command line are reported first.
    from p2p_dist.cli import figures
    from p2p_dist.evaluate.measures import descriptors, table

    if command.files is not None:
        from p2p_dist.evaluate.audio_files import measure_files

        found, pitched = measure_files(command.files, mixes=command.mixes, best_gain=command.best_gain), True
    else:
        assert command.run is not None
        found, pitched = figures.of_run(rundir.find(command.run), command.checkpoints, command.data)
    for song, rows in found["songs"].items():
        console.say(f"\n{song}")
        console.say(figures.table(rows, pitched=pitched))
    console.say(
        f"\nmean over {len(found['songs'])} {'song' if len(found['songs']) == 1 else 'songs'}" if found["songs"] else ""
    )
    console.say(figures.table(found["mean"], pitched=pitched, certain=descriptors.is_certain(found["distance"])))
    for remark in table.remarks(found["mean"].values(), found["distance"]):
        console.say(remark)
    for reason in dict.fromkeys(found["absent"].values()):
        names = ", ".join(name for name, why in found["absent"].items() if why == reason)
        console.say(f"absent: {names}: {reason}")
    for line in found["said"]:
        console.say(line)
    if json:
        files.write_json(json, found)
    return console.DONE

"""The export command: write a trained generator to a folder with weights, settings and model card, for use and publication."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from p2p_dist.cli import command_line
from p2p_dist.common import console, files
from p2p_dist.run import checkpoints, rundir


@dataclass(frozen=True)
class Command:
    """Write a trained generator to a folder that anybody can use and publish: weights, settings, model card.

    Exit code 0: done; 1: failed; 2: wrong usage.
    """

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """name of the run, for its best checkpoint, or RUN@STEP"""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """the folder to write, which must not exist"""
    half: bool = False
    """weights in float16: half the size, about three significant digits"""
    torch_export: bool = False
    """also write model.pt2, a torch.export program that runs with torch alone"""
    overwrite: bool = False
    """replace the folder if it contains an exported model and nothing else"""


def main(arguments: list[str]) -> int:
    """Write the folder; return the exit code."""
    command = command_line.parse(Command, "export", arguments)
    # Imported below, because it is slow: errors in the command line are reported first.
    run, found = checkpoints.named(command.run)
    settings = rundir.read_settings(run)
    from p2p_dist.evaluate.report import model_card
    from p2p_dist.generate import exported
    from p2p_dist.generate.model import find_model

    out = files.expanded(command.out)
    out = out if out.name else out.absolute()  # the current folder
    exported.check_out(out, overwrite=command.overwrite)
    content = exported.export(
        find_model(f"{run.name}@{found.step}"),
        settings.evaluate.iterations,
        out,
        lambda content: model_card.exported(run, settings, content),
        half=command.half,
        torch_export=command.torch_export,
    )
    weights = content["weights"]
    console.say(f"{run.name}, step {found.step}: {weights['bytes'] / 1e6:.1f} MB of {weights['dtype']} in {out}")
    console.say(f"before you publish it, read in {out / exported.CARD} what applies to the songs' licence")
    console.say(f"to use it: {console.command('generate')} SONG --model {out}")
    return console.DONE

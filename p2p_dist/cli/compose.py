"""The compose command: songs that a seeded program composes, with exact beats and strokes, to train with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from p2p_dist.cli import command_line
from p2p_dist.common import console, files
from p2p_dist.settings.fields import SAYS_DEFAULT

TEST_EVERY = 10
"""One song of so many is for test/."""


@dataclass(frozen=True)
class Command:
    """Compose songs from a seed and render them with FluidSynth: stems in MUSDB18's layout, with exact beats and drum strokes.

    Nobody has claims to these songs: nothing is taken from existing music, and Debian's sound font is under the MIT licence.
    Exit code 0: done; 1: failed; 2: wrong usage.
    """

    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """folder of songs to write; songs that are there are kept"""
    songs: int = 60
    """number of songs"""
    seed: int = 1
    """the same seed gives the same songs"""
    seconds: float = 60.0
    """minimum length of a song, seconds"""
    font: Annotated[Path | None, SAYS_DEFAULT] = None
    """sound font (default: FluidR3_GM.sf2 of Debian's package fluid-soundfont-gm)"""

    def __post_init__(self) -> None:
        if not 1 <= self.songs <= 10_000:
            raise ValueError(f"--songs {self.songs}: give a number from 1 to 10000")
        if self.seed < 0:
            raise ValueError(f"--seed {self.seed}: give 0 or more")
        if not 10 <= self.seconds <= 900:
            raise ValueError(f"--seconds {self.seconds:g}: give a length from 10 to 900")


def main(arguments: list[str]) -> int:
    """Write the songs; return the exit code."""
    if "" in arguments:  # as a path it is the current folder
        raise ValueError("an argument is empty: specify a folder for the songs")
    command = command_line.parse(Command, "compose", arguments)
    from p2p_dist.data.composed import render

    font = command.font or render.SOUND_FONT
    render.check(font)
    out = files.expanded(command.out)
    for number in range(command.songs):
        split = "test" if number % TEST_EVERY == TEST_EVERY - 1 else "train"
        score = render.write_song(out / split, command.seed, number, command.seconds, font)
        console.say(f"{number + 1} of {command.songs}: {score.style}, {score.bpm:.2f} beats a minute, {split}")
    console.say(f"{command.songs} songs in {out}")
    return console.DONE

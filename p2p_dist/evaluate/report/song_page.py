"""Write the listening page of a song with generated stems, from its files and its record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from p2p_dist.audio import decode, flac
from p2p_dist.audio.beats import told_tempo
from p2p_dist.audio.decode import Decoded
from p2p_dist.evaluate.report.listening import Sound, write_listening_page
from p2p_dist.generate.request import Song, stem_name


def write(song: Song, record: dict[str, Any]) -> Path:
    """Write index.html beside the files of a song; return its path.

    Args:
        record: see `schemas.GENERATED`.
    """
    about, takes, folder = record["song"], record["takes"], song.place.folder
    heard = decode.look(song.source)
    heard.begin = about["begin_sample"]
    heard.end = heard.begin + about["samples"]
    of_input = flac.factor(takes[0]["gain_db"])  # all takes are played at the level of the first
    stems = []
    for number, take in enumerate(takes, 1):
        factor = of_input / flac.factor(take["gain_db"])
        label = f"take {number}" if len(takes) > 1 else stem_name(record["model"]["task"])
        file = decode.look(folder / take["files"]["stem"]["name"])
        stems.append(_sound(file, label, f"seed {take['seed']}", about, factor))
    made, tempo = stem_name(record["model"]["task"]), record["tempo"]
    facts = [
        ("model", record["model"]["name"]),
        ("trained", f"{record['model']['step']} steps"),
        ("seed", ", ".join(str(take["seed"]) for take in takes)),
        ("stem level", f"{record['settings']['level']:g} dB"),
        ("tempo", "not found" if tempo is None else told_tempo(tempo)),
        *(("note", note) for note in record["notes"]),
    ]
    kinds = {"stem": (made, format := record["settings"]["format"].upper()), "mix": ("mix", format), "midi": (made, "MIDI")}
    downloads = [
        (f"{f'take {number}: ' if len(takes) > 1 else ''}{kinds[kind][0]} ({kinds[kind][1]})", file["name"])
        for number, take in enumerate(takes, 1)
        for kind, file in take["files"].items()
    ]
    shown = _sound(heard, "song", "the song as you gave it", about, of_input)
    return write_listening_page(folder, song.place.name, shown, stems, made=made, facts=facts, downloads=downloads)


def _sound(file: Decoded, label: str, meaning: str, about: dict[str, Any], factor: float) -> Sound:
    """Cut or pad audio to the length of the song, because some formats add samples."""

    def blocks() -> Iterator[np.ndarray]:
        left = about["samples"]
        for block in file.blocks():
            part = block[:left, list(file.front)] * np.float32(factor)
            left -= len(part)
            if len(part):
                yield part
        if left:
            yield np.zeros((left, len(file.front)), np.float32)

    return Sound(label, meaning, about["sample_rate"], about["samples"], blocks)

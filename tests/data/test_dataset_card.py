"""The card of a dataset."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from p2p_dist.audio.musdb18 import excerpt_file
from p2p_dist.common import records
from p2p_dist.data import dataset_card, shards
from p2p_dist.data import manifest as manifests
from p2p_dist.settings.config import Data


def test_clipped_samples_and_songs_that_hold_no_numbers_are_counted_in_the_card(
    new_song: Callable[..., Path], small: Data, tmp_path: Path
) -> None:
    for name in ("Clean", "Clipped", "Not a number"):
        new_song(tmp_path / "songs/train" / name)
    for name, stem, value in (("Clipped", "drums", 1.0), ("Clipped", "bass", -1.5), ("Not a number", "drums", np.nan)):
        path = tmp_path / "songs/train" / name / f"{stem}.wav"
        sound, rate = soundfile.read(path)
        sound[100:107, 1] = value
        soundfile.write(path, sound, rate, subtype="FLOAT")
    (left_out,) = shards.preprocess(tmp_path / "songs", tmp_path / "out", small, workers=1)
    assert left_out.name == "Not a number" and "drums" in str(left_out.error) and "NaN or infinite" in str(left_out.error)
    finished = [records.read(path) for path in (tmp_path / "out/parts").glob("train-*.json")]
    assert {record["song"]: record["clipped"] for record in finished} == {"Clean": 0, "Clipped": 14}
    told = (tmp_path / "out/DATASET.md").read_text()
    assert next(line for line in told.splitlines() if line.startswith("| train")).endswith(" 14 |")
    assert "Left out: 1 song." in told and "Not a number: " in told


def test_the_card_counts_hours(dataset: Path) -> None:
    manifest = manifests.read(dataset)
    read = [records.read(path) for path in sorted((dataset / "parts").glob("t*-*.json"))]
    lengths = iter((5400.0, 1800.0, 900.0))
    timed = [{**record, "seconds": next(lengths)} for record in sorted(read, key=lambda record: record["split"] != "train")]
    rows = [line for line in dataset_card.card(manifest, timed).splitlines() if line.startswith(("| train | 2", "| test | 1"))]
    assert [row.split("|")[3].strip() for row in rows[:2]] == ["2.00", "0.25"]


def test_the_card_tells_of_stems_filled_up_and_of_streams_without_names(
    new_song: Callable[..., Path], small: Data, tmp_path: Path
) -> None:
    new_song(tmp_path / "songs/train/Even")
    path = new_song(tmp_path / "songs/train/Short") / "vocals.wav"
    sound, rate = soundfile.read(path)
    soundfile.write(path, sound[:-2205], rate)
    unnamed = excerpt_file().read_bytes().replace(b'"name": "Drums"', b'"name": "Stem "')
    (tmp_path / "songs/train/Unnamed.stem.mp4").write_bytes(unnamed)
    shutil.copy(excerpt_file(), tmp_path / "songs/train/Named.stem.mp4")
    assert shards.preprocess(tmp_path / "songs", tmp_path / "out", small, workers=1) == []
    finished = {record["song"]: record for record in map(records.read, (tmp_path / "out/parts").glob("t*.json"))}
    assert {name: record["filled"] for name, record in finished.items() if record["filled"]} == {"Short": 0.1}
    assert [name for name, record in finished.items() if record["by_position"]] == ["Unnamed"]
    told = (tmp_path / "out/DATASET.md").read_text()
    assert "stems of unequal length; the shorter stems are padded with silence: 1 (by at most 0.100 s" in told
    assert "in MUSDB18's order (mixture, drums, bass, other, vocals): 1." in told
    # What earlier versions wrote does not tell.
    for record in finished.values():
        del record["filled"], record["by_position"]
    manifest = manifests.read(tmp_path / "out")
    assert "silence: 1" not in dataset_card.card(manifest, list(finished.values()))

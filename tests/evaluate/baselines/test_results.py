"""Baselines are measured once, and their sound files say their level and place."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from p2p_dist.common import records
from p2p_dist.evaluate import checkpoints, held_out_songs
from p2p_dist.generate import inference
from p2p_dist.run import rundir
from p2p_dist.settings.config import Config
from tests.audio.flac_tags import read_tags
from tests.evaluate.evaluations import add_checkpoint, copied, place

__all__ = ["copied", "place"]


def test_baselines_are_measured_once_and_checkpoints_beside_them(copied: tuple[rundir.RunDir, Config]) -> None:
    run, settings = copied
    known = records.read(run.evaluations / "baselines.json")
    for split in ("test", "valid"):
        there = set(known["splits"][split]["rows"])
        assert {"copy the input", "silence", "noise hits", "rock grid, tracked beats", "rock grid, known beats"} <= there
        assert {"another song, in time", "loop of another song", "ceiling"} <= there
        assert known["splits"][split]["missing"] == {"same song, far away": "the song is shorter than 40 s"}
    rows = {name: one["mean"] for name, one in known["splits"]["test"]["rows"].items()}
    assert rows["ceiling"]["stem_l1"] < min(rows[name]["stem_l1"] for name in rows if name != "ceiling")
    assert rows["rock grid, known beats"]["f1t_beyond_chance"] > 0.8 > rows["noise hits"]["f1t_beyond_chance"]
    assert rows["silence"]["level_error"] is None
    before = {p: p.stat().st_mtime_ns for p in run.evaluations.rglob("*") if p.is_file() and "references" in p.parts}
    before[run.evaluations / "baselines.json"] = (run.evaluations / "baselines.json").stat().st_mtime_ns
    add_checkpoint(run, 15, settings)
    assert checkpoints.evaluate(run, settings) == 1
    assert before == {path: path.stat().st_mtime_ns for path in before}, "not measured again for another checkpoint"
    ranked = records.read(run.evaluations / "ranking.json")
    assert {item["step"] for item in ranked["checkpoints"]} == {5, 10, 15} and ranked["chosen_on"] == "valid"


def held_out(name: str, loudness: float) -> tuple[held_out_songs.HeldOut, np.ndarray, np.ndarray]:
    """A song of stereo noise with its hits, whose true mix peaks at `loudness`; and its input and target."""
    random, time = np.random.default_rng(5), np.arange(round(4.3 * 22050))[:, None] / 22050
    heard = (0.3 * random.standard_normal((len(time), 2))).astype(np.float32)
    made = (0.4 * random.standard_normal((len(time), 2)) * np.exp(-20 * (time % 0.25)) * (time > 1)).astype(np.float32)
    heard, made = (np.float32(loudness / np.abs(heard + made).max()) * sound for sound in (heard, made))
    return held_out_songs.HeldOut(name, name, "test", lambda: (heard, made, 22050)), heard, made


@pytest.mark.parametrize("too_loud", [False, True])
def test_sound_files_are_at_the_level_of_the_song_and_say_where_they_begin(
    copied: tuple[rundir.RunDir, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, too_loud: bool
) -> None:
    run, settings = copied
    settings = dataclasses.replace(
        settings, evaluate=dataclasses.replace(settings.evaluate, seeds=1, seconds=2.0, iterations=2)
    )
    songs = {name: held_out(name, loudness) for name, loudness in (("quiet", 0.4), ("loud", 3.7))}
    if too_loud:  # a generator whose mixes are louder than anything of the song
        generated = inference.generate
        monkeypatch.setattr(inference, "generate", lambda *arguments: generated(*arguments) + 40)
    out = tmp_path / "out"
    assert checkpoints.evaluate(run, settings, [5], [song for song, _, _ in songs.values()], out) == 1
    fixed = records.read(out / "baselines.json")["songs"]
    made = {song["key"]: song for song in records.read(out / "step-00000005" / "metrics.json")["songs"]}
    for key, (_, heard, target) in songs.items():
        begin, samples = fixed[key]["begin_sample"], fixed[key]["samples"]
        assert begin > 0 and fixed[key]["begins"] == begin / 22050 and fixed[key]["sample_rate"] == 22050
        part = slice(begin, begin + samples)
        known = {"input": heard[part], "target": target[part], "true-mix": heard[part] + target[part]}
        folder = out / "references" / "audio"
        gain = fixed[key]["gain"]
        assert 20 * np.log10(gain) == pytest.approx(fixed[key]["gain_db"], abs=1e-9)
        assert gain == 1 if key == "quiet" else 0.6 < 3.7 * gain < 0.72
        for name, sound in known.items():
            written, _ = soundfile.read(folder / f"{key}-{name}.flac", dtype="float32")
            assert np.abs(written - gain * sound).max() < 2.0**-22, "as it is, but for the gain"
        gain = made[key]["gain"]
        assert gain < fixed[key]["gain"] if too_loud else gain == fixed[key]["gain"]
        assert {name: made[key][name] for name in ("begin_sample", "samples", "begins")} == {
            name: fixed[key][name] for name in ("begin_sample", "samples", "begins")
        }
        folder = out / "step-00000005" / "audio"
        stem, mix = (soundfile.read(folder / f"{key}-{name}.flac", dtype="float32")[0] for name in ("stem", "mix"))
        assert np.abs(mix - stem - gain * known["input"]).max() < 2.0**-21, "the stem fits under its song"
        assert 0.98 < max(np.abs(mix).max(), np.abs(stem).max()) <= 1 if too_loud else np.abs(mix).max() < 1
        for path, record in [(path, made[key]) for path in folder.glob(f"{key}-*")] + [
            (path, fixed[key]) for path in (out / "references" / "audio").glob(f"{key}-*")
        ]:
            tags = read_tags(path)
            assert tags["BEGIN_SAMPLE"] == str(begin) and float(tags["BEGIN_SECONDS"]) == pytest.approx(begin / 22050, abs=1e-6)
            assert float(tags["GAIN"]) == pytest.approx(record["gain"]) and float(tags["GAIN_DB"]) == record["gain_db"]

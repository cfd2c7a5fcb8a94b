"""A run's checkpoints evaluated for real: small songs, small networks, two processes, other songs, files of any origin."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch

from p2p_dist.cli import figures
from p2p_dist.common import files, records
from p2p_dist.data import manifest, shards
from p2p_dist.evaluate import checkpoints, held_out_songs, ranking
from p2p_dist.evaluate.baselines import results
from p2p_dist.evaluate.measures.measure import measure
from p2p_dist.evaluate.report import page
from p2p_dist.model.generator import Generator
from p2p_dist.run import rundir
from p2p_dist.settings.config import Config
from p2p_dist.train import checkpoint
from tests.evaluate import on_ranks
from tests.evaluate.evaluations import add_checkpoint, copied, place

__all__ = ["copied", "place"]


def one_song(copied: tuple[rundir.RunDir, Config]) -> list[held_out_songs.HeldOut]:
    """For tests that are not about what is measured."""
    run, settings = copied
    return checkpoints.held_out(run.shards, settings.evaluate)[:1]


def test_generations_are_averaged_and_validation_songs_only_measured(copied: tuple[rundir.RunDir, Config]) -> None:
    run, settings = copied
    both = records.read(run.evaluations / "step-00000005" / "metrics.json")
    assert [song["name"] for song in both["songs"]] == ["five", "six"]
    assert [song["name"] for song in both["splits"]["valid"]["songs"]] == ["four"]
    assert sorted(path.name for path in (run.evaluations / "step-00000005" / "audio").iterdir()) == sorted(
        f"{song['key']}-{kind}.flac" for song in both["songs"] for kind in ("stem", "mix")
    )
    assert [song["key"].partition("-")[0] for song in both["songs"]] == ["five", "six"]
    whole = both["splits"]["test"]
    low, high = whole["interval"]["stem_l1"]
    assert low <= whole["mean"]["stem_l1"] <= high
    assert both["splits"]["test"]["absent"]["mmd"].startswith("too few windows: it needs 8, ")
    shutil.rmtree(run.evaluations / "step-00000005")
    one_seed = dataclasses.replace(settings, evaluate=dataclasses.replace(settings.evaluate, seeds=1))
    checkpoints.evaluate(run, one_seed)
    one = records.read(run.evaluations / "step-00000005" / "metrics.json")
    assert one["splits"]["test"]["mean"] != whole["mean"]
    rows = [song["output"] for song in one["songs"]]
    assert [song["output"] for song in both["songs"]] == rows, "of a song: the first generation, which is heard"
    assert one["splits"]["test"]["mean"]["stem_l1"] == pytest.approx(np.mean([row["stem_l1"] for row in rows]))


def test_a_checkpoint_whose_output_is_not_finite_is_named(copied: tuple[rundir.RunDir, Config]) -> None:
    run, settings = copied
    weights = Generator(settings.model).state_dict()
    weights["down.0.convolution.weight"].sign_().mul_(3e38)
    checkpoint.save(run.checkpoints, 15, {"step": 15}, weights, {})
    with pytest.raises(ValueError, match="the checkpoint of step 15 can't be evaluated: the generator's output is not finite"):
        checkpoints.evaluate(run, settings, [15], one_song(copied))
    assert not (run.evaluations / "step-00000015").exists()


def test_an_error_leaves_no_thread_that_writes(copied: tuple[rundir.RunDir, Config]) -> None:
    """The second song fails while the first one's sound is made, which would take minutes."""
    run, settings = copied
    slow = dataclasses.replace(settings.evaluate, iterations=100_000)
    heard = checkpoints.read_excerpts(checkpoints.held_out(run.shards, settings.evaluate), settings)
    known = results.measure_baselines(run.evaluations, run.shards, heard, settings.data, settings.evaluate)
    pictures = heard[1].pictures
    nothing = dataclasses.replace(pictures, inputs=np.full_like(pictures.inputs, np.nan))
    heard[1] = dataclasses.replace(heard[1], pictures=nothing)
    begun, before = time.perf_counter(), threading.active_count()
    with pytest.raises(ValueError, match="not finite"), files.new_folder(run.evaluations / "step-00000015") as folder:
        checkpoints.evaluate_generator(folder, 15, Generator(settings.model), heard, known, settings.data, slow)
    assert threading.active_count() == before and time.perf_counter() - begun < 60
    assert not list(run.evaluations.glob(f"{files.TEMPORARY}*"))


def test_the_row_of_a_song_is_of_the_sound_that_is_heard(copied: tuple[rundir.RunDir, Config]) -> None:
    run, settings = copied
    evaluated = run.evaluations / "step-00000010"
    rows = {song["key"]: song for song in records.read(evaluated / "metrics.json")["songs"]}
    for song in held_out_songs.from_shards(run.shards, "test", 2):
        excerpt = held_out_songs.read_excerpt(song, settings.data, settings.evaluate.seconds)
        stem, _ = soundfile.read(evaluated / "audio" / f"{song.key}-stem.flac", dtype="float32", always_2d=True)
        heard = measure(stem / np.float32(rows[song.key]["gain"]), excerpt.truth).row
        for name in ("stem_l1", "level_error", "density_ratio", "mr_log"):
            expected = None if heard[name] is None else pytest.approx(heard[name], rel=1e-3, abs=1e-3)
            assert rows[song.key]["output"][name] == expected, name


@pytest.mark.parametrize("alone", [True, False])
def test_an_evaluation_that_shares_its_run_with_a_training_tells_no_progress_for_it(
    copied: tuple[rundir.RunDir, Config], monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """As jobs of an array do: status.json is then that of the training."""
    run, settings = copied
    shutil.rmtree(run.evaluations)
    files.write_json(run.status, {"what": "train"})
    if not alone:
        monkeypatch.setenv("P2P_CLAIMS", "7")
        monkeypatch.setenv("P2P_ATTEMPT", "7.0")
    assert checkpoints.evaluate(run, settings, [5], one_song(copied)) == 1
    assert records.json.loads(run.status.read_text())["what"] == ("evaluate" if alone else "train")


def test_a_stem_that_would_clip_makes_its_files_quieter(
    copied: tuple[rundir.RunDir, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, (song, *_) = copied[1], one_song(copied)
    excerpt = held_out_songs.read_excerpt(song, settings.data, settings.evaluate.seconds)
    for peak, most in ((5.0, -13.9), (0.1, 0.0)):
        stem = (peak * excerpt.target / np.abs(excerpt.target).max()).astype(np.float32)
        monkeypatch.setattr(checkpoints.inference, "to_stem", lambda *_, stem=stem, is_over: stem)
        outputs = np.zeros((0, 1), np.float32)
        _, _, gain = checkpoints._sound_and_measures(
            outputs, excerpt, tmp_path / str(peak), 0.0, settings.data, 1, lambda: False
        )
        assert gain is not None and most - 3 < gain <= most
        for name, sound in (("stem", stem), ("mix", excerpt.input + stem)):
            written, _ = soundfile.read(tmp_path / str(peak) / f"{song.key}-{name}.flac", dtype="float32", always_2d=True)
            np.testing.assert_allclose(written, sound * 10 ** (gain / 20), atol=1e-4)


def test_more_is_measured_than_is_written_as_sound(copied: tuple[rundir.RunDir, Config]) -> None:
    run, settings = copied
    shutil.rmtree(run.evaluations)
    more = dataclasses.replace(settings, evaluate=dataclasses.replace(settings.evaluate, seconds=0.8, windows=1, seeds=1))
    assert checkpoints.evaluate(run, more, [5]) == 1
    about = records.read(run.evaluations / "baselines.json")["songs"]
    evaluated = run.evaluations / "step-00000005"
    for song in records.read(evaluated / "metrics.json")["songs"]:
        assert song["seconds"] < 1 < song["measured"]["seconds"] and song["measured"] == about[song["key"]]["measured"]
        sounds = [
            *evaluated.glob(f"audio/{song['key']}-*.flac"),
            *run.evaluations.glob(f"references/audio/{song['key']}-*.flac"),
        ]
        assert len(sounds) == 6 and {soundfile.info(path).frames for path in sounds} == {song["samples"]}
    text = page.write(run, more).read_text(encoding="utf-8")
    assert "s of the song, which these are part of." in text and "very sound" not in text, "more than what is played"


def test_the_distance_is_to_all_windows_of_the_whole_songs(
    copied: tuple[rundir.RunDir, Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the whole songs had six times as many windows as their excerpts."""
    run, settings = copied
    about = records.read(run.evaluations / "baselines.json")["splits"]["test"]["distance"]
    assert about == {"songs": 2, "windows": 2, "real": 2, "others": None}
    read = held_out_songs.read_excerpt

    def read_longer(*arguments: Any, **named: Any) -> held_out_songs.Excerpt:
        excerpt = read(*arguments, **named)
        return dataclasses.replace(excerpt, real=np.repeat(excerpt.real, 6, axis=0))

    monkeypatch.setattr(held_out_songs, "read_excerpt", read_longer)
    shutil.rmtree(run.evaluations / "step-00000005")
    assert checkpoints.evaluate(run, settings) == 1
    baselines, one = (records.read(run.evaluations / name) for name in ("baselines.json", "step-00000005/metrics.json"))
    assert baselines["splits"]["test"]["distance"] == {"songs": 2, "windows": 2, "real": 12, "others": None}
    for absent in (one["splits"]["test"]["absent"], baselines["splits"]["test"]["rows"]["copy the input"]["absent"]):
        assert absent["mmd"] == "too few windows: it needs 8, the stems have 2, the true stems 12"


def test_an_evaluation_of_an_earlier_version_is_kept_and_its_gain_told(copied: tuple[rundir.RunDir, Config]) -> None:
    """It scaled all files of a song by 0.7 / peak, and did not say so."""
    run, settings = copied
    for path in (run.evaluations / "references").glob("*.json"):
        _downgrade(path)
    for path in (run.evaluations / "baselines.json", *run.evaluations.glob("step-*/metrics.json")):
        _downgrade(path)
    kept = {path: path.read_bytes() for path in run.evaluations.rglob("*") if path.is_file() and path.suffix != ".png"}
    add_checkpoint(run, 15, settings)
    assert checkpoints.evaluate(run, settings) == 1
    changed = {path.name for path, content in kept.items() if path.read_bytes() != content}
    assert changed == {"baselines.json", "ranking.json", "curves.svg"}
    heard = {
        song.key: held_out_songs.read_excerpt(song, settings.data, settings.evaluate.seconds)
        for song in checkpoints.held_out(run.shards, settings.evaluate)
    }
    known, last = records.read(run.evaluations / "baselines.json")["songs"], run.evaluations / "step-00000015"
    for song in records.read(last / "metrics.json")["songs"]:
        gain = 0.7 / max(1.0, heard[song["key"]].peak)
        assert known[song["key"]]["gain"] == pytest.approx(gain) and song["gain"] == pytest.approx(gain), "one for all files"
    evaluated, baselines = ranking.read_evaluations(run.evaluations)  # type: ignore[misc]
    assert evaluated[5]["splits"]["test"]["interval"] == {} and evaluated[15]["splits"]["test"]["interval"]
    assert baselines["splits"]["test"]["rows"]["silence"]["interval"]


def _downgrade(path: Path) -> None:
    """Take away what schema 1 did not have."""

    def bare(value: Any) -> Any:
        new = ("schema", "gain", "gain_db", "unrecorded_gain_db", "begin_sample", "samples", "sample_rate")
        if isinstance(value, dict):
            return {key: bare(part) for key, part in value.items() if key not in new}
        return [bare(part) for part in value] if isinstance(value, list) else value

    files.write_json(path, bare(records.read(path)))


def test_validation_songs_that_were_trained_on_choose_no_checkpoint(copied: tuple[rundir.RunDir, Config]) -> None:
    """If it failed: the checkpoint that remembers its training songs best would be called the best."""
    run, settings = copied
    content = manifest.read(run.shards)
    content["splits"]["valid"]["songs"][0]["same_as"] = ["one"]
    manifest.write(run.shards, content)
    for allowed, splits in ((False, ["test", "test"]), (True, ["test", "test", "valid"])):
        evaluate = dataclasses.replace(settings.evaluate, allow_overlap=allowed)
        assert [song.split for song in checkpoints.held_out(run.shards, evaluate)] == splits


def test_the_songs_of_each_split_share_the_windows(
    copied: tuple[rundir.RunDir, Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it failed: with many test songs, too few windows of the validation songs for a distance that counts."""
    run, settings = copied
    more = dataclasses.replace(settings, evaluate=dataclasses.replace(settings.evaluate, seconds=0.8, windows=6))
    monkeypatch.setattr(held_out_songs, "read_excerpt", lambda song, *_, measured: (song.split, measured))
    songs = checkpoints.held_out(run.shards, more.evaluate)
    shares = {split: held_out_songs.measured_seconds(more.evaluate, number) for split, number in (("test", 2), ("valid", 1))}
    assert checkpoints.read_excerpts(songs, more) == [(song.split, shares[song.split]) for song in songs]


@pytest.mark.parametrize("harm", ["cut", "no weights", "of another network"])
def test_a_damaged_checkpoint_is_set_aside_and_the_others_are_evaluated(
    harm: str, copied: tuple[rundir.RunDir, Config], capsys: pytest.CaptureFixture[str]
) -> None:
    run, settings = copied
    for step in (15, 20):
        add_checkpoint(run, step, settings)
    folder = run.checkpoints / "step-00000015"
    hurt = folder / "generator.safetensors"
    if harm == "cut":
        hurt.write_bytes(hurt.read_bytes()[:-1])
    else:  # with a record that fits
        other = safetensors.torch.save({"a": torch.zeros(1)})
        hurt.write_bytes(other if harm == "of another network" else b"x" * 50)
        meta = json.loads((folder / "meta.json").read_text())
        meta["files"][hurt.name] = {"bytes": hurt.stat().st_size, "sha256": files.sha256_file(hurt)}
        (folder / "meta.json").write_text(json.dumps(meta))
    checkpoints.evaluate(run, settings, songs=one_song(copied))
    assert "warning: the checkpoint of step 15: " in capsys.readouterr().err
    assert rundir.is_evaluation(run.evaluations / "step-00000020")
    assert not (run.evaluations / "step-00000015").exists()
    assert not folder.exists() and (run.checkpoints / "damaged-step-00000015").is_dir()
    with pytest.raises(ValueError, match="no checkpoint of step 15"):
        checkpoints.evaluate(run, settings, [15], one_song(copied))


@pytest.mark.parametrize("when", ["while it measures", "before it begins", "while it clears away what lost a file"])
def test_whoever_evaluates_the_same_first_is_left_alone(
    when: str, copied: tuple[rundir.RunDir, Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs that do not share: a template beside the launcher's, an array beside one that another launch queued.

    If it failed: what one has finished is removed by the other, or the later one fails, with checkpoints left.
    """
    run, settings = copied
    result, others = run.evaluations / "step-00000005", run.path / "of the other job"
    result.rename(others)
    if when == "while it clears away what lost a file":
        files.write_json(result / "metrics.json", {"songs": [{"key": "five"}]})  # without its sound
    made = {path.name: path.stat().st_ino for path in others.rglob("*")}

    place, name = {
        "while it measures": (checkpoints, "evaluate_generator"),
        "before it begins": (checkpoint, "load_generator"),
        "while it clears away what lost a file": (checkpoints, "is_evaluation"),
    }[when]
    function = getattr(place, name)

    def then_another_finishes(*arguments: Any) -> Any:
        found = function(*arguments)
        if others.exists():
            shutil.rmtree(result, ignore_errors=True)
            others.rename(result)
        return found

    monkeypatch.setattr(place, name, then_another_finishes)
    assert checkpoints.evaluate(run, settings, [5], one_song(copied)) == 0
    assert made == {path.name: path.stat().st_ino for path in result.rglob("*")}
    assert not list(run.evaluations.glob(".tmp-*"))


def test_two_processes_share_the_work_and_agree(copied: tuple[rundir.RunDir, Config], ranks: Any) -> None:
    run, _ = copied
    alone = {path.name: path.read_bytes() for path in run.evaluations.glob("*.json")}
    measured = (run.evaluations / "step-00000005" / "metrics.json").read_bytes()
    shutil.rmtree(run.evaluations)
    counts = ranks(2, on_ranks.evaluate, run.path, seconds=180)
    assert sum(counts) == 2
    assert measured == (run.evaluations / "step-00000005" / "metrics.json").read_bytes()
    assert alone == {path.name: path.read_bytes() for path in run.evaluations.glob("*.json")}


def test_a_pitched_target_has_a_pitch_measure_and_no_rock_grid(place: tuple[Path, Config], tmp_path: Path) -> None:
    _, settings = place
    settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, task="bass"))
    settings = dataclasses.replace(settings, evaluate=dataclasses.replace(settings.evaluate, seeds=1, songs=1, seconds=1.0))
    assert shards.preprocess(place[0] / "songs", tmp_path / "shards" / "bass", settings.data, 1) == []
    run = rundir.RunDir(tmp_path / "runs" / "bass")
    files.write_json(run.dataset, {"name": "bass"})
    add_checkpoint(run, 5, settings)
    assert checkpoints.evaluate(run, settings) == 1
    known = records.read(run.evaluations / "baselines.json")["splits"]["test"]
    assert known["missing"]["rock grid, known beats"] == "the stem is pitched, so drums do not apply"
    assert known["rows"]["ceiling"]["mean"]["chroma_correlation"] > known["rows"]["noise hits"]["mean"]["chroma_correlation"]
    assert "pitch" in figures.table({name: one["mean"] for name, one in known["rows"].items()}, pitched=True)

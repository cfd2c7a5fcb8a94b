"""A run's checkpoints evaluated for real: small songs, small networks, two processes, other songs, files of any origin."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch

from p2p_dist.audio import flac
from p2p_dist.cli import evaluate, figures
from p2p_dist.common import files, records
from p2p_dist.data import shards
from p2p_dist.evaluate import audio_files, checkpoints, held_out_songs, ranking
from p2p_dist.evaluate.measures.measure import measure
from p2p_dist.generate import inference
from p2p_dist.model.generator import Generator
from p2p_dist.run import rundir
from p2p_dist.settings import presets
from p2p_dist.settings.config import Config
from p2p_dist.train import checkpoint
from tests.conftest import write_songs
from tests.evaluate import on_ranks

SONGS = {"train/one": 4.6, "train/two": 5.0, "train/four": 4.2, "test/five": 4.0, "test/six": 4.4}
"""By the hash of its title, `four` is a validation song."""


def add_checkpoint(run: rundir.RunDir, step: int, settings: Config) -> None:
    """A generator that was never trained: another for every step."""
    torch.manual_seed(step)
    folder = run.checkpoints / rundir.step_name(step)
    folder.mkdir(parents=True)
    path = folder / "generator.safetensors"
    safetensors.torch.save_file(Generator(settings.model).state_dict(), path)
    record = {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)}
    files.write_json(folder / "meta.json", {"step": step, "settings": "", "files": {path.name: record}})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    """A folder with runs/run of two checkpoints that are evaluated, and the songs."""
    place = tmp_path_factory.mktemp("place")
    write_songs(place / "songs", SONGS)
    settings = presets.PRESETS["tiny"]
    settings = dataclasses.replace(settings, evaluate=dataclasses.replace(settings.evaluate, seeds=2, seconds=3.9))
    assert shards.preprocess(place / "songs", place / "shards" / "tiny", settings.data, 1) == []
    run = rundir.RunDir(place / "runs" / "run")
    files.write_json(run.dataset, {"name": "tiny"})
    files.write_text(run.config, presets.to_yaml(settings))
    for step in (5, 10):
        add_checkpoint(run, step, settings)
    assert checkpoints.evaluate(run, settings) == 2
    return place, settings


@pytest.fixture
def copied(place: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[rundir.RunDir, Config]:
    """A copy of it, whose further evaluations are not drawn: that takes longer than to measure them."""
    on_ranks.draw_nothing(monkeypatch.setattr)
    shutil.copytree(place[0], tmp_path / "place")
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "place" / "runs"))
    return rundir.RunDir(tmp_path / "place" / "runs" / "run"), place[1]


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


def test_an_excerpt_in_the_middle_of_a_song_keeps_its_beats() -> None:
    """Beats are found over the whole song; in the excerpt they are counted from where it begins."""
    rate, seconds = 22050, 30.0
    random = np.random.default_rng(0)
    time = np.arange(int(rate * seconds)) / rate
    hits = random.standard_normal(len(time)) * np.exp(-30 * ((time - 0.31) % 0.5)) * (time > 0.31)
    made = (0.3 * hits * np.where((time > 13) & (time < 21), 1.0, 0.1))[:, None].astype(np.float32)
    heard = (0.1 * np.sin(2 * np.pi * 220 * time))[:, None].astype(np.float32)
    settings = presets.PRESETS["tiny"]
    excerpt = held_out_songs.read_excerpt(
        held_out_songs.HeldOut("x", "x", "test", lambda: (heard, made, rate)), settings.data, settings.evaluate.seconds
    )
    begins = excerpt.begins / rate
    assert 12 < begins < 19 and excerpt.seconds == pytest.approx(3, abs=0.3)
    assert np.array_equal(excerpt.target, made[excerpt.begins : excerpt.begins + len(excerpt.target)])
    assert excerpt.beats is not None and excerpt.beats.bpm == pytest.approx(120, abs=0.1)
    assert (begins + excerpt.beats.first - 0.31 + 0.125) % 0.25 == pytest.approx(0.125, abs=0.03)
    assert measure(excerpt.target, excerpt.truth).row["lock8"] == pytest.approx(1)


def test_generations_are_averaged_and_validation_songs_only_measured(copied: tuple[rundir.RunDir, Config]) -> None:
    run, settings = copied
    both = records.read(run.evaluations / "step-00000005" / "metrics.json")
    assert [song["name"] for song in both["songs"]] == ["five", "six"]
    assert [song["name"] for song in both["splits"]["valid"]["songs"]] == ["four"]
    assert {path.name[6:] for path in (run.evaluations / "step-00000005" / "audio").iterdir()} == {
        f"{name}-{kind}.flac" for name in ("five", "six") for kind in ("stem", "mix")
    }
    values = [song["output"]["level_error"] for song in both["songs"]]
    assert both["splits"]["test"]["mean"]["level_error"] == pytest.approx(np.mean(values))
    low, high = both["splits"]["test"]["interval"]["level_error"]
    assert low <= both["splits"]["test"]["mean"]["level_error"] <= high
    assert both["splits"]["test"]["absent"]["mmd"].startswith("it needs 8 windows")
    shutil.rmtree(run.evaluations / "step-00000005")
    one_seed = dataclasses.replace(settings, evaluate=dataclasses.replace(settings.evaluate, seeds=1))
    checkpoints.evaluate(run, one_seed)
    one = records.read(run.evaluations / "step-00000005" / "metrics.json")
    assert one["splits"]["test"]["mean"] != both["splits"]["test"]["mean"]


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
            tags = flac.read_tags(path)
            assert tags["BEGIN_SAMPLE"] == str(begin) and float(tags["BEGIN_SECONDS"]) == pytest.approx(begin / 22050, abs=1e-6)
            assert float(tags["GAIN"]) == pytest.approx(record["gain"]) and float(tags["GAIN_DB"]) == record["gain_db"]


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
    assert changed == {"baselines.json", "ranking.json"}
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
    checkpoints.evaluate(run, settings)
    assert "warning: the checkpoint of step 15: " in capsys.readouterr().err
    assert rundir.is_evaluation(run.evaluations / "step-00000020")
    assert not (run.evaluations / "step-00000015").exists()
    assert not folder.exists() and (run.checkpoints / "damaged-step-00000015").is_dir()
    with pytest.raises(ValueError, match="no checkpoint of step 15"):
        checkpoints.evaluate(run, settings, [15])


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
    assert checkpoints.evaluate(run, settings, [5]) == 0
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
    assert known["missing"]["rock grid, known beats"] == "the stem has a pitch: drums would not be it"
    assert known["rows"]["ceiling"]["mean"]["chroma_correlation"] > known["rows"]["noise hits"]["mean"]["chroma_correlation"]
    assert "pitch" in figures.table({name: one["mean"] for name, one in known["rows"].items()}, pitched=True)


def test_the_command_measures_what_is_asked(copied: tuple[rundir.RunDir, Config], capsys: pytest.CaptureFixture[str]) -> None:
    run, settings = copied
    add_checkpoint(run, 15, settings)
    add_checkpoint(run, 20, settings)
    assert evaluate.main(["run", "--checkpoints", "20", "--json", str(run.path / "figures.json")]) == 0
    shown = capsys.readouterr().out
    assert "| step 20 |" in shown and "| ceiling |" in shown and "step 15" not in shown and "best checkpoint: step" in shown
    assert "absent: distance: it needs 8 windows" in shown
    assert not (run.evaluations / "step-00000015").exists() and run.page.is_file()
    assert set(records.read(run.path / "figures.json")["mean"]) >= {"step 20", "silence"}


def test_the_command_measures_on_other_songs(copied: tuple[rundir.RunDir, Config], capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = copied
    write_songs(run.path.parent.parent / "others", {"test/nine": 4.1, "train/ten": 2.0})
    files.write_json(run.status, {"what": "train"})  # it may train meanwhile
    before = {path: path.read_bytes() for path in (run.status, *run.evaluations.rglob("*.json"))}
    assert evaluate.main(["run", "--checkpoints", "10", "--data", str(run.path.parent.parent / "others")]) == 0
    shown = capsys.readouterr().out
    assert "| step 10 |" in shown and "| loop of another song |" in shown
    (out,) = (run.path / "measured").iterdir()
    assert [song["name"] for song in records.read(out / "step-00000010" / "metrics.json")["songs"]] == ["nine"]
    assert before == {path: path.read_bytes() for path in (run.status, *run.evaluations.rglob("*.json"))}, "the run's own"


def test_other_songs_are_measured_by_one_at_a_time(
    copied: tuple[rundir.RunDir, Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second would remove what the first has just written, or fail at the end where the first has been before it."""
    run, _ = copied
    others = run.path.parent.parent / "others"
    write_songs(others, {"test/nine": 4.1})
    arguments = ["run", "--checkpoints", "10", "--data", str(others)]
    refused = []

    def typed_again(*_: object) -> int:
        with pytest.raises(ValueError) as told:
            evaluate.main(arguments)
        refused.append(str(told.value))
        raise LookupError

    monkeypatch.setattr(checkpoints, "evaluate", typed_again)
    for _ in range(2):  # whoever ended, however, owns nothing
        with pytest.raises(LookupError):
            evaluate.main(arguments)
    (out,) = (run.path / "measured").iterdir()
    said = f"the run run is being measured on the songs in {others} already: process {os.getpid()} on "
    assert len(refused) == 2 and all(said in text and text.endswith(f"its figures come into {out}") for text in refused)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "no run nowhere in"),
        (["run", "--checkpoints", "7"], r"no checkpoint of step 7 in .*: there are 5, 10"),
        (["run", "--data", "/nowhere"], "no folder /nowhere"),
        (["run", "--mixes"], "--mixes and --best-gain only apply to --files"),
        (["run", "--files", "x"], "name a run, or sound files"),
        ([], "name a run, or sound files"),
        (["--files", "x", "--checkpoints", "5"], "need a run"),
    ],
)
def test_wrong_usage_is_said_kindly(
    copied: tuple[rundir.RunDir, Config], arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((ValueError, SystemExit)) as refused:
        evaluate.main(arguments)
    text = str(refused.value)
    if isinstance(refused.value, SystemExit):
        assert refused.value.code == 2
        text = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert re.search(said, text), text


def test_a_run_that_is_running_is_left_alone(copied: tuple[rundir.RunDir, Config]) -> None:
    owner = rundir.own(copied[0])
    with pytest.raises(ValueError, match="is running already"):
        evaluate.main(["run"])
    owner.close()


def sounds(length: int = 44100) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    time = np.arange(length) / 22050
    heard = 0.1 * np.sin(2 * np.pi * 220 * time)
    drums = 0.3 * random.standard_normal(length) * np.exp(-20 * (time % 0.25))
    return {"input": heard, "target": heard + drums, "output": heard + 0.5 * drums}


def lay_out(folder: Path, **changed: Any) -> str:
    """Three folders of one file each; `changed` replaces a sound, None leaves it out, a pair is (sound, rate)."""
    for kind, sound in (sounds() | changed).items():
        (folder / kind).mkdir(parents=True)
        if sound is not None:
            samples, rate = sound if isinstance(sound, tuple) else (sound, 22050)
            soundfile.write(folder / kind / f"a song_{kind}_1.wav", samples, rate, subtype="FLOAT")
    return str(folder) + "/{input,output,target}/*.wav"


def test_files_made_by_anything_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pattern = lay_out(tmp_path / "some files")
    assert evaluate.main(["--files", pattern, "--mixes", "--json", str(tmp_path / "found.json")]) == 0
    found = records.read(tmp_path / "found.json")
    rows = found["songs"]["a song_1"]
    assert set(rows) == {"copy the input", "ceiling", "output"}, "silence is no mix"
    assert 0 < rows["output"]["mix_l1"] < rows["copy the input"]["mix_l1"] and rows["output"]["lock8"] is None
    shown = capsys.readouterr().out
    assert "the files hold mixes, in which the stem is not known" in shown
    assert evaluate.main(["--files", pattern, "--best-gain", "--json", str(tmp_path / "found.json")]) == 0
    rows = records.read(tmp_path / "found.json")["songs"]["a song_1"]
    assert set(rows) == {"copy the input", "silence", "ceiling", "output"}


def test_one_gain_makes_up_for_another_level(tmp_path: Path) -> None:
    target = sounds()["target"]
    pattern = lay_out(tmp_path / "f", output=0.1 * target)
    for arguments, expected in (([], pytest.approx(20, abs=0.2)), (["--best-gain"], pytest.approx(0, abs=0.01))):
        evaluate.main(["--files", pattern, "--json", str(tmp_path / "found.json"), *arguments])
        assert records.read(tmp_path / "found.json")["mean"]["output"]["stem_l1"] == expected


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"output": None}, "no file matches .*output"),
        ({"target": np.zeros(44100)}, "a song_target_1.wav is silent: there is nothing to measure .*output"),
        ({"output": sounds(44000)["output"]}, "differ in length in samples: .*44100.*44000"),
        ({"output": (sounds()["output"], 44100)}, "differ in rate in Hz: .*22050.*44100"),
        ({"output": np.full(44100, np.nan)}, "contains NaN or infinite samples"),
        ({"target": np.zeros(0), "input": np.zeros(0), "output": np.zeros(0)}, "no samples"),
    ],
)
def test_files_that_can_not_be_measured_are_named(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        evaluate.main(["--files", lay_out(tmp_path / "f", **changed)])


def test_names_that_are_equal_in_all_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    """A folder's own word is left out of a name only where the names differ in it."""
    titles = ("output", "on target", "on")
    for folder in audio_files.FOLDERS:
        (tmp_path / folder).mkdir()
        for title in titles:
            (tmp_path / folder / f"{title}.wav").touch()
    found = audio_files.find_triples(str(tmp_path) + "/{input,output,target}/*.wav")
    assert set(found) == set(titles)
    assert all(paths[folder] == tmp_path / folder / f"{key}.wav" for key, paths in found.items() for folder in paths)


def test_what_is_there_as_it_is_written_is_no_pattern(tmp_path: Path) -> None:
    """Folders and files are called so, too: brackets, stars and braces are for patterns only where nothing has that name."""
    home = tmp_path / "takes [live] {old}" / "*"
    for folder in audio_files.FOLDERS:
        (home / "deep" / folder).mkdir(parents=True)
        for title in ("a [1]", "a 1", "b2"):
            (home / "deep" / folder / f"{title}.wav").touch()
        (home / "deep" / folder / "c.wav").mkdir()
    other = tmp_path / "takes l {old}" / "*" / "deep" / "input"
    other.mkdir(parents=True)
    (other / "x.wav").touch()
    for pattern, titles in {
        "*/deep/{input,output,target}/*.wav": {"a [1]", "a 1", "b2"},
        "*/deep/{input,output,target}/a [1].wav": {"a [1]"},
        "*/deep/{input,output,target}/[a-b]?[1].wav": {"a 1"},
        "**/{input,output,target}/b[0-9].wav": {"b2"},
        "*/deep/**/{input,output,target}/b2.wav": {"b2"},
    }.items():
        assert set(audio_files.find_triples(f"{tmp_path}/takes [live] {{old}}/{pattern}")) == titles, pattern
    with pytest.raises(ValueError, match="no file matches"):
        audio_files.find_triples(f"{tmp_path}/takes [dead]/{{input,output,target}}/*.wav")


def test_lists_that_do_not_match_are_named(tmp_path: Path) -> None:
    pattern = lay_out(tmp_path / "f")
    soundfile.write(tmp_path / "f" / "output" / "more.wav", sounds()["output"], 22050)
    with pytest.raises(ValueError, match=r"more\.wav has no input and no target of the same name \(more\)"):
        evaluate.main(["--files", pattern])
    (tmp_path / "f" / "output" / "more.wav").unlink()
    (tmp_path / "f" / "target" / "a song_target_1.wav").write_bytes(b"not sound")
    with pytest.raises(ValueError, match="can't be read as audio"):
        evaluate.main(["--files", pattern])
    with pytest.raises(ValueError, match="write it in quotes"):
        evaluate.main(["--files", "a/*.wav"])


def test_best_is_the_checkpoint_that_was_named(tmp_path):
    run = rundir.RunDir(tmp_path / "runs" / "run")
    with pytest.raises(ValueError, match="evaluate it first"):
        figures.steps_of(run, ("best",))
    (run.checkpoints / rundir.step_name(60)).mkdir(parents=True)
    files.write_json(run.best, {"step": 60, "score": 0.5, "chosen_on": "test", "note": ""})
    assert figures.steps_of(run, ("best", 30, 60)) == (60, 30) and figures.steps_of(run, ()) == ()

"""The starter model that comes with the package: found without a run, small, safe to load, and it plays."""

from __future__ import annotations

import json
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import safetensors.torch
import torch

from p2p_dist.audio import decode
from p2p_dist.cli import generate
from p2p_dist.common import files, records
from p2p_dist.common.files import DamagedError
from p2p_dist.generate import drummer, exported, exported_config, song
from p2p_dist.generate.exported_config import STARTER_FOLDER
from p2p_dist.generate.model import find_model
from p2p_dist.generate.request import Options
from tests.generate import drums
from tests.generate.conftest import run, runs, write
from tests.generate.made import STEP, made, read

__all__ = ["run", "runs"]

CHECKOUT = Path(__file__).resolve().parents[2]
LARGEST = 8e6  # bytes


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation without runs, and a song."""
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    write(Path("song.wav"), np.stack([drums.chords(9.0), 0.8 * drums.chords(9.0)], axis=1), drums.RATE)
    return tmp_path


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the starter in its place, to be damaged."""
    folder = tmp_path / "copied"
    shutil.copytree(STARTER_FOLDER, folder)
    monkeypatch.setattr(exported_config, "STARTER_FOLDER", folder)
    return folder


def test_it_is_small_and_part_of_the_package() -> None:
    there = {path.name: path.stat().st_size for path in STARTER_FOLDER.iterdir()}
    assert there.keys() == {"README.md", "config.json", *exported_config.DRUMMER} and sum(there.values()) <= LARGEST
    listed = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert f"{STARTER_FOLDER.name}/*" in listed["p2p_dist.generate"]
    weights = safetensors.torch.load_file(STARTER_FOLDER / drummer.PATTERN)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}


def test_it_learnt_only_from_songs_that_allow_it_and_its_card_names_them() -> None:
    content, card = exported_config.read_config(STARTER_FOLDER), (STARTER_FOLDER / "README.md").read_text()
    licences = {"EVR - ": "CC0 1.0", "freedoom - ": "BSD 3-Clause", "composed ": "MIT"}
    for one in content["trained_on"]:
        (licence,) = (licence for named, licence in licences.items() if one["name"].startswith(named))
        assert one["licence"] == licence and one["name"] != "EVR - Caesium"
        assert f"| {one['name']} | {one['author']} | {licence} |" in card
    assert "Redistributions in binary form must reproduce" in card and "It was not measured" not in card
    loaded = find_model("starter").drummer
    assert loaded is not None and "freedoom" not in " ".join(loaded.bank.kits)
    assert f"kits of strokes are of the songs {', '.join(sorted(loaded.bank.kits))}." in card


def test_it_is_the_model_where_there_is_no_run(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("song.wav").read_bytes()
    assert generate.main(["song.wav"]) == 0
    stem, mix, rate, record = made(Path("generated/song"))
    heard, _ = read("song.wav")
    assert rate == drums.RATE and stem.shape == heard.shape and np.abs(mix - stem - heard).max() <= STEP * 1.001
    assert np.abs(stem).max() > 0.01 and np.array_equal(stem[:, 0], stem[:, 1]) and Path("song.wav").read_bytes() == before
    assert record["model"]["name"].startswith("starter@") and record["model"]["sha256"] == find_model(None).sha256
    assert record["tempo"]["bpm"] == pytest.approx(120, abs=0.1)
    assert "if the song's beats are between these: --half-beat" in " ".join(record["notes"])
    assert "starter@" in Path("generated/song/index.html").read_text()
    notes = [event.note for event in mido.MidiFile("generated/song/song-drums.mid") if event.type == "note_on"]
    loaded = find_model(None).drummer
    assert loaded is not None
    source = decode.look(Path("song.wav"))
    loudest = float(np.abs(heard).max())
    performance = loaded.play(lambda: (block[:, 0] for block in source.heard(44100, 1)), 44100, loudest, "song", 1.0)
    assert sorted(notes) == sorted(hit.note for hit in performance.hits(0)) and {36, 38} <= set(notes)
    assert capsys.readouterr().out.startswith("model: starter@")


def test_the_same_seed_plays_the_same_to_the_bit(alone: Path) -> None:
    found = []
    for seed in ("7", "7", "8"):
        assert generate.main(["song.wav", "--seed", seed, "--to", "5", "--overwrite"]) == 0
        found.append(Path("generated/song/song-drums.flac").read_bytes())
    assert found[0] == found[1] != found[2]


def test_the_listener_decides_over_beats_and_density() -> None:
    drummer = find_model("starter").drummer
    assert drummer is not None
    song = drums.chords(9.0)
    stems = {
        options: drummer.play(lambda: iter([song]), drums.RATE, 0.4, "song", 1.0, options).sketch(0).part(0, 9 * 44100)
        for options in (
            Options(),
            Options(half_beat=True),
            Options(bpm=90),
            Options(first_beat=0.22),
            Options(density=0.3),
        )
    }
    assert len({stem.tobytes() for stem in stems.values()}) == len(stems)
    strokes = [np.count_nonzero(stem) for stem in stems.values()]
    assert strokes[-1] < strokes[0], "fewer strokes, more silence"


def test_its_name_is_enough_and_runs_come_first(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_model(None).name == "band@20"
    model = find_model("starter")
    assert model.name.startswith("starter@") and model.weights is None and model.generator(torch.device("cpu")) is None
    assert exported.read_exported(STARTER_FOLDER).sha256 == model.sha256
    monkeypatch.setenv("P2P_RUNS", str(runs.path.parent))
    shutil.copytree(runs.path, runs.path.with_name("starter"))
    try:
        assert find_model("starter").name == "starter@20", "a run of that name"
    finally:
        shutil.rmtree(runs.path.with_name("starter"))


def test_another_task_needs_a_model_of_ones_own(alone: Path) -> None:
    for words in (["--task", "bass"], ["--task=bass"]):
        with pytest.raises(
            ValueError, match=r"the starter makes drums; for others train one \(.*submit.* --task bass --data DIR"
        ):
            generate.main(["song.wav", *words])


def test_jobs_find_it_in_their_own_copy_of_the_package(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["song.wav", "--cluster", "slurm", "--dry-run"]) == 0
    assert "model: starter@" in capsys.readouterr().out and not (alone / "runs").exists()
    for name in (None, "starter"):
        found = generate._find(name)
        assert (found.asked, found.folder, found.sha256) == ("starter", None, find_model(found.asked).sha256)
        assert found.settings.model.sketch and found.settings.data.task == "drums"


def test_a_song_too_short_for_a_tempo_is_refused_with_what_to_do(alone: Path) -> None:
    write(Path("short.wav"), drums.chords(2.0), drums.RATE)
    with pytest.raises(ValueError, match=r"short\.wav: 2\.0 s are too short to hear a tempo: name one with --bpm, and"):
        generate.main(["short.wav"])
    assert not Path("generated/short").exists()
    with pytest.raises(ValueError, match=r"--first-beat 2\.1 is after the end of short\.wav"):
        generate.main(["short.wav", "--bpm", "120", "--first-beat", "2.1"])
    with pytest.raises(ValueError, match=r"--first-beat 2\.1 is after"):
        generate.main(["short.wav", "--from", "1", "--bpm", "120", "--first-beat", "2.1"])
    assert generate.main(["short.wav", "--from", "1", "--bpm", "120", "--first-beat", "1.5", "--out", "part"]) == 0
    assert generate.main(["short.wav", "--bpm", "120", "--first-beat", "0.1"]) == 0
    stem, *_, record = made(Path("generated/short"), "short")
    assert np.abs(stem).max() > 0.01 and not any("padded" in note for note in record["notes"])


def test_where_there_is_nothing_to_play_it_says_what_to_do(alone: Path) -> None:
    source = decode.look(Path("song.wav"))
    source.samples = 9 * drums.RATE
    model, one = find_model(None), drums.chords(9.0)
    assert model.drummer is not None
    plays = model.drummer.play(lambda: iter([one]), drums.RATE, 0.4, "song", 1.0)
    song._check_can_play(plays, source, Options())
    with pytest.raises(ValueError, match=r"song\.wav: no beats were heard: name one with --bpm, and a beat with --first-beat"):
        song._check_can_play(replace(plays, heard=replace(plays.heard, beats=None)), source, Options())
    for options, cure in ((Options(), "name the tempo with --bpm, or another"), (Options(bpm=90), "name another tempo")):
        with pytest.raises(ValueError, match=f"found nothing to play: {cure}"):
            song._check_can_play(replace(plays, onsets=[]), source, options)


def damage(name: str) -> Any:
    def apply(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return apply


def other_strokes(folder: Path) -> None:
    """Strokes of somebody else, and a drummer.json that describes them."""
    (folder / drummer.STROKES).write_bytes(b"x" * 100)
    record = records.read(folder / drummer.NAME)
    record["files"][drummer.STROKES] = {"bytes": 100, "sha256": files.sha256_file(folder / drummer.STROKES)}
    files.write_json(folder / drummer.NAME, record)


def change(**values: Any) -> Any:
    def apply(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        files.write_json(folder / "config.json", {**content, **values})

    return apply


DAMAGES = {
    "no folder": (shutil.rmtree, "no such folder"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "no drummer": (lambda folder: (folder / "drummer.json").unlink(), "drummer.json is missing"),
    "weights": (damage(drummer.PATTERN), "are damaged"),
    "strokes": (damage(drummer.STROKES), "are damaged"),
    "strokes of others": (other_strokes, "drummer.json has .* bytes|drummer.json is damaged"),
    "a sample rate": (change(stem={"made_of": "strokes", "sample_rate": 10**9}), "sample_rate is 1000000000"),
    "a large record": (change(drummer={"bytes": 1 << 20, "sha256": "0" * 64}), "drummer.bytes is 1048576"),
    "another task": (change(task={"name": "bass"}), "task.name is"),
    "what it plays": (change(stem={"made_of": "code", "sample_rate": 44100}), "stem.made_of is"),
    "a later schema": (change(schema=99), "schema 99"),
    "another format": (change(format="other"), "another kind of model"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_installation_is_told_in_one_sentence(copy: Path, alone: Path, name: str) -> None:
    apply, why = DAMAGES[name]
    apply(copy)
    with pytest.raises(DamagedError, match=f"the starter model of this installation can't be used .*{why}.*install p2p_dist"):
        generate.main(["song.wav"])
    if name not in ("weights", "strokes"):  # which jobs read
        with pytest.raises(DamagedError, match="install p2p_dist again, or name a model with --model"):
            generate._find(None)


def test_a_folder_of_others_like_it_is_a_model_and_never_unpickled(tmp_path: Path, alone: Path) -> None:
    folder = tmp_path / "theirs"
    shutil.copytree(STARTER_FOLDER, folder)
    assert find_model(str(folder)).sha256 == find_model(None).sha256
    assert generate._find(str(folder)).folder == folder
    torch.save({"first.weight": torch.zeros(1)}, folder / drummer.PATTERN)
    record = records.read(folder / drummer.NAME)
    path = folder / drummer.PATTERN
    record["files"][path.name] = {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)}
    files.write_json(folder / drummer.NAME, record)
    about = {"bytes": (folder / drummer.NAME).stat().st_size, "sha256": files.sha256_file(folder / drummer.NAME)}
    change(drummer=about)(folder)
    with pytest.raises(DamagedError, match="does not hold a pattern network") as raised:
        find_model(str(folder))
    assert "install" not in str(raised.value)
    exported.check_out(folder, overwrite=True)

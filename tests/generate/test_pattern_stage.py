"""The stage that trains the drummer and sketches the training songs: what it makes, and that a stop changes nothing."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from p2p_dist.audio import drum_classes, layouts, pattern_features, strokes
from p2p_dist.audio.drum_classes import Onset
from p2p_dist.audio.layouts import Source
from p2p_dist.audio.pattern_features import beat_positions
from p2p_dist.common import files, records, schemas
from p2p_dist.data import guides, manifest, pairs, shards
from p2p_dist.data.index import Index
from p2p_dist.data.song_record import KeyedSong
from p2p_dist.generate import drummer, pattern_measures, pattern_stage, sketch
from p2p_dist.jobs import estimate, stage_process, stages
from p2p_dist.jobs.slurm import batch
from p2p_dist.model.pattern import predict
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import presets, science
from p2p_dist.settings.config import Config
from tests.generate import drums

KEYS = {name: KeyedSong(Source(name, "train", Path(name))).key for name in ("a", "b", "c", "silent")}

SECONDS, BPM = 8.0, 120.0


def write_song(folder: Path, number: int, beats: bool = True, bpm_of_chords: float = BPM) -> None:
    """Kick on the beats, a hat between them, all 0.1 s late, over chords; or chords alone."""
    random = np.random.default_rng(number)
    rate = drums.RATE
    time = np.arange(round(0.15 * rate)) / rate
    sound = np.zeros(round(SECONDS * rate))
    for beat in np.arange(0.1, SECONDS - 0.6, 60 / BPM):
        kick, hat = round(beat * rate), round((beat + 0.25) * rate)
        sound[kick : kick + len(time)] += np.exp(-25 * time) * np.sin(2 * np.pi * 60 * time)
        sound[hat : hat + len(time)] += 0.2 * np.exp(-60 * time) * np.diff(random.standard_normal(len(time) + 1))
    silence = np.zeros(len(sound))
    chords = drums.chords(SECONDS, bpm_of_chords)
    folder.mkdir(parents=True)
    for stem, one in {"drums": 0.5 * sound * beats, "bass": chords, "other": silence, "vocals": silence}.items():
        soundfile.write(folder / f"{stem}.wav", one, rate, subtype="FLOAT")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    """Songs, their shards, and the settings of runs over them."""
    place = tmp_path_factory.mktemp("pattern")
    for number, name in enumerate(("train/a", "train/b", "train/c", "test/d", "train/silent")):
        write_song(place / "songs" / name, number, beats=name != "train/silent")
    base = presets.PRESETS["tiny"]
    settings = dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, root=str(place / "songs")),
        model=dataclasses.replace(base.model, sketch=True, beat_phase=True, residual=True),
        train=dataclasses.replace(base.train, pattern_steps=3, predicted_strokes=True),
    )
    assert shards.preprocess(place / "songs", place / "shards" / "d", settings.data, 1) == []
    return place, settings


def new_run(prepared: tuple[Path, Config], name: str) -> RunDir:
    place, settings = prepared
    run = RunDir(place / "runs" / name)
    files.write_json(run.dataset, {"schema": 1, "name": "d", "training": "of these songs"})
    files.write_text(run.config, presets.to_yaml(settings))
    return run


@pytest.fixture(scope="module")
def made(prepared: tuple[Path, Config]) -> RunDir:
    run = new_run(prepared, "made")
    assert stages.is_done("pattern", run) is None
    pattern_stage.make(run, prepared[1], workers=1)
    return run


def content(run: RunDir) -> dict[str, bytes]:
    found = [path for name in ("guides", "networks") for path in (run.pattern / name).iterdir()]
    return {path.name: path.read_bytes() for path in [*found, *(p for p in run.pattern.iterdir() if p.is_file())]}


def test_every_training_song_is_sketched_in_all_variants(made: RunDir, prepared: tuple[Path, Config]) -> None:
    found, data = guides.Guides(made.guides), prepared[1].data
    assert sorted(found.songs) == [KEYS["a"], KEYS["b"], KEYS["c"], KEYS["silent"]]
    assert found.variants == guides.TRUE + guides.PREDICTED
    assert records.read(made.guides / guides.NAME)["training"] == "of these songs"
    index = Index(made.shards, "train")
    numbers, windows = index.samples.originals_of(KEYS["b"])
    for number, window in list(zip(numbers, windows, strict=True))[2:20:5]:
        target = index.read(np.array([number]))[0, 1, 0].astype(float)
        for variant in range(guides.TRUE):
            rows = found.read(KEYS["b"], variant, window * data.window_hop, data.frames).astype(float)
            alike = np.corrcoef(np.diff(target).clip(0).mean(0), np.diff(rows[:, :-2].T).clip(0).mean(0))[0, 1]
            assert alike > 0.6, "the true strokes, at their times"
            assert abs(target.max() - rows[:, :-2].max()) < 8, "as loud as the drums"
            times = (window * data.window_hop + np.arange(data.frames)) * data.hop_length / data.sample_rate
            angle = 2 * np.pi * (times - 0.1) / (60 / BPM)
            place = np.stack([np.sin(angle), np.cos(angle)], axis=1)
            assert min(np.abs(rows[:, -2:] - sign * place).max() for sign in (1, -1)) < 0.5, "on the beat, or on the off-beat"
    silent = [found.read(KEYS["silent"], variant, 0, 600)[:, :-2] for variant in range(found.variants)]
    assert all((rows == pairs.FLOOR).all() for rows in silent), "a kit without strokes is silent"
    variants = [found.read(KEYS["b"], variant, 0, 600) for variant in range(found.variants)]
    assert not any(np.array_equal(one, other) for n, one in enumerate(variants) for other in variants[n + 1 :])


@pytest.mark.parametrize("name", ["on_steps", "even_classes", "repeat_pattern", "soft_hats"])
def test_predicted_strokes_of_a_sketch_are_where_the_settings_say(
    made: RunDir, prepared: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sketch, "_SECTION", 1)  # the song is shorter than 24 s
    settings, (path,) = prepared[1], (made.pattern / "songs").glob(f"{KEYS['b']}-*.npz")
    song = next(one for one in pattern_stage.training_songs(made, settings) if one.key == KEYS["b"])
    weights = pattern_stage._stored(made.pattern / "pattern.safetensors")
    found = []
    for value in (False, True):
        config = dataclasses.replace(settings, model=dataclasses.replace(settings.model, **{name: value}))
        pattern_stage.sketch_song(tmp_path, song, path, config, np.array([2.0, 1, 2, 0, 4]), weights)
        rows = np.frombuffer((tmp_path / guides.file_name(song.key)).read_bytes(), "<f2")
        found.append(rows.reshape(guides.TRUE + guides.PREDICTED, -1))
    alike = [np.array_equal(one, other) for one, other in zip(*found, strict=True)]
    assert alike == [True] * guides.TRUE + [False] * guides.PREDICTED


def test_kits_are_of_loud_strokes_but_for_runs_of_earlier_versions(prepared: tuple[Path, Config], tmp_path: Path) -> None:
    """The place must differ, since a folder of songs may serve both; that of earlier versions must stay."""
    settings, song = prepared[1], KeyedSong(layouts.source_at(prepared[0] / "songs" / "train" / "b", "train"))
    first: list[bool] = []
    for loud in (False, True):
        config = dataclasses.replace(settings, train=dataclasses.replace(settings.train, loud_strokes=loud))
        path = pattern_stage.place_of(tmp_path, song, config)
        before = files.digest([song.stamp, science.recorded(config.data)])[:12]
        assert (path.name == f"{song.key}-{before}.npz") == (not loud)
        pattern_stage.prepare(song, path, config)
        (kit,) = strokes.load(path.with_suffix(".kit")).kits.values()
        hats = [stroke.strength for stroke in kit.strokes["hat"]]
        first.append(min(hats[: len(hats) // 2]) >= max(hats[(len(hats) + 1) // 2 :]))
    assert first == [False, True] and len(hats) > 5


def test_true_strokes_are_on_the_beats_of_the_drums_and_predicted_ones_on_those_that_are_heard(
    prepared: tuple[Path, Config], tmp_path: Path
) -> None:
    """A generator that learnt with true beats beside predicted strokes would be misled by those that it hears."""
    settings, path = prepared[1], tmp_path / "song.npz"
    write_song(tmp_path / "two", 5, bpm_of_chords=94.0)
    song = KeyedSong(layouts.source_at(tmp_path / "two", "train"))
    assert pattern_stage.prepare(song, path, settings)
    known = pattern_stage.read(path)
    assert known.heard.beats and known.heard.beats.bpm == pytest.approx(94, rel=0.01)
    assert known.true.beats and known.true.beats.bpm == pytest.approx(BPM, rel=0.01)
    weights = drums.drummer(settings.data, settings.model).network.state_dict()
    pattern_stage.sketch_song(tmp_path, song, path, settings, np.ones(5), weights)
    rows = np.frombuffer((tmp_path / guides.file_name(song.key)).read_bytes(), "<f2").astype(float)
    rows = rows.reshape(guides.TRUE + guides.PREDICTED, known.frames, -1)
    times = np.arange(known.frames) * settings.data.hop_length / settings.data.sample_rate
    for number, shown in enumerate(rows):
        places = 2 * np.pi * beat_positions((known.true if number < guides.TRUE else known.heard).beats, times)
        np.testing.assert_allclose(shown[:, -2:].T, [np.sin(places), np.cos(places)], atol=2e-3)


def test_a_sketch_has_the_level_of_its_kit_and_predicted_strokes_are_its_loudest(
    made: RunDir, prepared: tuple[Path, Config], tmp_path: Path
) -> None:
    settings, (known,) = prepared[1], (made.pattern / "songs").glob(f"{KEYS['b']}-*.npz")
    path, song = tmp_path / "song.npz", KeyedSong(Source("b", "train", Path("b")))
    shutil.copy(known, path)
    time = np.arange(round(0.2 * strokes.RATE)) / strokes.RATE
    quiet, loud = (
        strokes.Stroke((strength * np.exp(-20 * time) * np.sin(2 * np.pi * tone * time)).astype(np.float32), strength)
        for strength, tone in ((0.5, 100), (1.0, 4000))
    )
    weights, found = drums.drummer(settings.data, settings.model).network.state_dict(), []
    for offset in (0.0, -20.0):
        kit = strokes.Kit({kind: [quiet] * 16 + [loud] * 16 for kind in pattern_stage.CLASSES}, (1.0,) * 5, offset)
        strokes.save(path.with_suffix(".kit"), strokes.Bank({song.key: kit}))
        pattern_stage.sketch_song(tmp_path, song, path, settings, np.ones(5), weights)
        rows = np.frombuffer((tmp_path / guides.file_name(song.key)).read_bytes(), "<f2").astype(float)
        found.append(rows.reshape(guides.TRUE + guides.PREDICTED, -1, settings.data.mels + 2)[:, :, :-2])
    first, lower = found
    np.testing.assert_allclose(lower.max(axis=(1, 2)), first.max(axis=(1, 2)) - 20, atol=0.5)
    low, high = first[:, :, :3].max(axis=(1, 2)), first[:, :, 20:].max(axis=(1, 2))
    assert (low[: guides.TRUE] > high[: guides.TRUE] - 10).all(), "all of the kit"
    assert (low[guides.TRUE :] < high[guides.TRUE :] - 20).all()


def test_predicted_strokes_come_from_the_network_that_did_not_see_the_song(
    made: RunDir, prepared: tuple[Path, Config], tmp_path: Path
) -> None:
    paths = sorted((made.pattern / "networks").iterdir())
    assert [path.name.split("-")[0] for path in paths] == ["all", "even", "odd"]
    nets = [path.read_bytes() for path in paths]
    assert len(set(nets)) == 3
    assert (made.pattern / "pattern.safetensors").stat().st_size == len(nets[0])
    settings = prepared[1]
    rates = drummer.load(made.pattern, settings.data, settings.model).bank.rates
    songs = pattern_stage.training_songs(made, settings)
    known = {song.key: pattern_stage.place_of(made.pattern / "songs", song, settings) for song in songs}
    playing = [song for song in songs if pattern_stage.read(known[song.key]).onsets]
    for number, song in enumerate(playing):
        as_made = (made.guides / guides.file_name(song.key)).read_bytes()
        alike = []
        for path in paths[1:]:
            pattern_stage.sketch_song(tmp_path, song, known[song.key], settings, rates, pattern_stage._stored(path))
            alike.append((tmp_path / guides.file_name(song.key)).read_bytes() == as_made)
        assert alike == [number % 2 == 1, number % 2 == 0], "every second song is of the half `odd`"


def test_without_predicted_strokes_there_is_one_network_and_true_sketches_alone(
    made: RunDir, prepared: tuple[Path, Config]
) -> None:
    settings = dataclasses.replace(prepared[1], train=dataclasses.replace(prepared[1].train, predicted_strokes=False))
    run = new_run((prepared[0], settings), "true")
    pattern_stage.make(run, settings, workers=1)
    (network,) = (run.pattern / "networks").iterdir()
    assert network.read_bytes() == (made.pattern / "networks" / network.name).read_bytes() and network.name[:4] == "all-"
    found, both = guides.Guides(run.guides), guides.Guides(made.guides)
    assert found.variants == guides.TRUE < both.variants
    for variant in range(guides.TRUE):
        alike = (one.read(KEYS["b"], variant, 0, 600) for one in (found, both))
        assert np.array_equal(*alike), "and a training that takes these alone is the same to the bit"
    check_room(run, settings)


def test_a_drummer_is_left_that_plays_to_other_songs(made: RunDir, prepared: tuple[Path, Config]) -> None:
    settings = prepared[1]
    found = drummer.load(made.pattern, settings.data, settings.model)
    assert set(found.bank.kits) == {KEYS["a"], KEYS["b"], KEYS["c"]}
    song = drums.chords(6.0, 100)
    performance = found.play(lambda: iter([song]), drums.RATE, 0.4, "new", 1.0)
    assert performance.onsets and performance.guide(0).rows(0, 400)[:, :-2].max() > -60, "not silent"
    assert stages.is_done("pattern", made) == "training songs are sketched"
    finished = sorted(path.name for path in (made.pattern / "finished").iterdir())
    songs, networks = (sorted(path.stem for path in (made.pattern / where).glob("*")) for where in ("songs", "networks"))
    assert [name for name in finished if not name.startswith("sketch-")] == [
        *(f"network-{name}-3" for name in networks),
        *(f"song-{name}" for name in dict.fromkeys(songs)),
    ]
    assert {name.rpartition("-")[0] for name in finished if name.startswith("sketch-")} == {
        f"sketch-{key}" for key in KEYS.values()
    }


def test_it_takes_the_room_that_is_said_before(made: RunDir, prepared: tuple[Path, Config]) -> None:
    check_room(made, prepared[1])


def check_room(run: RunDir, settings: Config) -> None:
    trained = len(Index(run.shards, "train"))
    said = estimate.pattern_bytes(settings, trained, len(KEYS))
    taken = sum(path.stat().st_size for path in run.pattern.rglob("*") if path.is_file())
    state = 3 * estimate.PATTERN_NETWORK  # removed at the end
    assert 0.5 * said < taken + state < 1.1 * said


def test_stopped_anywhere_and_started_again_it_makes_the_same(
    made: RunDir, prepared: tuple[Path, Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after each piece of work, in the middle of a training too: bit for bit."""
    run, calls = new_run(prepared, "stopped"), 0
    monkeypatch.setattr(pattern_stage, "_SAVE_EVERY", 2)
    honest = {name: getattr(pattern_stage, name) for name in ("prepare", "sketch_song", "train_pattern")}

    def until(stop: int, name: str) -> Any:
        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            if name == "train_pattern":
                songs, steps, seed, state, on_step = arguments

                def stopping(training: Any, loss: float) -> bool:
                    nonlocal calls
                    calls += 1
                    go_on = on_step(training, loss)
                    if calls == stop:
                        raise KeyboardInterrupt
                    return bool(go_on)

                return honest[name](songs, steps, seed, state, stopping)
            calls += 1
            result = honest[name](*arguments, **named)
            if calls == stop:
                raise KeyboardInterrupt
            return result

        return counted

    for stop in (2, 6, 6, 8, 8):  # a song; steps of each network, saved and not saved; a sketch
        calls = 0
        for name in honest:
            monkeypatch.setattr(pattern_stage, name, until(stop, name))
        with pytest.raises(KeyboardInterrupt):
            pattern_stage.make(run, prepared[1], workers=1)
        assert stages.is_done("pattern", run) is None
    for name, function in honest.items():
        monkeypatch.setattr(pattern_stage, name, function)
    pattern_stage.make(run, prepared[1], workers=1)
    assert content(run).keys() == content(made).keys()
    one, other = content(run), content(made)
    assert not [name for name in one if one[name] != other[name]]


@pytest.mark.parametrize("name", ["songs/*.npz", "songs/*.kit", "networks/all-*", "networks/training.safetensors"])
def test_what_is_damaged_is_made_again(made: RunDir, prepared: tuple[Path, Config], name: str) -> None:
    run = new_run(prepared, f"damaged-{name[:3]}-{name[-5:].strip('*.-')}")
    shutil.copytree(made.pattern, run.pattern)
    if name.endswith("training.safetensors"):
        for network in (run.pattern / "networks").glob("all-*"):
            network.rename(run.pattern / name)
    damaged = list(run.pattern.glob(name))
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-50])
    before, _ = batch._progress("pattern", run.path)
    pattern_stage.make(run, prepared[1], workers=1)
    after, _ = batch._progress("pattern", run.path)
    assert after == before + len(damaged), "a job that makes pieces again makes progress"
    pattern_stage.make(run, prepared[1], workers=1)
    assert batch._progress("pattern", run.path)[0] == after, "one that makes nothing makes none"
    one, other = content(run), content(made)
    assert one.keys() == other.keys() and not [name for name in one if one[name] != other[name]]


def test_a_network_whose_weights_are_not_finite_is_not_kept(made: RunDir, prepared: tuple[Path, Config]) -> None:
    """It was kept as trained, and refused by whoever read the drummer, after the whole training."""
    run = new_run(prepared, "overflows")
    shutil.copytree(made.pattern / "songs", run.pattern / "songs")
    for path in (run.pattern / "songs").glob("*.npz"):
        with np.load(path) as arrays:
            known = dict(arrays)
        known["features"][0] = np.inf
        np.savez(path, **known)
    with pytest.raises(ValueError, match=r"the pattern network 'all' ended with weights that are not finite .*--train.seed"):
        pattern_stage.make(run, prepared[1], workers=1)
    assert not list((run.pattern / "networks").iterdir())


def test_what_is_known_of_a_song_is_whole_or_not_whatever_is_wrong_with_its_file(made: RunDir, tmp_path: Path) -> None:
    """A way of packing that zipfile does not know was a traceback, and so was a class of strokes that there is not."""
    source = next((made.pattern / "songs").glob(f"{KEYS['a']}-*.npz"))
    path = tmp_path / source.name
    shutil.copy(source.with_suffix(".kit"), path.with_suffix(".kit"))
    content = source.read_bytes()
    path.write_bytes(content)
    assert pattern_stage._is_whole(path)
    packed = content.index(b"PK\x01\x02") + 10  # of the first entry of the list at the end of a zip
    path.write_bytes(content[:packed] + b"\x63" + content[packed + 1 :])
    assert not pattern_stage._is_whole(path)
    with np.load(source) as arrays:
        np.savez(path, **{**arrays, "kinds": np.full_like(arrays["kinds"], 9)})
    assert not pattern_stage._is_whole(path)
    path.write_bytes(content)
    kit = path.with_suffix(".kit")
    kit.write_bytes(kit.read_bytes().replace(b"fLaC", b"fLaX"))  # only who decodes it sees that
    assert not pattern_stage._is_whole(path)


def test_a_song_that_is_not_the_one_in_the_shards_is_refused(prepared: tuple[Path, Config], tmp_path: Path) -> None:
    run, (place, settings) = new_run(prepared, "changed"), prepared
    moved = dataclasses.replace(settings, data=dataclasses.replace(settings.data, root=str(tmp_path / "songs")))
    shutil.copytree(place / "songs", tmp_path / "songs")
    assert len(pattern_stage.training_songs(run, moved)) == 4, "the same songs elsewhere"
    shutil.rmtree(tmp_path / "songs" / "train" / "b")
    write_song(tmp_path / "songs" / "train" / "b", 7)
    with pytest.raises(ValueError, match="training song b is not the one"):
        pattern_stage.training_songs(run, moved)


def test_a_network_of_other_songs_is_not_taken_for_this_one(
    made: RunDir, prepared: tuple[Path, Config], tmp_path: Path
) -> None:
    paths = [path for path in sorted((made.pattern / "songs").glob("*.npz")) if pattern_stage.read(path).onsets]
    trained = [
        pattern_stage.train_network(tmp_path, "all", songs, prepared[1], lambda note, count, piece="": None)
        for songs in (paths[:1], paths, paths[:1])
    ]
    first, second, again = (network.first.weight for network in trained)
    assert not torch.equal(first, second) and torch.equal(first, again)


def test_nothing_is_made_for_a_training_that_would_be_refused(prepared: tuple[Path, Config]) -> None:
    run = new_run(prepared, "overlapping")
    with pytest.raises(ValueError, match="all test songs have the audio of training songs"):
        stage_process.pattern(run, prepared[1])
    assert not run.pattern.exists()


def test_a_dataset_without_training_songs_is_refused(prepared: tuple[Path, Config], tmp_path: Path) -> None:
    write_song(tmp_path / "songs" / "test" / "d", 3)
    settings = dataclasses.replace(prepared[1], data=dataclasses.replace(prepared[1].data, root=str(tmp_path / "songs")))
    shards.preprocess(tmp_path / "songs", tmp_path / "shards" / "d", settings.data, 1)
    run = new_run((tmp_path, settings), "untrained")
    with pytest.raises(ValueError, match="no training songs to sketch"):
        pattern_stage.make(run, settings, workers=1)


def test_a_dataset_of_an_earlier_version_is_refused(prepared: tuple[Path, Config], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its songs have other keys; a converted one, too. It was said that a song was not the one in the shards."""
    run = new_run(prepared, "before")
    content = manifest.read(run.shards)
    monkeypatch.setattr(manifest, "read", lambda _: {**content, "order": "sorted"})
    with pytest.raises(
        ValueError, match=r"made by an earlier version.*model\.sketch, even after --convert: move it to another folder"
    ):
        pattern_stage.training_songs(run, prepared[1])


def test_only_named_songs_give_kits(made: RunDir, prepared: tuple[Path, Config]) -> None:
    run, settings = new_run(prepared, "kits"), prepared[1]
    pattern_stage.make(run, dataclasses.replace(settings, train=dataclasses.replace(settings.train, kits="[bx]*")), workers=1)
    kits = strokes.load(run.pattern / "strokes.safetensors").kits
    assert list(kits) == [KEYS["b"]]
    assert len(strokes.load(made.pattern / "strokes.safetensors").kits) == 3
    same = (run.pattern / "pattern.safetensors").read_bytes() == (made.pattern / "pattern.safetensors").read_bytes()
    assert same, "the others still give patterns"


def test_songs_without_drums_are_refused(prepared: tuple[Path, Config]) -> None:
    empty = strokes.Bank({"a": strokes.Kit({kind: [] for kind in pattern_stage.CLASSES}, (0.0,) * 5, 0.0)})
    path = prepared[0] / "empty.npz"
    strokes.save(path.with_suffix(".kit"), empty)
    with pytest.raises(ValueError, match="no training song has strokes"):
        pattern_stage.bank_of([path])


def test_true_strokes_are_changed_as_a_prediction_may_be_wrong() -> None:
    true = [Onset(number / 10, "kick", 0.1) for number in range(4000)]
    found = list(pattern_stage._changed(true, np.random.default_rng(0)))
    assert {onset.time for onset in found} < {onset.time for onset in true} and {onset.kind for onset in found} == {"kick"}
    assert 0.03 < 1 - len(found) / len(true) < 0.07, "one in twenty is left out"
    assert np.log([onset.strength / 0.1 for onset in found]).std() == pytest.approx(0.2, abs=0.01)
    loud = pattern_stage._changed([Onset(0.0, "kick", 1.0)] * 100, np.random.default_rng(0))
    assert max(onset.strength for onset in loud) == 1.0


def test_a_bank_has_kits_of_several_classes_and_not_too_many(
    prepared: tuple[Path, Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pattern_stage, "KITS", 2)
    paths = []
    for number in range(5):
        (kit,) = drums.bank(1).kits.values()
        if number == 4:  # of one class only
            kit = dataclasses.replace(
                kit, strokes={kind: found if kind == "kick" else [] for kind, found in kit.strokes.items()}
            )
        paths.append(prepared[0] / f"kit-{number}.npz")
        strokes.save(paths[-1].with_suffix(".kit"), strokes.Bank({str(number): kit}))
    assert list(pattern_stage.bank_of(paths).kits) == ["0", "3"], "the first and the last of the usable ones"
    assert list(pattern_stage.bank_of(paths[4:]).kits) == ["4"], "better than none"


def test_the_network_is_measured_on_validation_songs(
    made: RunDir, prepared: tuple[Path, Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They change nothing that is made of the training songs."""
    shutil.copytree(prepared[0] / "songs", tmp_path / "songs")
    for number, name in enumerate(("e", "f", "gone")):
        write_song(tmp_path / "songs" / "valid" / name, 11 + number, bpm_of_chords=94.0)
    write_song(tmp_path / "songs" / "valid" / "silent too", 20, beats=False)
    settings = dataclasses.replace(prepared[1], data=dataclasses.replace(prepared[1].data, root=str(tmp_path / "songs")))
    assert shards.preprocess(tmp_path / "songs", tmp_path / "shards" / "d", settings.data, 1) == []
    shutil.rmtree(tmp_path / "songs" / "valid" / "gone")
    run = new_run((tmp_path, settings), "measured")
    pattern_stage.make(run, settings, workers=1)
    measured = records.read(run.pattern_measures, schemas.PATTERN_MEASURES)
    assert measured["songs"] == ["e", "f"], "those that are there and have drums"
    paths = {
        song.source.name: pattern_stage.place_of(run.pattern / "songs", song, settings)
        for song in pattern_stage.validation_songs(run, settings)
    }
    network = pattern_stage.Pattern()
    network.load_state_dict(pattern_stage._stored(run.pattern / "pattern.safetensors"))
    alike: dict[str, list[float]] = {"hat": [], "all": []}
    for name in ("e", "f"):
        known = pattern_stage.read(paths[name])
        true = drum_classes.activations(known.onsets, known.heard.features.shape[1], pattern_features.FRAME)[:4]
        found = predict(network, known.heard.features)[:4]
        alike["hat"].append(np.corrcoef(true[2], found[2])[0, 1])
        alike["all"].append(np.corrcoef(true.sum(0), found.sum(0))[0, 1])
    assert {kind: measured["heard"][kind] for kind in alike} == pytest.approx({k: np.mean(v) for k, v in alike.items()})
    assert measured["heard"] != measured["true"], "the beats that are heard are at another tempo"
    assert measured["true"]["snare"] is None, "there is no snare in these songs"
    said = capsys.readouterr().out
    assert "pattern network on 2 validation songs: correlation with the true strokes kick " in said and "snare" not in said
    one, other = content(run), content(made)
    one.pop("measures.json")
    assert one.keys() == other.keys() and not [name for name in one if one[name] != other[name]]
    assert not made.pattern_measures.exists(), "no validation song, no measures"


def test_a_network_that_predicts_nothing_has_no_correlation(made: RunDir) -> None:
    known = {key: pattern_stage.read(next((made.pattern / "songs").glob(f"{KEYS[key]}-*.npz"))) for key in ("a", "silent")}
    network = pattern_stage.Pattern()
    for weights in network.parameters():
        torch.nn.init.zeros_(weights)
    found = pattern_measures.measure(network, known.items())
    assert found["songs"] == ["a"] and found["true"]["kick"] == found["heard"]["all"] == 0.0
    assert pattern_measures.measure(network, [("silent", known["silent"])]) == {}, "there is nothing to predict"

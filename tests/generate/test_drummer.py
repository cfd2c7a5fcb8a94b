"""What a drummer hears, decides and plays, and how it is kept."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

from p2p_dist.audio import strokes
from p2p_dist.audio.drum_classes import Onset
from p2p_dist.audio.hits import Hit
from p2p_dist.audio.strokes import frame_powers, input_level, playing_level
from p2p_dist.cli.generate import Command
from p2p_dist.common import files, records
from p2p_dist.common.files import DamagedError
from p2p_dist.data import pairs
from p2p_dist.generate import drummer, sketch
from p2p_dist.generate.request import Options
from p2p_dist.generate.sketch import DENSITY, pick, repeated
from p2p_dist.model.pattern import predict
from p2p_dist.settings.config import Model
from p2p_dist.settings.presets import PRESETS
from tests.generate import drums

DATA = PRESETS["tiny"].data
MODEL = dataclasses.replace(PRESETS["tiny"].model, sketch=True, beat_phase=True)
SONG = drums.chords(9.0)


def heard(**options: float) -> drummer.Heard:
    return drummer.listen(lambda: iter([SONG]), drums.RATE, 0.4, Options(**options))


def test_the_listener_decides_over_beats() -> None:
    alone = heard().beats
    assert alone is not None and alone.bpm == pytest.approx(120, abs=0.1) and alone.first == pytest.approx(0.1, abs=0.01)
    half, other, named, part = (
        one.beats for one in (heard(half_beat=True), heard(bpm=90), heard(first_beat=2.3), heard(first_beat=2.3, begin=2.1))
    )
    assert half is not None and half.first == pytest.approx(alone.first + 0.25, abs=1e-3)
    assert other is not None and other.bpm == pytest.approx(90, rel=0.006)
    assert named is not None and named.first == pytest.approx(0.3, abs=1e-2) and part is not None
    assert part.first == pytest.approx(0.2, abs=1e-2), "seconds of the song, of which a part is used"
    assert alone.others, "what else they may be"


def test_a_song_is_heard_the_same_in_blocks_of_any_size() -> None:
    whole = drummer.listen(lambda: iter([SONG]), drums.RATE, 0.4)
    parts = drummer.listen(lambda: iter(np.array_split(SONG, 37)), drums.RATE, 0.4)
    assert whole.beats is not None and whole.beats == parts.beats
    assert whole.beats.bpm == pytest.approx(120, abs=0.1)
    assert whole.level == input_level(SONG, drums.RATE) == pytest.approx(parts.level, abs=1e-3)
    np.testing.assert_allclose(whole.features, parts.features, atol=1e-5)
    assert np.abs(heard(bpm=90).features - whole.features).max() > 0.1, "the network is told the beats that were asked for"


def play(**options: float) -> drummer.Performance:
    return drums.drummer(DATA, MODEL).play(lambda: iter([SONG]), drums.RATE, 0.4, "song", 2.0, Options(**options))


def test_predicted_strokes_are_on_the_steps_of_the_beats_that_are_heard_or_named() -> None:
    def off(model: Model, **options: float) -> float:
        found = drums.drummer(DATA, model).play(lambda: iter([SONG]), drums.RATE, 0.4, "song", 2.0, Options(**options))
        assert found.heard.beats is not None and len(found.onsets) > 20
        beats = [(one.time - 0.003 - found.heard.beats.first) * found.heard.beats.bpm / 60 for one in found.onsets]
        return min(float(np.abs(np.array(beats) * steps - np.rint(np.array(beats) * steps)).max()) for steps in (4, 6))

    on_steps = dataclasses.replace(MODEL, on_steps=True)
    assert max(off(on_steps), off(on_steps, bpm=97.3), off(on_steps, first_beat=0.17)) < 1e-6 < 0.1 < off(MODEL)
    unheard = drums.drummer(DATA, on_steps).play(lambda: iter([SONG[: 3 * drums.RATE]]), drums.RATE, 0.4, "song", 2.0)
    assert unheard.heard.beats is None and unheard.onsets, "anywhere, where there are no beats"


def test_classes_are_as_even_as_the_model_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketch, "_SECTION", 1)  # the song has 9 s
    found = {}
    for even in (False, True):
        player = drums.drummer(DATA, dataclasses.replace(MODEL, even_classes=even))
        played = player.play(lambda: iter([SONG]), drums.RATE, 0.4, "song", 2.0)
        curves = predict(player.network, played.heard.features)
        found[even] = played.onsets
        assert played.onsets == pick(curves, player.bank.rates, even_classes=even)
    assert found[False] != found[True]


def test_patterns_repeat_and_hats_are_soft_if_the_model_says_so() -> None:
    def played(**settings: bool) -> drummer.Performance:
        player = drums.drummer(DATA, dataclasses.replace(MODEL, **settings))
        return player.play(lambda: iter([SONG]), drums.RATE, 0.4, "song", 2.0)

    plain, repeating, soft = played(), played(repeat_pattern=True), played(soft_hats=True)
    beats = plain.heard.beats
    assert beats is not None
    curves = repeated(predict(repeating.drummer.network, repeating.heard.features), beats)
    assert repeating.onsets == pick(curves, repeating.drummer.bank.rates, even_classes=False) != plain.onsets
    assert [onset for onset in soft.onsets if not onset.soft] == plain.onsets
    assert 0.25 < sum(onset.soft for onset in soft.onsets) / len(plain.onsets) < 0.45
    unheard = drums.drummer(DATA, dataclasses.replace(MODEL, repeat_pattern=True, soft_hats=True))
    found = unheard.play(lambda: iter([SONG[: 3 * drums.RATE]]), drums.RATE, 0.4, "song", 2.0)
    assert found.heard.beats is None and found.onsets, "nothing repeats where there are no beats"


@pytest.mark.parametrize("layer", ["first", "last"])
def test_a_network_whose_output_is_not_finite_is_refused_in_plain_words(layer: str) -> None:
    """All of its weights are finite, so a file may hold them. The message was of a library: "`y` must contain only ..."."""
    broken = drums.drummer(DATA, MODEL)
    with torch.no_grad():
        getattr(broken.network, layer).weight.sign_().mul_(3e38)
    with pytest.raises(ValueError, match=r"the pattern network's output is not finite .*: use another model"):
        broken.play(lambda: iter([SONG]), drums.RATE, 0.4, "song", 2.0, Options())


def test_more_density_is_more_strokes() -> None:
    counts = [len(play(density=density).onsets) for density in (0.2, 0.4, DENSITY)]
    assert counts[0] < counts[1] < counts[2] == len(play().onsets)
    assert f"(default: {DENSITY})" in inspect.getsource(Command), "the help names it, and may not import numpy"


def test_seeds_choose_kits_and_the_same_seed_plays_the_same() -> None:
    performance = play()
    first = [performance.guide(seed).cut(0) for seed in range(4)]
    assert len({tuple(guide.flatten().tolist()) for guide in first}) > 1
    assert torch.equal(first[3], play().guide(3).cut(0))
    kits = {tuple(dataclasses.replace(performance, name=name).guide(0).cut(0).flatten().tolist()) for name in "abcdefgh"}
    assert len(kits) > 1, "another song, another kit"


def test_predicted_strokes_are_played_by_the_loudest_of_the_kit() -> None:
    loud = [strokes.Stroke(np.full(2000, strength, np.float32), float(strength)) for strength in np.linspace(0.05, 1, 20)]
    kit = strokes.Kit({"kick": loud}, (1.0,) * 5, 0.0)
    drums_of_one = dataclasses.replace(drums.drummer(DATA, MODEL), bank=strokes.Bank({"a": kit}))
    onsets = [Onset(n / 2, "kick", 1 - n / 40) for n in range(40)]
    performance = dataclasses.replace(play(), drummer=drums_of_one, onsets=onsets)
    played = [float(np.median(sound)) for _, sound, _ in performance.sketch(0).places]
    assert len(played) == 40 and 0.6 < min(played) < 0.8


def test_notes_are_those_that_the_kit_can_play() -> None:
    performance = play()
    onsets = [Onset(-0.001, "kick", 0.5), Onset(1.25, "hat", 1.0), Onset(1.25, "other", 0.001), Onset(2.0, "snare", 0.25)]
    performance = dataclasses.replace(performance, onsets=onsets)
    assert performance.hits(0) == [Hit(0.0, 36, 64), Hit(1.25, 42, 127), Hit(1.25, 47, 1), Hit(2.0, 38, 32)]
    soft = dataclasses.replace(performance, onsets=[Onset(1.0, "hat", 1.0, soft=True)])
    assert soft.hits(0) == [Hit(1.0, 42, 45)], "18 dB below 127, where 40 log10 of the velocity is the level"
    performance.kit(0).strokes["hat"].clear()
    assert [hit.note for hit in performance.hits(0)] == [36, 47, 38]


def test_a_window_of_the_guide_is_that_of_the_whole_sketch() -> None:
    """As the pictures of a song are cut from one spectrogram of it, with silence before it."""
    performance = play()
    at_once = Onset(0.0, "kick", 1.0)  # its stroke begins before the song, where silence is
    performance = dataclasses.replace(performance, onsets=[at_once, *performance.onsets])
    guide = performance.guide(0)
    samples = len(SONG)
    sound = guide.sketch.part(0, samples)
    power = pairs.powers_of(sound[:, None], DATA.sample_rate, DATA)
    wanted = pairs.to_picture(power, 2.0, "default")[0]
    for start in (0, 3, 300):
        rows = guide.rows(start, DATA.frames)
        assert rows.dtype == np.float16 and rows.shape == (DATA.frames, DATA.mels + 2)
        np.testing.assert_allclose(rows[:, :-2].T, wanted[:, start : start + DATA.frames], atol=0.1)
    assert performance.heard.beats is not None
    beat = 60 / performance.heard.beats.bpm
    times = np.arange(300, 300 + DATA.frames) * DATA.hop_length / DATA.sample_rate
    angle = 2 * np.pi * (times - performance.heard.beats.first) / beat
    np.testing.assert_allclose(rows[:, -2:].T, [np.sin(angle), np.cos(angle)], atol=2e-3)


def test_the_sketch_is_as_loud_beside_the_song_as_drums_beside_theirs() -> None:
    performance = play()
    sound = performance.guide(0).sketch.part(0, len(SONG))
    times = np.array([onset.time for onset in performance.onsets])
    level = playing_level(frame_powers(sound, DATA.sample_rate), times)
    assert level == pytest.approx(input_level(SONG, drums.RATE) - 3.0, abs=1.5)


def test_pictures_of_mid_and_side_have_nothing_at_the_sides() -> None:
    both = dataclasses.replace(DATA, channels="mid-side")
    performance = drums.drummer(both, MODEL).play(lambda: iter([SONG]), drums.RATE, 0.4, "song", 2.0)
    guide = performance.guide(0).cut(40)
    assert guide.shape == (2 + 2, DATA.mels, DATA.frames)
    assert (guide[1] == -1).all() and (guide[0] > -1).any()


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    drummer.save(tmp_path, drums.drummer(DATA, MODEL))
    return tmp_path


def test_what_is_kept_is_read_again(kept: Path) -> None:
    before, found = drums.drummer(DATA, MODEL), drummer.load(kept, DATA, MODEL)
    for name, tensor in before.network.state_dict().items():
        assert torch.equal(tensor, found.network.state_dict()[name])
    assert found.bank.kits.keys() == before.bank.kits.keys() and not found.network.training


@pytest.mark.parametrize("name", ["pattern.safetensors", "strokes.safetensors"])
def test_a_damaged_drummer_is_refused(kept: Path, name: str) -> None:
    content = bytearray((kept / name).read_bytes())
    content[len(content) // 2] ^= 1
    (kept / name).write_bytes(content)
    with pytest.raises(DamagedError, match="damaged"):
        drummer.load(kept, DATA, MODEL)
    (kept / name).write_bytes(content[:-1])
    with pytest.raises(DamagedError, match=name):
        drummer.load(kept, DATA, MODEL)
    (kept / name).unlink()
    with pytest.raises(DamagedError, match=f"{name} is missing"):
        drummer.load(kept, DATA, MODEL)


@pytest.mark.parametrize(("name", "most"), [("pattern.safetensors", 64 << 20), ("strokes.safetensors", 256 << 20)])
def test_files_that_are_too_large_are_refused_before_they_are_read(
    kept: Path, monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    """A file may have a size of many gigabytes and take no room."""
    monkeypatch.setattr(files, "sha256_file", lambda path: pytest.fail("it was read"))
    record = records.read(kept / drummer.NAME)
    record["files"][name]["bytes"] = most + 1
    files.write_json(kept / drummer.NAME, record)
    with (kept / name).open("wb") as file:
        file.truncate(most + 1)
    with pytest.raises(DamagedError, match=f"{name} is too large for a "):
        drummer.load(kept, DATA, MODEL)


def test_a_model_without_its_drummer_is_refused(kept: Path) -> None:
    (kept / drummer.NAME).unlink()
    with pytest.raises(DamagedError, match=r"drummer\.json is missing: run the launch command again, or export"):
        drummer.load(kept, DATA, MODEL)


def test_a_record_without_a_file_is_refused(kept: Path) -> None:
    record = records.read(kept / drummer.NAME)
    del record["files"][drummer.STROKES]
    files.write_json(kept / drummer.NAME, record)
    with pytest.raises(DamagedError, match=r"has no 'strokes\.safetensors'"):
        drummer.load(kept, DATA, MODEL)


def test_weights_of_another_network_or_not_finite_are_refused(kept: Path) -> None:
    wrong = drums.drummer(DATA, MODEL)
    with torch.no_grad():
        wrong.network.last.bias[0] = float("nan")
    drummer.save(kept, wrong)
    with pytest.raises(DamagedError, match="not finite"):
        drummer.load(kept, DATA, MODEL)
    del wrong.network.last
    drummer.save(kept, wrong)
    with pytest.raises(DamagedError, match="does not hold a pattern network"):
        drummer.load(kept, DATA, MODEL)

"""Strokes are cut whole, kit by kit and class by class, and a bank that was written is what is read; a bad one is refused."""

import io
import json

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file, save_file

from p2p_dist.audio import strokes as bank_file
from p2p_dist.audio.drum_classes import Onset
from p2p_dist.audio.pattern_features import FRAME
from p2p_dist.audio.strokes import (
    BEFORE,
    LONGEST,
    RATE,
    WINDOW,
    Bank,
    cut_kit,
    frame_powers,
    input_level,
    level_of_windows,
    load,
    playing_level,
    playing_rate,
    save,
)

TIMES = {"kick": [0.5, 2.0, 4.0], "snare": [1.0, 2.5], "hat": [1.5, 2.0]}


def song(seconds=8.0):
    """Each class is a decaying tone of its own; what is played at 2.0 s is a kick with a hat."""
    sound = np.zeros(round(seconds * RATE), np.float32)
    time = np.arange(2 * RATE) / RATE
    for kind, hertz in (("kick", 100), ("snare", 1000), ("hat", 8000)):
        for at in TIMES[kind]:
            begin = round(at * RATE)
            sound[begin : begin + len(time)] += 0.2 * np.cos(2 * np.pi * hertz * time) * np.exp(-time / 0.1)
    onsets = sorted((Onset(at, kind, 1.0) for kind, times in TIMES.items() for at in times), key=lambda onset: onset.time)
    return sound, onsets


@pytest.fixture(scope="module")
def kit():
    sound, onsets = song()
    return cut_kit(sound, 0.1 * sound, RATE, onsets)


def test_strokes_begin_before_their_attack_and_last_to_the_next_stroke(kit):
    kicks = kit.strokes["kick"]  # all as loud
    # Longest first: alone for a second, then until the snares half a second later.
    assert [round(len(stroke.sound) / RATE, 2) for stroke in kicks] == [LONGEST, 0.5, 0.5]
    attack = np.abs(kicks[0].sound).argmax() / RATE
    assert attack == pytest.approx(BEFORE, abs=1e-4) and abs(kicks[0].sound[-1]) < 1e-6


def test_a_hat_under_a_kick_is_not_taken_for_a_hat(kit):
    assert len(kit.strokes["hat"]) == 1 and len(kit.strokes["snare"]) == 2 and kit.strokes["other"] == []
    (hat,) = kit.strokes["hat"]
    spectrum = np.abs(np.fft.rfft(hat.sound))
    assert spectrum.argmax() * RATE / len(hat.sound) == pytest.approx(8000, abs=30)


def test_a_kit_knows_its_rates_and_its_level(kit):
    # Six strokes are in the first six seconds, one of them of two classes.
    assert kit.rates == pytest.approx((3 / 6, 2 / 6, 2 / 6, 0.0, 6 / 6))
    sound, onsets = song()
    level = playing_level(frame_powers(sound, RATE), np.array([onset.time for onset in onsets]))
    assert kit.offset == pytest.approx(level - input_level(0.1 * sound, RATE), abs=1e-6)
    assert cut_kit(sound, sound, RATE, onsets).offset == pytest.approx(kit.offset - 20, abs=0.01)


def test_levels_of_a_kit_do_not_depend_on_the_level_of_its_song(kit):
    sound, onsets = song()
    quiet = cut_kit(0.01 * sound, sound, RATE, onsets)
    for kind, strokes in kit.strokes.items():
        for one, other in zip(strokes, quiet.strokes[kind], strict=True):
            assert np.allclose(one.sound, other.sound, atol=1e-4)


def test_quiet_and_short_strokes_are_left_out_and_no_more_are_taken_than_asked_for():
    sound, onsets = song()
    more = sorted([*onsets, Onset(6.0, "kick", 0.05), Onset(6.5, "kick", 1.0), Onset(6.55, "snare", 1.0)], key=lambda o: o.time)
    assert len(cut_kit(sound, sound, RATE, more).strokes["kick"]) == 3
    assert len(cut_kit(sound, sound, RATE, more, most=2).strokes["kick"]) == 2
    many = [Onset(0.5 + 0.2 * number, "kick", 1.0) for number in range(30)]
    assert len(cut_kit(sound, sound, RATE, many).strokes["kick"]) == 16, "earlier runs have as many"


@pytest.mark.parametrize("loud", [True, False])
def test_the_louder_half_is_taken_first_or_what_rings_alone(loud):
    """If it failed: in a busy song a kit would be made of the quietest strokes, which alone have room to ring."""
    sound = np.full(14 * RATE, 0.1, np.float32)
    kicks = {0.5: 0.3, 2.0: 0.6, 2.5: 0.61, 3.25: 0.7, 4.0: 1.0, 6.0: 0.2, 8.0: 0.4, 10.0: 0.05, 12.0: 0.01}
    onsets = [Onset(at, "kick", strength) for at, strength in kicks.items()] + [Onset(2.01, "hat", 0.9), Onset(4.3, "hat", 1.0)]
    kit = cut_kit(sound, sound, RATE, sorted(onsets, key=lambda onset: onset.time), loud=loud)
    found = [(stroke.strength, round(len(stroke.sound) / RATE, 2)) for stroke in kit.strokes["kick"]]
    # The median of those that are heard well is 0.6, of the kick with a hat.
    louder, rest = [(0.61, 0.75), (0.7, 0.75), (0.6, 0.5), (1.0, 0.3)], [(0.3, 1.0), (0.2, 1.0), (0.4, 1.0)]
    alone = [*rest, (0.61, 0.75), (0.7, 0.75), (1.0, 0.3), (0.6, 0.5)]
    assert found == ([*louder, *rest] if loud else alone)


def test_a_hat_a_little_after_a_kick_is_with_it_and_a_stroke_fades_over_20_ms():
    sound = np.full(4 * RATE, 0.1, np.float32)
    kit = cut_kit(sound, sound, RATE, [Onset(0.5, "kick", 1.0), Onset(0.52, "hat", 1.0), Onset(1.0, "hat", 1.0)])
    assert [len(kit.strokes[kind]) for kind in ("kick", "hat")] == [1, 1], "and what follows so soon does not end the kick"
    ring = kit.strokes["kick"][0].sound / kit.strokes["kick"][0].sound[RATE // 10]
    assert len(ring) == RATE // 2
    ago = lambda seconds: ring[len(ring) - round(seconds * RATE)]  # noqa: E731
    assert [ago(0.022), ago(0.01)] == pytest.approx([1.0, 0.5], abs=0.01)


def test_a_stroke_at_the_very_beginning_is_whole():
    sound, _ = song()
    kit = cut_kit(sound, sound, RATE, [Onset(0.0, "kick", 1.0)])
    assert len(kit.strokes["kick"][0].sound) == LONGEST * RATE


def test_the_level_is_that_of_the_windows_that_play():
    frames = np.repeat([0.1, 0.3, 0.2, 5.0, 0.001, 0.2], round(WINDOW / FRAME))
    playing = [window * WINDOW + second for window in (0, 1, 2) for second in (1, 2, 3, 4)]
    few = [3 * WINDOW + 1, 3 * WINDOW + 2, 3 * WINDOW + 3]
    assert playing_level(frames, np.array(playing + few)) == pytest.approx(10 * np.log10(0.2), abs=0.05)
    assert playing_level(frames, np.array(few)) == pytest.approx(10 * np.log10(0.2), abs=0.05)
    assert playing_level(np.zeros(1000), np.array(playing)) == playing_level(np.zeros(0), np.array(few)) == -120


def test_the_rate_is_that_of_the_windows_that_play():
    assert playing_rate(np.array([0.1, 1, 2, 3, 4, 7, 8, 13, 13.1, 14, 15, 16, 17, 17.9])) == pytest.approx((5 + 7) / 2 / 6)
    assert playing_rate(np.array([1.0, 2, 3])) == playing_rate(np.array([])) == 0


def test_the_level_of_an_input_is_that_of_its_loud_frames_and_blocks_do_not_matter():
    sound = np.zeros(20 * RATE, np.float32)
    sound[: 3 * RATE] = np.sin(2 * np.pi * 500 * np.arange(3 * RATE) / RATE)
    level = input_level(sound, RATE)
    assert input_level(0.1 * sound, RATE) == pytest.approx(level - 20, abs=0.01)
    assert input_level((sound[n : n + 999] for n in range(0, len(sound), 999)), RATE) == pytest.approx(level, abs=1e-3)
    sound[RATE:] = 1e-3 * np.sin(2 * np.pi * 500 * np.arange(19 * RATE) / RATE)
    # What is loud in less than a tenth of the song is not its level.
    assert input_level(sound, RATE) < level - 40


@pytest.mark.parametrize("seconds", [1, 20, 100])
def test_the_level_of_a_song_that_is_mostly_silent_is_almost_that_of_its_sound(seconds):
    sound = np.sin(2 * np.pi * 500 * np.arange(5 * RATE) / RATE).astype(np.float32)
    level = input_level(sound, RATE)
    longer = np.concatenate([sound, np.zeros(seconds * RATE, np.float32)])
    assert level - 1.01 < input_level(longer, RATE) <= level + 0.01
    assert input_level(np.zeros(RATE, np.float32), RATE) == -120
    assert input_level(np.zeros(RATE, np.float32), RATE) == -120


@pytest.mark.parametrize("codec,error", [("flac", 2e-4), ("opus", 0.3)])
def test_a_bank_is_read_as_it_was_written(tmp_path, kit, codec, error):
    path = tmp_path / "bank.safetensors"
    save(path, Bank({"a/song": kit, "b": kit}), codec)
    found = load(path)
    assert list(found.kits) == ["a/song", "b"]
    again = found.kits["b"]
    assert again.rates == kit.rates and again.offset == kit.offset
    assert np.allclose(found.rates, kit.rates) and found.offset == kit.offset
    for kind, strokes in kit.strokes.items():
        assert len(again.strokes[kind]) == len(strokes)
        for one, other in zip(strokes, again.strokes[kind], strict=True):
            assert len(one.sound) == len(other.sound) and one.strength == other.strength
            assert np.abs(one.sound - other.sound).max() < error * np.abs(one.sound).max()


def test_a_stroke_of_silence_is_kept_as_silence(tmp_path):
    silent = bank_file.Kit({"kick": [bank_file.Stroke(np.zeros(9000, np.float32), 1.0)]}, (1.0,) * 5, 0.0)
    save(tmp_path / "bank", Bank({"a": silent}))
    (stroke,) = load(tmp_path / "bank").kits["a"].strokes["kick"]
    assert len(stroke.sound) == 9000 and not stroke.sound.any()


def test_the_same_bank_has_the_same_bytes(tmp_path, kit):
    for name in ("a", "b"):
        save(tmp_path / name, Bank({"song": kit}))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def changed(path, tensors=(), header=None):
    """Write a bank again with some of its content replaced."""
    content = load_file(path)
    with bank_file_header(path) as old:
        save_file({**content, **dict(tensors)}, path, {**old, **(header or {})})


class bank_file_header:
    def __init__(self, path):
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            self.header = file.metadata()

    def __enter__(self):
        return self.header

    def __exit__(self, *_):
        pass


def with_kits(kits):
    return json.dumps({"format": "p2p_dist strokes 1", "kits": kits})


def a_kit(peak=1.0, rate=1.0):
    """The record of a kit whose kicks have this peak."""
    return {"name": "a", "rates": [rate] * 5, "offset": 0, "peak": {"kick": peak, "snare": 1.0, "hat": 1.0}}


def sound_file(rate=RATE, channels=1, value=0.1, kind="WAV", subtype="FLOAT"):
    """Some seconds of sound as uint8."""
    file = io.BytesIO()
    soundfile.write(file, np.full((4 * rate, channels), value, np.float32), rate, format=kind, subtype=subtype)
    return np.frombuffer(file.getvalue(), np.uint8)


BAD = {
    "more strokes than there may be": (
        {"0.kick.samples": np.full(257, 5), "0.kick.strength": np.ones(257, np.float32)},
        {},
        "match",
    ),
    "more kits than there may be": ({}, {"bank": with_kits([a_kit()] * 1001)}, "list of kits"),
    "strokes that are too loud": ({}, {"bank": with_kits([a_kit(peak=1e4)])}, "its level"),
    "more strokes a second than there can be": ({}, {"bank": with_kits([a_kit(rate=100.0)])}, "rates"),
    "sound of two channels": ({"0.kick.sound": sound_file(channels=2)}, {}, "mono sound"),
    "sound of another rate": ({"0.kick.sound": sound_file(22050)}, {}, "44.1 or 48 kHz"),
    "sound that is not finite": ({"0.kick.sound": sound_file(value=np.nan)}, {}, "not finite"),
    "a stroke longer than there may be": ({"0.kick.samples": np.array([100_000] * 3)}, {}, "length"),
    "more than fits in memory": ({"0.kick.samples": np.array([1 << 40] * 3)}, {}, "too long"),
    "lengths that are no whole numbers": ({"0.kick.samples": np.array([5.5] * 3)}, {}, "length"),
    "a stroke of no length": ({"0.kick.samples": np.array([0, 5, 5])}, {}, "length"),
    "more lengths than strengths": ({"0.kick.samples": np.array([5] * 4)}, {}, "match"),
    "too short a sound": ({"0.kick.samples": np.array([60000] * 3)}, {}, "truncated"),
    "no sound": ({"0.kick.sound": np.frombuffer(b"not a flac at all", np.uint8)}, {}, "decoded"),
    "a strength that is not a number": ({"0.kick.strength": np.array([np.nan] * 3, np.float32)}, {}, "strength"),
    "another format": ({}, {"bank": '{"format": "p2p_dist strokes 9"}'}, "not a bank"),
    "no header": ({}, {"bank": "3"}, "damaged"),
    "kits that are no list": ({}, {"bank": with_kits(3)}, "list of kits"),
    "no kits": ({}, {"bank": with_kits([])}, "list of kits"),
    "no JSON": ({}, {"bank": "{"}, "damaged"),
    "a list that is too deep": ({}, {"bank": "[" * 100_000}, "damaged"),
    "a number that is too large": ({}, {"bank": with_kits([{"name": "a", "rates": [1] * 5, "offset": 10**400}])}, "damaged"),
    "a kit without a name": ({}, {"bank": with_kits([{"rates": [1] * 5, "offset": 0}])}, "damaged"),
    "a rate that is not possible": ({}, {"bank": with_kits([{"name": "a", "rates": [1, 1, 1, 1, -1], "offset": 0}])}, "rates"),
    "a level that is not possible": ({}, {"bank": with_kits([{"name": "a", "rates": [1] * 5, "offset": 1e9}])}, "level"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bank_that_is_not_possible_is_refused_with_its_name(tmp_path, kit, case):
    tensors, header, why = BAD[case]
    path = tmp_path / "bank.safetensors"
    save(path, Bank({"song": kit}))
    changed(path, tensors, header)
    if "0.kick.sound" in tensors or why == "truncated":
        (found,) = load(path).kits.values()
        with pytest.raises(ValueError, match=f"bank.safetensors: .*{why}"):
            dict(found.strokes)
        return
    with pytest.raises(ValueError, match=f"bank.safetensors: .*{why}"):
        load(path)


def test_only_the_kit_that_is_played_is_decoded(tmp_path, kit, monkeypatch):
    path, decoded = tmp_path / "bank.safetensors", []
    save(path, Bank({"a": kit, "b": kit}))
    decode = bank_file._decode
    monkeypatch.setattr(bank_file, "_decode", lambda *coded: decoded.append(coded) or decode(*coded))
    found = load(path).kits["b"]
    assert not decoded and list(found.strokes) == list(kit.strokes)
    for _ in range(2):
        assert len(found.strokes["kick"]) == len(kit.strokes["kick"]) and len(decoded) == 1


def test_other_files_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="not a bank of strokes"):
        load(path)
    monkeypatch.setattr(bank_file, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match="more than"):
        load(path)


def test_a_window_of_four_strokes_plays():
    assert level_of_windows(np.array([1.0, 100.0]), np.array([4, 3])) == pytest.approx(0)

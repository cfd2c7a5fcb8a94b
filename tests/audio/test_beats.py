"""Tempo and beats of a steady song, and what a user can say about them."""

import itertools

import numpy as np
import pytest

from p2p_dist.audio import beats
from p2p_dist.audio.attacks import RATE
from p2p_dist.audio.beats import DRUMS_LATE, MUSIC_LATE, Beats, drums_late, options, track_beats, words
from p2p_dist.audio.rhythm import Rhythm, beats_in
from tests.audio.strokes import strokes

FRAME = 512 / 22050


def pulse(bpm, first, seconds=90, jitter=0.0, weak=0.4):
    """An onset envelope with a hit on each beat and a weaker one on each eighth note between."""
    random = np.random.default_rng(0)
    rise = random.random(int(seconds / FRAME)) * 0.05
    for number, time in enumerate(np.arange(first, seconds - 0.1, 30 / bpm)):
        frame = round((time + random.normal() * jitter) / FRAME)
        if 0 <= frame < len(rise):
            rise[frame] += 1.0 if number % 2 == 0 else weak
    return rise


def off_the_beat(beats, time, beats_of=1):
    """Seconds from the nearest beat to `time`."""
    step = 60 / beats.bpm / beats_of
    return abs((time - beats.first + step / 2) % step - step / 2)


@pytest.mark.parametrize("bpm", [97.31, 110.0, 120.0, 132.5, 171.2])
def test_the_tempo_is_found_to_a_twentieth_of_a_beat_a_minute(bpm):
    found = track_beats(pulse(bpm, 0.2), FRAME)
    assert found is not None and found.bpm == pytest.approx(bpm, abs=0.05)
    assert off_the_beat(found, 0.2) < 0.035, "within the ear's tolerance"


def test_a_slow_song_is_found_where_it_swells_once_a_beat():
    time = np.arange(0, 90, FRAME) - 0.2
    assert track_beats(1 + np.cos(2 * np.pi * time * 66 / 60), FRAME).bpm == pytest.approx(66, abs=0.05)


def test_a_fast_song_is_found_where_nothing_has_half_its_tempo():
    assert track_beats(pulse(190, 0.2, weak=1.0), FRAME).bpm == pytest.approx(190, abs=0.05)


def test_of_two_tempos_that_are_nearly_as_strong_the_more_usual_is_taken():
    time = np.arange(0, 90, FRAME)
    swells = np.cos(2 * np.pi * time * 130 / 60) + 1.1 * np.cos(2 * np.pi * time * 178 / 60)
    assert track_beats(3 + swells, FRAME).bpm == pytest.approx(130, abs=0.1)


@pytest.mark.parametrize(("strength", "bpm"), [(0.95, 100), (1.1, 140)])
def test_a_tempo_of_which_three_times_the_frequency_is_strong_counts_less(strength, bpm):
    """Without that, 100 would be found for both strengths of 140."""
    time = np.arange(0, 90, FRAME)
    swells = sum(share * np.cos(2 * np.pi * time * tempo / 60) for tempo, share in ((100, 1.0), (300, 0.8), (140, strength)))
    assert track_beats(3 + swells, FRAME).bpm == pytest.approx(bpm, abs=0.3)


@pytest.mark.parametrize("height", [30, -30])
def test_a_few_enormous_rises_or_falls_at_another_tempo_do_not_decide(height):
    rise = pulse(110, 0.2, weak=0.0)
    rise[np.rint((40 + np.arange(12) * 60 / 97) / FRAME).astype(int)] += height
    assert track_beats(rise, FRAME, attack=(np.zeros(0), np.zeros(0))).bpm == pytest.approx(110, abs=0.1)


@pytest.mark.parametrize(("strength", "first"), [(0.1, 0.02), (0.5, 0.0)])
def test_the_first_instrument_is_one_that_plays_much(strength, first):
    quarters = np.arange(0, 30, 0.125)
    times, strengths = np.concatenate([quarters, quarters + 0.02]), np.repeat([strength, 1.0], len(quarters))
    assert beats._earliest_attack(times, strengths, 0.5) == pytest.approx(first, abs=0.0011)


def test_human_timing_does_not_throw_it_off():
    found = track_beats(pulse(110, 0.3, jitter=0.012), FRAME)
    assert found is not None and found.bpm == pytest.approx(110, abs=0.1)


def test_a_song_whose_second_half_is_off_the_beat_keeps_its_tempo():
    """It swells once a beat: in its spectrum the tempo is a valley between two peaks."""
    bpm, seconds = 131.37, 300
    time = np.arange(0, seconds, FRAME)
    rise = 1 + np.where(time < seconds / 2, 1, -1) * np.cos(2 * np.pi * (time - 0.2) * bpm / 60)
    attacks = np.arange(0.2, seconds, 60 / bpm)
    attacks[attacks > seconds / 2] += 30 / bpm
    found = track_beats(rise, FRAME, attack=(attacks, np.ones(len(attacks))), region=131, late=0)
    assert found.bpm == pytest.approx(bpm, abs=0.002)
    assert all(off_the_beat(found, time, beats_of=4) < 0.005 for time in (attacks[0], attacks[-1]))


@pytest.mark.parametrize(("bpm", "exact"), [(119.99, True), (120.01, True), (119.9, False), (120.1, False)])
def test_a_whole_number_of_beats_a_minute_is_preferred_to_one_that_is_hardly_better(bpm, exact):
    found = track_beats(pulse(bpm, 0.2, jitter=0.008), FRAME)
    assert (found.bpm == 120) == exact and found.bpm == pytest.approx(bpm, abs=0.03)
    assert off_the_beat(found, 0.2, beats_of=2) < 0.02


def test_a_whole_number_is_not_taken_where_the_attacks_are_off_it():
    seconds = 300
    times = np.arange(0.2, seconds, 30 / 120.018)
    rise = np.zeros(int(seconds / FRAME))
    rise[np.rint(times[:-1] / FRAME).astype(int)] = 1
    attacks = times[:-1], np.ones(len(times) - 1)
    assert track_beats(rise, FRAME, attack=attacks).bpm == pytest.approx(120.018, abs=1e-3)


def test_a_whole_number_is_taken_where_most_attacks_are_of_an_instrument_that_speaks_late():
    """One that speaks at each quarter some 22 ms late, beside one that plays a fifth of the quarters in time."""
    random = np.random.default_rng(0)
    quarters = np.arange(0.2, 44, 0.1)
    early = quarters[random.random(len(quarters)) < 0.2]
    times = np.sort(np.concatenate([early, quarters + 0.022 + random.normal(0, 0.006, len(quarters))]))
    rise = np.zeros(int(45 / FRAME))
    rise[np.rint(quarters[::4] / FRAME).astype(int)] = 1
    found = track_beats(rise, FRAME, attack=(times, np.ones(len(times))), late=0)
    assert found.bpm == 150 and off_the_beat(found, 0.2) < 0.005


def song(bpm, first, seconds=60, late=0.0):
    """Kick and snare by turns on the beats; `late`: a louder instrument that speaks so many seconds after every beat."""
    beat = 60 / bpm
    times = np.arange(first, seconds - 0.5, beat)
    sound = strokes("kick", times[::2], seconds) + strokes("snare", times[1::2], seconds)
    sound += strokes("closed", times + beat / 2, seconds)
    if late:
        sound = 0.3 * sound + strokes("snare", times + late, seconds)
    return sound.astype(np.float32)


@pytest.mark.parametrize(("bpm", "first"), [(97.31, 0.2), (128.0, 0.111), (171.2, 0.3)])
def test_beats_of_a_sound_are_found_to_5_ms_and_its_tempo_to_5_thousandths(bpm, first):
    found = beats_in(song(bpm, first), DRUMS_LATE)
    assert found is not None and found.bpm == pytest.approx(bpm, abs=0.005)
    times = found.times(59)
    late = times - (first + np.rint((times - first) * bpm / 60) * 60 / bpm)
    assert np.abs(late).max() < 0.005, "also at the end of the song"


def test_a_louder_instrument_that_speaks_late_does_not_move_the_beat():
    found = beats_in(song(120, 0.2, late=0.03), DRUMS_LATE)
    assert found is not None and off_the_beat(found, 0.2, beats_of=2) < 0.005


def test_music_is_taken_to_speak_later_than_drums():
    sound = song(120, 0.2)
    music, drums = (beats_in(sound, late) for late in (MUSIC_LATE, DRUMS_LATE))
    assert (drums.first - music.first + 0.25 / 2) % 0.25 - 0.25 / 2 == pytest.approx(0.003, abs=1e-4)
    assert drums_late(1024 / RATE) < drums_late(512 / RATE) < 0 < drums_late(256 / RATE), "a long window sees drums early"


def test_blocks_do_not_matter():
    sound = song(128, 0.1, seconds=20)
    heard = Rhythm(float(np.abs(sound).max()), drums=True)
    for start in range(0, len(sound), 777):
        heard.add(sound[start : start + 777])
    heard.finish()
    assert heard.beats() == beats_in(sound, DRUMS_LATE)


@pytest.mark.parametrize("rise", [np.zeros(2000), np.zeros(0)])
def test_nothing_has_no_tempo(rise):
    assert track_beats(rise, FRAME) is None
    assert track_beats(rise, FRAME, bpm=100, first=1.3, half_beat=True) == Beats(100, pytest.approx(0.4))


def test_less_than_4_seconds_have_none_either():
    assert beats_in(song(128, 0.1, seconds=20)[: 3 * RATE]) is None
    assert beats_in(song(128, 0.1, seconds=20)[: 5 * RATE]) is not None


def test_what_the_user_says_of_the_beats_is_taken():
    rise = pulse(120, 0.2)
    found = track_beats(rise, FRAME)
    moved = track_beats(rise, FRAME, half_beat=True)
    assert moved.bpm == found.bpm and off_the_beat(moved, found.first + 0.25) < 1e-6
    assert track_beats(rise, FRAME, first=7.33).first == pytest.approx(7.33 % (60 / found.bpm))
    assert track_beats(rise, FRAME, bpm=90.2).bpm == pytest.approx(90.2, rel=0.006), "another tempo than what is there"
    assert track_beats(rise, FRAME, bpm=119.8).bpm == pytest.approx(120, abs=0.02), "rounded by the user, exact in the song"
    assert track_beats(rise, FRAME, bpm=240).bpm == pytest.approx(240, abs=0.1), "outside of what is searched"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bpm": 29.0}, "a tempo of 29 beats a minute: give one from 30 to 300"),
        ({"bpm": float("nan")}, "a tempo of nan"),
        ({"first": -0.1}, "a beat at -0.1 s: give the time of one from the song's start, 0 or more"),
        ({"first": float("inf")}, "a beat at inf s"),
    ],
)
def test_what_can_not_be_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        track_beats(pulse(120, 0.2), FRAME, **given)


def test_the_region_of_the_tempo_leaves_octave_and_value_to_the_comb():
    rise = pulse(120, 0.2)
    for region in (118, 60.5, 236):
        assert track_beats(rise, FRAME, region=region).bpm == pytest.approx(120, abs=0.05)
    assert abs(track_beats(rise, FRAME, region=90).bpm / 90 - 1) < 0.031 or track_beats(rise, FRAME, region=90).bpm > 174


def test_other_beats_are_offered_with_what_to_type():
    rise = pulse(120, 0.2)
    found = track_beats(rise, FRAME)
    half, *tempos = found.others
    assert half.bpm == found.bpm and off_the_beat(half, found.first) == pytest.approx(0.25, abs=1e-3)
    for ratio in (0.5, 0.75, 4 / 3):
        assert any(other.bpm == pytest.approx(found.bpm * ratio, rel=0.006) for other in tempos), ratio
    bpms = sorted(beats.bpm for beats in (found, *tempos))
    assert min(np.diff(bpms) / bpms[:-1]) > 0.008 and bpms[0] > 59.9 and bpms[-1] < 200.1
    typed = options(found)
    assert typed[0] == "--half-beat" and all(text in words(found) for text in typed)
    assert words(found).startswith("120.00 beats a minute, a beat at 0.")
    for other, text in zip(tempos, typed[1:], strict=True):
        again = track_beats(rise, FRAME, bpm=float(text.removeprefix("--bpm ")))
        assert again.bpm == pytest.approx(other.bpm, abs=1e-9) and again.first == pytest.approx(other.first, abs=1e-9)
    assert words(Beats(90, 0.5)) == "90.00 beats a minute, a beat at 0.500 s"


@pytest.mark.parametrize("seconds", [4.5, 5, 8, 20])
def test_of_a_short_song_no_tempo_is_offered_that_is_the_same_over_its_length(seconds):
    """Its comb is a few broad peaks, of which the sides were offered: 120.44, 118.00, 122.00 beside 120, and 120.00 itself."""
    for found in (track_beats(pulse(120, 0.2, seconds), FRAME), beats_in(song(97.31, 0.2, seconds), DRUMS_LATE)):
        bpms = sorted(beats.bpm for beats in (found, *found.others[1:]))
        apart = [(right / left - 1) * left / 60 * seconds for left, right in itertools.pairwise(bpms)]
        assert len(bpms) > 4 and min(apart) > 0.9, "beats, by the end of the song"
        assert not {f"--bpm {found.bpm:.2f}", "--half-beat"} & set(options(found)[1:])
        for ratio in (0.75, 4 / 3):
            assert min(abs(bpm - found.bpm * ratio) for bpm in bpms) / 60 * seconds < 1, "or one that is the same"


def test_a_tempo_that_is_typed_is_not_pulled_to_the_side_of_a_peak():
    score = beats._score(pulse(120, 0.2, 8), FRAME)
    assert beats._nearest(score, 116.5, 0.005) == 116.5, "the comb rises towards 120"
    assert beats._nearest(score, 119.7, 0.005) == pytest.approx(120, abs=0.15)


def test_beats_and_eighth_notes_are_listed():
    beats = Beats(120, 0.7)
    assert np.allclose(beats.times(2), [0.2, 0.7, 1.2, 1.7])
    assert np.allclose(beats.times(1.2, per_beat=2), [0.2, 0.45, 0.7, 0.95])

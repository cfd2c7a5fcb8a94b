"""Songs that were not played to a click: their beats, what is said of them, and that others are left alone."""

import itertools
import json

import numpy as np
import pytest

from p2p_dist.audio import beats as module
from p2p_dist.audio.attacks import RATE
from p2p_dist.audio.beats import DRUMS_LATE, Beats, drifting, options, told_tempo, track_beats, words
from p2p_dist.audio.drift import straightened
from p2p_dist.audio.pattern_features import FRAME as FEATURE
from p2p_dist.audio.pattern_features import SOUND, beat_positions, pattern_features
from p2p_dist.audio.rhythm import beats_in
from p2p_dist.common import records, schemas
from p2p_dist.data import guides
from p2p_dist.generate import pattern_stage, song
from p2p_dist.settings.config import Data
from tests.audio.strokes import strokes

FRAME = 512 / 22050
SECONDS = 90.0


def sway(bpm=110.0, depth=0.03, period=30.0, seconds=SECONDS):
    """Times of the beats of a tempo that goes up and down."""
    time = np.arange(0, seconds + 5, 0.001)
    numbers = np.cumsum(bpm / 60 * (1 + depth * np.sin(2 * np.pi * time / period))) * 0.001 - 0.4
    return np.interp(np.arange(int(numbers[-1])), numbers, time)


def slower(bpm=110.0, seconds=SECONDS):
    """Times of the beats of a slow ritardando: from 2 % above to 5 % below."""
    time = np.arange(0, seconds + 5, 0.001)
    numbers = np.cumsum(bpm / 60 * (1.02 - 0.07 * time / seconds)) * 0.001 - 0.4
    return np.interp(np.arange(int(numbers[-1])), numbers, time)


def between(true, per_beat):
    return np.interp(np.arange((len(true) - 1) * per_beat + 1) / per_beat, np.arange(len(true)), true)


def heard(true, jitter=0.006, seconds=SECONDS):
    """What `track_beats` is given of a song with an attack on each beat, and weaker ones on the eighth notes between."""
    random = np.random.default_rng(0)
    times = between(true, 2)
    strengths = np.where(np.arange(len(times)) % 2, 0.5, 1.0)[times < seconds - 0.1]
    times = times[times < seconds - 0.1] + random.normal(0, jitter, len(strengths))
    rise = random.random(int(seconds / FRAME)) * 0.05
    rise[np.rint(times / FRAME).astype(int)] += strengths
    return {"rise": rise, "frame": FRAME, "attack": (times, strengths), "late": 0.0}


def off(found, true):
    """Seconds from each of the beats found, but those before the first, to the nearest true eighth note."""
    grid = between(true, 2)
    found = found[(found > true[0]) & (found < true[-1])]
    return abs(found - grid[np.abs(found[:, None] - grid).argmin(axis=1)])


@pytest.mark.parametrize("true", [sway(), slower(), sway(141.0, 0.02, 50.0)], ids=["sway", "slower", "less"])
def test_beats_follow_a_tempo_that_drifts(true, monkeypatch):
    song = heard(true)
    found = track_beats(**song)
    assert found.at and max(off(found.times(SECONDS), true)) < 0.0175
    tempos = 60 / np.diff(true[true < SECONDS])
    assert np.abs(np.array(found.tempos()) / (tempos.min(), tempos.max()) - 1).max() < 0.008
    assert found.bpm == pytest.approx(60 / np.diff(true[true < SECONDS]).mean(), rel=0.003)
    count = np.count_nonzero(true < SECONDS)
    assert abs(len(found.times(SECONDS)) - count) <= 1
    monkeypatch.setattr(module, "straightened", lambda *_: None)
    constant = track_beats(**song)
    assert not constant.at and (off(constant.times(SECONDS), true) < 0.035).mean() < 0.7, "which no constant tempo does"


def test_beats_of_a_sound_that_drifts_are_found():
    true = sway(seconds=60)
    true = true[true < 59]
    sound = strokes("kick", true[::2], 60) + strokes("snare", true[1::2], 60) + strokes("closed", between(true, 2)[1::2], 60)
    found = beats_in(sound.astype(np.float32), DRUMS_LATE)
    assert found.at and (off(found.times(59), true) < 0.010).all()


@pytest.mark.parametrize("jitter", [0.0, 0.012])
@pytest.mark.parametrize("bpm", [97.31, 120.0])
def test_a_song_with_a_click_is_the_same_as_without_looking_for_a_drift(bpm, jitter, monkeypatch):
    song = heard(np.arange(0.2, 100, 60 / bpm), jitter)
    found = track_beats(**song)
    monkeypatch.setattr(module, "straightened", lambda *_: None)
    constant = track_beats(**song)
    assert found == constant and found.others == constant.others and not found.at
    assert type(found) is Beats and found.at == () and not any(other.at for other in found.others)


def test_instruments_that_speak_late_by_turns_are_no_drift():
    """A quarter of a minute each: 25 ms late is what a flute is behind a piano."""
    times = np.arange(0.2, SECONDS - 0.2, 60 / 110 / 2)
    late = times + np.where(times // 15 % 2, 0.025, 0.0)
    assert straightened((late, np.ones(len(late))), 110.0, SECONDS) is None


def test_attacks_at_random_are_no_drift():
    random = np.random.default_rng(0)
    for count in (5, 100, 600, 900):
        times = np.sort(random.uniform(0, SECONDS, count))
        assert straightened((times, random.uniform(0.5, 1, count)), 110.0, SECONDS) is None


def test_all_attacks_at_one_place_are_no_drift():
    """As of a roll at the begin of silence: nothing tells where the beats of the rest are."""
    for times in (np.full(200, 0.2), np.linspace(0.2, 0.9, 200)):
        assert straightened((times, np.ones(200)), 110.0, SECONDS) is None


def test_a_drift_goes_on_through_a_rest_and_to_the_ends_of_the_song():
    true = sway()
    kept = true[(true < 40) | (true > 48)]
    song = heard(true)
    there = np.abs(song["attack"][0][:, None] - between(true, 2)).argmin(axis=1)
    sounding = (between(true, 2)[there] < 40) | (between(true, 2)[there] > 48)
    song["attack"] = tuple(part[sounding] for part in song["attack"])
    song["rise"][int(40 / FRAME) : int(48 / FRAME)] = 0.02
    found = track_beats(**song).times(SECONDS)
    assert max(off(found[(found < 40) | (found > 48)], kept)) < 0.0175 or max(off(found, true)) < 0.06
    assert np.diff(found).max() < 1.06 * 60 / 110 and found[0] < 0.6 and found[-1] > SECONDS - 0.6


def test_what_the_user_says_of_beats_that_drift_is_taken():
    song = heard(sway())
    found = track_beats(**song)
    moved = track_beats(**song, half_beat=True)
    eighths = found.times(SECONDS, per_beat=2)
    places = np.abs(moved.times(SECONDS)[:, None] - eighths)
    assert places.min(axis=1).max() < 0.003, "on the eighth notes"
    assert np.abs(moved.times(SECONDS)[:, None] - found.times(SECONDS)).min() > 0.2, "and not on the beats"
    assert np.abs(track_beats(**song, first=47.11).times(SECONDS) - 47.11).min() < 1e-9
    half, *tempos = found.others
    assert np.allclose(half.times(SECONDS), moved.times(SECONDS))
    for other, text in zip(tempos, options(found)[1:], strict=True):
        assert other.at, "another tempo drifts, too"
        again = track_beats(**song, bpm=float(text.removeprefix("--bpm ")))
        assert again.bpm == pytest.approx(other.bpm, abs=1e-9) and np.allclose(again.times(SECONDS), other.times(SECONDS))
    assert options(found)[0] == "--half-beat"
    slowest, fastest = found.tempos()
    assert words(found).startswith(f"{slowest:.2f} to {fastest:.2f} beats a minute, a beat at {found.first:.3f} s; if")


def test_a_tempo_is_told_as_one_or_as_a_range():
    assert told_tempo({"bpm": 120.04, "first_beat": 0.1}) == "120.0 beats a minute"
    told = told_tempo({"bpm": 99.0, "range": [96.42, 101.18], "beats": [0.1]})
    assert told == "96.4 to 101.2 beats a minute: it drifts, and is followed"


TRUE = sway()
DRIFTING = drifting(110.0, TRUE - 0.9)


def test_beats_and_their_parts_lie_at_their_times():
    assert np.allclose(DRIFTING.times(60), (TRUE - 0.9)[(TRUE >= 0.9) & (TRUE < 60.9)]) and len(DRIFTING.times(60)) > 100
    assert DRIFTING.first == DRIFTING.times(60)[0] < 60 / 100
    halves = DRIFTING.times(60, per_beat=2)
    assert set(DRIFTING.times(60)) <= set(halves) and len(halves) in range(2 * len(DRIFTING.times(60)) - 1, 999)
    assert np.allclose(DRIFTING.lengths(DRIFTING.times(60)), np.diff(DRIFTING.times(61))[: len(DRIFTING.times(60))])
    assert len(DRIFTING.times(0)) == 0


def test_beats_go_on_at_the_ends_as_they_were():
    short = drifting(120.0, np.array([1.0, 1.4, 2.0]))
    assert np.allclose(short.times(4), [0.2, 0.6, 1.0, 1.4, 2.0, 2.6, 3.2, 3.8])


def test_moving_and_a_later_start_keep_the_drift():
    moved = DRIFTING.moved(0.5).times(60)
    assert np.allclose(moved[1:-1], np.intersect1d(moved, DRIFTING.times(60, per_beat=2))[1:-1])
    assert np.abs(moved[:, None] - DRIFTING.times(60)).min() > 0.2
    for back in (DRIFTING.moved(1), DRIFTING.moved(0), DRIFTING.moved(0.5).moved(0.5)):
        assert np.allclose(back.times(60), DRIFTING.times(60), atol=0.001)
    later = DRIFTING.since(12.34)
    assert np.allclose(later.times(30) + 12.34, DRIFTING.times(42.34)[DRIFTING.times(42.34) >= 12.34])
    assert 0 <= later.first < 60 / 100 and np.allclose(later.since(-12.34).times(60), DRIFTING.times(60))
    for start in (np.mean(DRIFTING.at[-2:]), DRIFTING.at[-1], DRIFTING.at[-1] + 5):  # in its last beat, and behind it
        last = DRIFTING.since(start)
        assert np.allclose(last.times(10) + start, DRIFTING.times(start + 10)[-len(last.times(10)) :])
        assert last.first == last.times(10)[0] < 60 / 100


def test_beats_that_drift_by_nothing_are_those_of_a_constant_tempo():
    constant = Beats(120.0, 0.25)
    same = drifting(120.0, 0.25 + 0.5 * np.arange(-2, 130))
    for per_beat in (1, 2, 3, 4):
        assert np.allclose(same.times(60, per_beat), constant.times(60, per_beat))
    assert same.first == constant.first and same.tempos() == constant.tempos() == (120.0, 120.0)
    for change in (lambda one: one.moved(0.3), lambda one: one.since(7.1), lambda one: one.since(7.1).moved(-0.5)):
        assert np.allclose(change(same).times(50), change(constant).times(50))
    assert np.allclose(same.lengths(np.arange(5)), constant.lengths(np.arange(5)))


def test_places_in_the_beat_follow_the_drift():
    on = DRIFTING.times(60)
    assert np.allclose(beat_positions(DRIFTING, on), np.arange(len(on)))
    assert np.allclose(beat_positions(DRIFTING, (on[1:] + on[:-1]) / 2) % 1, 0.5)
    phases = pattern_features(np.zeros(60 * RATE, np.float32), RATE, DRIFTING)[SOUND : SOUND + 2]
    constant = pattern_features(np.zeros(60 * RATE, np.float32), RATE, Beats(110.0, DRIFTING.first))[SOUND : SOUND + 2]
    frames = np.rint(on / FEATURE).astype(int)
    assert phases[1, frames].min() > 0.99 and constant[1, frames].min() < 0


def test_what_is_found_is_close_to_even():
    """The beat follows the band, not each of its strokes."""
    found = track_beats(**heard(sway(), jitter=0.012)).times(SECONDS)
    longer = [abs(later / earlier - 1) for earlier, later in itertools.pairwise(np.diff(found))]
    assert max(longer) < 0.03


def test_beats_are_kept_to_the_bit_in_what_is_known_of_a_training_song():
    for kept in (None, Beats(97.31, 0.123456789), DRIFTING):
        assert pattern_stage._beats(pattern_stage._numbers(kept)) == kept
    assert pattern_stage._beats(np.array([97.31, 0.1])) == Beats(97.31, 0.1), "of an earlier version"


def test_the_record_has_the_beats_of_a_tempo_that_drifts_alone():
    constant, told = (song._tempo(one, 60.0, half_beat=False) for one in (Beats(120.0, 0.25), DRIFTING))
    assert constant == {"bpm": 120.0, "first_beat": 0.25, "others": []}
    assert told.keys() == constant.keys() | {"range", "beats"} and told["bpm"] == 110.0
    assert told["range"] == pytest.approx(DRIFTING.tempos(), abs=1e-3) and np.allclose(
        told["beats"], DRIFTING.times(60), atol=1e-4
    )
    shape = schemas.GENERATED.shape["tempo"]
    assert all(records.wrong(json.loads(json.dumps(one)), shape) is None for one in (None, constant, told))


def test_the_rows_that_guide_a_generator_follow_the_drift():
    data = Data()
    at = DRIFTING.times(60)
    frame = data.hop_length / data.sample_rate
    times = np.arange(round(59 / frame)) * frame
    rows = guides.rows_of(np.zeros((1, 2, len(times)), np.float32), beat_positions(DRIFTING, times))
    on = np.rint(at[at < 58.9] / frame).astype(int)
    assert rows[on, -1].min() > 0.97 and np.abs(rows[on, -2]).max() < 0.25

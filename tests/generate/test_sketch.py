"""Strokes are picked at the peaks and laid by the sample; a part of a sketch is the same wherever it is cut."""

import itertools

import numpy as np
import pytest

from p2p_dist.audio.beats import Beats, drifting
from p2p_dist.audio.drum_classes import CLASSES, REST, Onset, activations
from p2p_dist.audio.pattern_features import FRAME
from p2p_dist.audio.strokes import BEFORE, RATE, Kit, Stroke, frame_powers, playing_level
from p2p_dist.generate.sketch import Sketch, lay, pick, repeated

SECONDS = 20.0
FRAMES = round(SECONDS / FRAME)


def curves(onsets, seconds=SECONDS):
    found = activations(onsets, round(seconds / FRAME), FRAME)
    found[REST] = 0
    return found


def clicks(amplitudes, seconds=0.2):
    """Strokes of one sample after the 3 ms before the attack, and silence."""
    strokes = []
    for amplitude in amplitudes:
        sound = np.zeros(round(seconds * RATE), np.float32)
        sound[round(BEFORE * RATE)] = amplitude
        strokes.append(Stroke(sound, amplitude))
    return strokes


KIT = Kit({"kick": clicks([1.0]), "snare": clicks([1.0]), "hat": clicks([0.5]), "other": []}, (1.0, 1.0, 2.0, 0.0, 4.0), 0.0)


def test_picked_strokes_have_their_times_to_a_millisecond_and_their_classes():
    true = [Onset(1.0 + 0.3 * n, kind, 1.0) for n, kind in enumerate(["kick", "hat", "snare", "hat"] * 8)]
    found = pick(curves(true), [1, 1, 2, 0, 4], density=1.0)
    assert [onset.kind for onset in found] == [onset.kind for onset in true]
    assert np.allclose([o.time for o in found], [o.time for o in true], atol=0.001)
    assert [onset.strength for onset in found] == pytest.approx([1.0] * len(true), abs=0.1)


@pytest.mark.parametrize("density,count", [(1.0, 22), (0.5, 11), (2.0, 43), (0.0, 0)])
def test_the_highest_peaks_are_picked_as_many_as_the_density_says(density, count):
    true = [Onset(0.5 + 0.4 * n, "kick", 1.0 if n % 2 else 0.4) for n in range(44)]
    found = pick(curves(true), [1.2, 0, 0, 0, 1.2], density)
    assert len(found) == pytest.approx(count, abs=1)
    if density <= 1:
        assert all(round((onset.time - 0.5) / 0.4) % 2 for onset in found)


def test_a_section_of_which_the_network_is_less_sure_is_as_full_as_the_others():
    seconds = [0.5 + 0.4 * n for n in range(45)]
    true = [Onset(time, "kick", 1.0 if time < 12 else 0.2) for time in seconds]
    found = pick(curves(true), [1.5, 0, 0, 0, 1.5], density=1.0)
    assert [sum(6 * n <= onset.time < 6 * n + 6 for onset in found) for n in range(3)] == [9, 9, 9]


def test_a_rest_leaves_fewer_strokes_for_the_rest_of_its_stretch():
    drawn = curves([Onset(0.5 + 0.2 * n, "kick", 1.0) for n in range(28)])
    drawn[REST, round(3 / FRAME) :] = 0.9
    assert len(pick(drawn, [2.0, 0, 0, 0, 2.0], density=1.0)) == 6


def test_classes_play_together_no_more_often_than_in_the_training_songs():
    """Each class has its own peaks and is heard a little everywhere."""
    kinds = ["kick", "hat", "snare", "hat"] * 10
    drawn = curves([Onset(0.5 + 0.4 * n, kind, 1.0) for n, kind in enumerate(kinds)])
    for row in drawn[:3]:
        row += 0.5 * drawn[:3].max(axis=0)
    for rates, strokes in (([0.75, 0.75, 1.5, 0, 3], 40), ([0.75, 0.75, 1.875, 0, 3], 45), ([99, 99, 99, 99, 3], 120)):
        found = pick(drawn, rates, density=1.0)
        assert len({onset.time for onset in found}) == 40 and len(found) == pytest.approx(strokes, abs=5 * (strokes == 45))
    (alone,) = pick(curves([Onset(1.0, "snare", 1.0)]), [0.1, 0.3, 0.1, 0, 0.5], density=1.0)
    assert alone.kind == "snare"


def test_a_class_that_is_always_a_little_higher_does_not_take_all_strokes():
    drawn = curves([Onset(0.5 + 0.4 * n, kind, 0.5 + n / 100) for n in range(45) for kind in ("kick", "snare", "hat")])
    drawn[2] = 0.9 * drawn[2] + 0.1 * np.sqrt(drawn[2])  # of which more is left where all are low
    for even in (False, True):
        found = pick(drawn, [1.0, 1.0, 1.0, 0, 3.0], density=1.0, even_classes=even)
        counts = [sum(onset.kind == kind for onset in found) for kind in CLASSES]
        assert counts == pytest.approx([15, 15, 15, 0], abs=int(even))


def test_a_section_whose_kicks_are_less_sure_has_as_many_of_them_as_the_others():
    """Hats are as likely everywhere. A section of a minute had no kick at all, and was 10 dB quieter than the drums."""
    drawn = curves([Onset(0.2 + 0.25 * n, "kick", 1.0) for n in range(288)], 72.0)
    drawn[2] = 0.6 * drawn[0]
    drawn[0, round(48 / FRAME) :] *= 0.3
    kicks = []
    for even in (True, False):
        found = pick(drawn, [2.0, 0, 2.0, 0, 4.0], density=1.0, even_classes=even)
        kicks.append([sum(one.kind == "kick" and 24 * n <= one.time < 24 * n + 24 for one in found) for n in range(3)])
    assert kicks[0] == pytest.approx([48, 48, 48], abs=1) and sum(kicks[1]) == 144 and kicks[1][2] == 0


def test_sections_without_strokes_take_none_from_the_others():
    true = [Onset(0.25 + 0.5 * n, kind, 1.0) for n, kind in enumerate(["kick", "snare"] * 75) if 50 <= n < 90 or n >= 146]
    found = pick(curves(true, 80.0), [1.0, 1.0, 0, 0, 2.0], density=2.0)
    assert [(onset.kind, round(onset.time, 2)) for onset in found] == [(onset.kind, onset.time) for onset in true]


def test_predicted_strokes_may_be_played_by_the_loudest_alone():
    kit = Kit({"kick": clicks(np.linspace(0.1, 1.0, 32).tolist())}, (1.0,) * 5, 0.0)
    onsets = [Onset(n * 0.5, "kick", 1.0 - n / 40) for n in range(40)]
    played = [float(np.abs(sound).max()) for _, sound, _ in Sketch(onsets, kit, RATE, -20.0, among=0.25).places]
    assert 0.65 < min(played) < 0.8 and max(played) > 0.95 and len(set(played)) > 8
    whole = [float(np.abs(sound).max()) for _, sound, _ in Sketch(onsets, kit, RATE, -20.0).places]
    assert min(whole) < 0.3


def test_nothing_is_picked_in_a_rest_nor_counted_for_it():
    drawn = curves([Onset(0.5 + 0.4 * n, "kick", 1.0) for n in range(48)])
    drawn[REST] = 0.4
    drawn[REST, FRAMES // 2 :] = 0.6
    found = pick(drawn, [2.5, 0, 0, 0, 2.5], density=1.0)
    assert len(found) == 24 and max(onset.time for onset in found) < SECONDS / 2


def test_classes_at_one_time_start_together_as_often_as_in_the_training_songs():
    true = [
        Onset(0.5 + 0.4 * n + late, kind, 1.0 if n % 2 else 0.5)
        for n in range(40)
        for kind, late in (("kick", 0), ("hat", 0.008))
    ]
    for hats, count in ((2.5, 40), (1.25, 20)):
        found = pick(curves(true), [2.5, 0, hats, 0, 2.5], density=1.0)
        kicks = [onset for onset in found if onset.kind == "kick"]
        assert len(kicks) == 40 and len(found) == pytest.approx(40 + count, abs=1)
        assert {onset.time for onset in found} == {onset.time for onset in kicks}
        assert all(0 < onset.time - true[2 * n].time < 0.008 for n, onset in enumerate(kicks))


def on_the_beat(*places, bpm=120.0, first=0.2):
    """Kicks at these places of every beat, each up to 15 ms beside it, and the beats."""
    random = np.random.default_rng(0)
    times = [first + (n + place) * 60 / bpm for n in range(int((SECONDS - 0.5) * bpm / 60)) for place in places]
    return curves([Onset(time + random.uniform(-0.015, 0.015), "kick", 1.0) for time in times]), Beats(bpm, first), times


@pytest.mark.parametrize(
    "places",
    [
        (0, 1 / 2),
        (0, 1 / 4, 1 / 2, 3 / 4),
        (0, 1 / 4),
        (0, 3 / 4),
        (0, 2 / 3),
        (0, 1 / 3, 1 / 2, 2 / 3),
        (0, 1 / 6),
        (0, 5 / 6),
    ],
)
def test_strokes_on_steps_are_on_sixteenth_notes_or_triplets_as_late_as_strokes_are_found(places):
    drawn, beats, times = on_the_beat(*places)
    found = pick(drawn, [99, 0, 0, 0, 2 * len(places)], density=0.8, beats=beats)
    assert len(found) == pytest.approx(0.8 * SECONDS * 2 * len(places), abs=2)
    assert all(min(abs(onset.time - 0.003 - time) for time in times) < 1e-9 for onset in found)
    free = pick(drawn, [99, 0, 0, 0, 2 * len(places)], density=0.8)
    assert max(min(abs(onset.time - time) for time in times) for onset in free) > 0.01


def test_a_few_triplets_do_not_make_a_song_of_triplets():
    drawn, beats, _ = on_the_beat(0, 1 / 4, 1 / 2, 3 / 4)
    drawn[0] += 1.5 * on_the_beat(2 / 3)[0][0]
    steps = [(onset.time - 0.203) / 0.125 for onset in pick(drawn, [99, 0, 0, 0, 8], density=1.0, beats=beats)]
    assert np.allclose(steps, np.rint(steps), atol=1e-6)


@pytest.mark.parametrize(
    ("straight", "swung", "triplets"),
    [
        ((1 / 4,), (2 / 3,), True),  # three times as high
        ((1 / 4, 3 / 4), (1 / 6, 1 / 3, 2 / 3, 5 / 6), True),
        ((1 / 4, 3 / 4), (), False),
    ],
)
def test_a_few_sixteenths_do_not_make_a_song_of_sixteenths(straight, swung, triplets):
    drawn, beats, _ = on_the_beat(0, *swung, bpm=60)
    drawn[0] += (0.3 if triplets else 1) * on_the_beat(*straight, bpm=60)[0][0]
    steps = np.array([onset.time - 0.203 for onset in pick(drawn, [99, 0, 0, 0, 9], density=1.0, beats=beats)])
    for per_beat, all_on in ((6, triplets), (4, not triplets)):
        assert np.allclose(steps * per_beat, np.rint(steps * per_beat), atol=1e-6) == all_on


def test_triplets_are_weighed_by_the_highest_of_their_places_not_by_their_number():
    drawn, beats, _ = on_the_beat(0, 1 / 4, 3 / 4, bpm=60)
    drawn[0] += 1.5 * on_the_beat(1 / 6, 1 / 3, 2 / 3, 5 / 6, bpm=60)[0][0]
    steps = [(onset.time - 0.203) / 0.25 for onset in pick(drawn, [99, 0, 0, 0, 4], density=1.0, beats=beats)]
    assert np.allclose(steps, np.rint(steps), atol=1e-6)


def test_a_loud_stroke_that_is_late_is_before_a_soft_one_on_its_step_and_no_step_is_behind_the_end():
    drawn = curves([Onset(0.2 + 0.5 * n + 0.02 * (n % 2), "kick", 1.0 if n % 2 else 0.75) for n in range(39)])
    found = pick(drawn, [99, 0, 0, 0, 1], density=1.0, beats=Beats(120.0, 0.2))
    assert all((onset.time - 0.203) % 1 == pytest.approx(0.5) for onset in found[:15])
    last = drawn[:, :100] + np.float32(0.1)
    last[REST] = 0
    assert pick(last, [99, 0, 0, 0, 99], density=1.0, beats=Beats(120.0, 99.7 * FRAME % 0.5))


def test_on_steps_the_highest_are_chosen_and_none_where_nothing_is_heard():
    drawn, beats, _ = on_the_beat(0, 1 / 2)
    drawn[0] *= np.where(np.arange(FRAMES) * FRAME % 0.5 < 0.35, 0.5, 1.0)  # softer on the beat than after it
    found = pick(drawn, [99, 0, 0, 0, 2], density=0.8, beats=beats)
    assert all((onset.time - 0.203) / 0.5 % 1 == pytest.approx(0.5) for onset in found) and len(found) > 30
    assert [onset.time for onset in found] == sorted(onset.time for onset in found)
    drawn[:, : FRAMES // 2] = 0
    rest = pick(drawn, [99, 0, 0, 0, 20], density=1.0, beats=beats)
    assert min(onset.time for onset in rest) > 9.9
    for frames in (0, 1, 5):
        assert pick(np.zeros((5, frames), np.float32), [1, 1, 1, 1, 2], beats=Beats(120.0, 0.2)) == []


def test_classes_whose_peaks_are_two_frames_apart_are_one_stroke_and_the_edges_of_a_song_have_none():
    drawn = np.zeros((5, 400), np.float32)
    drawn[0, [100, 101, 102]], drawn[2, 102] = (1.0, 0.3, 0.1), 0.6
    drawn[1, [0, 399]] = 5.0
    found = pick(drawn, [9, 9, 9, 0, 2], density=1.0)
    assert [onset.kind for onset in found] == ["kick", "hat"], "a hat that is a little late, and nothing at the edges"
    assert len({onset.time for onset in found}) == 1 and found[0].time == pytest.approx(100 * FRAME, abs=FRAME / 2)


def test_strength_is_that_over_the_loudest_of_a_class_and_never_nothing():
    drawn = curves([Onset(0.5 + 0.4 * n, "kick", 1.0 if n % 10 == 0 else 0.4 if n % 2 else 0.03) for n in range(45)])
    strengths = [onset.strength for onset in pick(drawn, [2.5, 0, 0, 0, 2.5], density=1.0)]
    assert strengths[::10] == pytest.approx([1.0] * 5, abs=0.05) and strengths[1::2] == pytest.approx([0.4] * 22, abs=0.05)
    assert strengths[2] == pytest.approx(0.1)


def test_no_peak_is_no_stroke():
    assert pick(curves([]), [1, 1, 1, 1, 2]) == [] and pick(np.zeros((5, 0), np.float32), [1, 1, 1, 1, 2]) == []


@pytest.mark.parametrize("row", [0, REST])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_activations_that_are_not_finite_are_refused(row, value):
    """A NaN was a rest of the song, and an infinite value a stroke of no strength at no time."""
    drawn = curves([Onset(0.5 + 0.4 * n, "kick", 1.0) for n in range(40)])
    drawn[row, 700] = value
    drawn[1, 700] = value if value == 3e38 else 0  # each is finite, and their sum is not
    for beats in (None, Beats(120.0, 0.2)):
        with pytest.raises(ValueError, match=r"the pattern network's output is not finite .*: use another model"):
            pick(drawn, [1, 1, 1, 1, 2], beats=beats)


def test_strokes_are_laid_at_their_samples():
    onsets = [Onset(0.5, "kick", 1.0), Onset(0.5, "hat", 1.0), Onset(1.25, "snare", 1.0)]
    sound = lay(onsets, KIT, 2 * RATE, RATE, level=-20)
    assert sound.dtype == np.float32 and len(sound) == 2 * RATE
    assert np.flatnonzero(sound).tolist() == [round(0.5 * RATE), round(1.25 * RATE)]
    # A kick of 1 and a hat of 0.5 over a snare of 1.
    assert sound[round(0.5 * RATE)] / sound[round(1.25 * RATE)] == pytest.approx(1.5, abs=0.01)


def test_the_level_is_what_was_asked_for():
    onsets = [Onset(0.1 + 0.25 * n, "kick", 1.0) for n in range(100)]
    sound = lay(onsets, KIT, 25 * RATE, RATE, level=-23.0)
    assert playing_level(frame_powers(sound, RATE), np.array([onset.time for onset in onsets])) == pytest.approx(-23.0, abs=0.4)


def test_parts_are_the_whole_wherever_it_is_cut():
    random = np.random.default_rng(0)
    strokes = [Stroke(random.normal(0, 1, size).astype(np.float32), 1.0) for size in (20000, 30000, 44100)]
    kit = Kit(dict.fromkeys(CLASSES, strokes), (1.0,) * 5, 0.0)
    onsets = [Onset(t, CLASSES[n % 4], 0.5) for n, t in enumerate(np.sort(random.uniform(-0.001, 6, 60)))]
    sketch = Sketch(onsets, kit, RATE, -20.0, seed=3)
    whole = sketch.part(0, 6 * RATE)
    cuts = [0, 1, 999, 70_000, 70_001, 200_000, 6 * RATE]
    assert np.array_equal(np.concatenate([sketch.part(a, b) for a, b in itertools.pairwise(cuts)]), whole)
    assert np.array_equal(lay(onsets, kit, 6 * RATE, RATE, -20.0, seed=3), whole)
    assert not np.array_equal(lay(onsets, kit, 6 * RATE, RATE, -20.0, seed=4), whole)


def test_layers_ring_over_each_other_but_a_stroke_ends_where_the_next_of_its_class_begins():
    ring = [Stroke(np.ones(RATE, np.float32), 1.0)]
    kit = Kit({"kick": ring, "hat": [Stroke(np.full(RATE, 2.0, np.float32), 1.0)]}, (1.0,) * 5, 0.0)
    sketch = Sketch([Onset(0.5, "kick", 1.0), Onset(0.9, "hat", 1.0), Onset(1.2, "kick", 1.0)], kit, RATE, -20.0)
    sound = sketch.part(0, 3 * RATE) / np.float32(sketch.gain)
    at = lambda time: sound[round(time * RATE)]  # noqa: E731
    assert [at(0.6), at(1.0), at(1.3), at(1.95)] == pytest.approx([1, 3, 3, 1])
    assert 3 < at(1.21) < 4 and at(1.24) == pytest.approx(3), "choked in 30 ms"


def test_a_loud_stroke_is_played_by_a_loud_one():
    kit = Kit({"kick": clicks([0.2] * 10 + [1.0] * 10)}, (1.0,) * 5, 0.0)
    sketch = Sketch([Onset(n * 0.5, "kick", 1.0 if n % 2 else 0.2) for n in range(20)], kit, RATE, -20.0)
    loud = [float(np.abs(sound).max()) for _, sound, _ in sketch.places]
    assert [level > 0.5 for level in loud] == [bool(n % 2) for n in range(20)]


WHOLE = Beats(60 / (43 * FRAME), 17 * FRAME)
"""Beats of whole frames, so that nothing is between two of them: 120.2 BPM."""


def grid(heights, rest=()):
    """Activations of kicks on `WHOLE`, each of its height; rests in some beats."""
    onsets = [Onset((17 + 43 * n) * FRAME, "kick", height) for n, height in enumerate(heights) if height]
    found = curves(onsets, (10 + 43 * len(heights)) * FRAME)
    for beat in rest:
        found[REST, 5 + 43 * beat : 5 + 43 * (beat + 1)] = 1
    return found


def heights(curve, beats):
    return curve[17 + 43 * np.arange(beats)]


def test_each_beat_is_played_like_those_of_the_bars_around_it():
    """One in four is a kick, and each is the average of them all; the next bars have another beat's."""
    random = np.random.default_rng(0)
    true = np.array([1.0, 0, 0, 0] * 40) * random.uniform(0.2, 1, 160)
    found = heights(repeated(grid(true), WHOLE)[0], 160)
    whole = np.convolve(true, np.where(np.arange(-32, 33) % 4 == 0, 1.0, 0.25), "same")
    count = np.convolve(np.ones(160), np.where(np.arange(-32, 33) % 4 == 0, 1.0, 0.25), "same")
    assert np.allclose(found, whole / count, atol=1e-3)
    assert found[::4].min() > 2.5 * np.delete(found, slice(0, None, 4)).max(), "bars of four stay bars of four"


def test_rests_stay_where_they_are_and_count_for_no_other_beat():
    rests = range(20, 28)
    drawn = grid([1.0 if n in rests else 0.5 for n in range(60)], rests)
    found = repeated(drawn, WHOLE)
    assert np.array_equal(found[REST], drawn[REST])
    assert np.allclose(np.delete(heights(found[0], 60), rests), 0.5, atol=1e-3)
    times = np.array([onset.time for onset in pick(found, [2, 0, 0, 0, 2], density=1.0, beats=WHOLE)])
    begin, end = WHOLE.first + np.array([20, 28]) * 60 / WHOLE.bpm - 12 * FRAME
    assert ((times > end) | (times < begin)).all() and np.diff(times).max() < 9.5 * 60 / WHOLE.bpm


def test_patterns_repeat_with_a_tempo_that_drifts():
    time = np.arange(0, SECONDS + 3, 0.001)
    numbers = np.cumsum(2 * (1 + 0.04 * np.sin(2 * np.pi * time / 12))) * 0.001 - 0.6
    beats = drifting(120.0, np.interp(np.arange(int(numbers[-1])), numbers, time))
    drawn = curves([Onset(one, "kick", 1.0) for one in beats.times(SECONDS)])
    assert np.corrcoef(repeated(drawn, beats)[0], drawn[0])[0, 1] > 0.97
    assert np.corrcoef(repeated(drawn, Beats(beats.bpm, beats.first))[0], drawn[0])[0, 1] < 0.9


def test_activations_that_are_not_finite_do_not_repeat():
    with pytest.raises(ValueError, match="not finite"):
        repeated(np.full((5, 100), np.nan, np.float32), Beats(120.0, 0.2))


def test_soft_hats_are_where_further_strokes_are_likely():
    strengths = (1.0, 0.3, 0.6, 0.3)
    true = [Onset(0.5 + 0.25 * n, "kick", strengths[n % 4]) for n in range(70)]
    plain = pick(curves(true, 18.0), [1.0, 0, 0, 0, 1.0], density=1.0)
    found = pick(curves(true, 18.0), [1.0, 0, 0, 0, 1.0], density=1.0, soft_hats=True)
    soft = [onset for onset in found if onset.soft]
    assert [onset for onset in found if not onset.soft] == plain and not any(onset.soft for onset in plain)
    assert {onset.kind for onset in soft} == {"hat"} and (len(plain), len(soft)) == (18, 6), "0.35 x 6 in each six seconds"
    assert [onset.strength for onset in soft] == pytest.approx([0.1] * 6), "that of hats, which are not likely at all here"
    highest, next_highest = ({round((onset.time - 0.5) / 0.25) % 4 for onset in part} for part in (plain, soft))
    assert (highest, next_highest) == ({0}, {2})
    times = [onset.time for onset in found]
    assert times == sorted(times)


def test_soft_hats_are_18_db_quieter_and_change_nothing_else():
    loud = [Onset(0.5 + n, "hat", 1.0 - n / 100) for n in range(20)]
    soft = [Onset(1.0 + n, "hat", 1.0 - n / 100, soft=True) for n in range(20)]
    kit = Kit({"hat": clicks(np.linspace(0.1, 1, 20))}, (1.0,) * 5, 0.0)
    both = sorted([*loud, *soft], key=lambda onset: onset.time)
    alone, found = (lay(onsets, kit, 21 * RATE, RATE, -20.0, among=0.25) for onsets in (loud, both))
    assert np.array_equal(found[alone != 0], alone[alone != 0]), "neither their level nor which strokes are played"
    heights = np.abs(found[round(RATE) :: RATE][: len(soft)])
    top = np.abs(found[round(0.5 * RATE)])
    assert 20 * np.log10(heights.max() / top) == pytest.approx(-18, abs=1.5)
    assert heights.min() < 0.3 * heights.max(), "with any of the kit's strokes"
    assert not lay(soft, Kit({"kick": clicks([1.0])}, (1.0,) * 5, 0.0), RATE, RATE, -20.0).any()


def test_no_strokes_are_silence():
    assert not lay([], KIT, 100, RATE, -20.0).any()
    assert not lay([Onset(0.1, "other", 1.0)], KIT, RATE, RATE, -20.0).any()


def test_strokes_follow_a_tempo_that_drifts():
    """On its sixteenth notes, which no constant tempo has."""
    time = np.arange(0, SECONDS + 3, 0.001)
    numbers = np.cumsum(2 * (1 + 0.04 * np.sin(2 * np.pi * time / 12))) * 0.001 - 0.6
    beats = drifting(120.0, np.interp(np.arange(int(numbers[-1])), numbers, time))
    sixteenths = beats.times(SECONDS, 4)
    drawn = curves([Onset(one, "kick", 1.0) for one in sixteenths[2:-2:3]])
    found = np.array([onset.time for onset in pick(drawn, [99, 0, 0, 0, 99], density=1.0, beats=beats)])
    assert len(found) >= len(sixteenths[2:-2:3])
    assert np.abs(found[:, None] - 0.003 - sixteenths).min(axis=1).max() < 1e-6
    constant = Beats(beats.bpm, beats.first).times(SECONDS, 4)
    assert np.abs(found[:, None] - 0.003 - constant).min(axis=1).max() > 0.04

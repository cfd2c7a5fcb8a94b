"""What a pattern network hears: the song's bands and rises at their times, and the position in the bar."""

import tracemalloc

import numpy as np

from p2p_dist.audio.attacks import FINE, Rises
from p2p_dist.audio.beats import Beats
from p2p_dist.audio.pattern_features import CHANNELS, FRAME, HOP, RATE, SOUND, beat_positions, pattern_features, silent_ends


def tone(at=1.0, seconds=3.0, hertz=1000.0):
    time = np.arange(round(seconds * RATE)) / RATE
    loud = np.clip((time - at) / 0.02, 0, 1) * np.clip((seconds - 0.1 - time) / 0.05, 0, 1)
    return (0.5 * np.sin(2 * np.pi * hertz * time) * loud).astype(np.float32)


def test_a_tone_rises_where_it_begins_and_in_its_part():
    found = pattern_features(tone(), RATE, None)
    assert found.shape == (CHANNELS, 1 + 3 * RATE // HOP) and found.dtype == np.float32
    low, middle, high = found[SOUND - 3 : SOUND]
    assert abs(middle.argmax() * FRAME - 1.0) < 0.02
    assert middle.max() > 3 * max(low.max(), high.max())
    levels = found[: (SOUND - 3) // 2]
    assert levels[:, -40].max() > 0.9 and levels.min() == -1 and levels.max() <= 1.25


def test_blocks_and_the_level_do_not_matter():
    song = tone() + np.random.default_rng(0).normal(0, 0.01, 3 * RATE).astype(np.float32)
    whole = pattern_features(song, RATE, None)
    assert np.array_equal(pattern_features((song[n : n + 777] for n in range(0, len(song), 777)), RATE, None), whole)
    assert np.allclose(pattern_features(song * 0.1, RATE, None), whole, atol=1e-4)


def test_a_very_quiet_song_has_the_features_of_a_loud_one():
    song = tone() + np.random.default_rng(0).normal(0, 0.01, 3 * RATE).astype(np.float32)
    assert np.allclose(pattern_features(song * 1e-4, RATE, None), pattern_features(song, RATE, None), atol=1e-3)


def test_long_silence_hardly_changes_the_levels():
    song = tone(seconds=6.0)
    longer = np.concatenate([song, np.zeros(60 * RATE, np.float32)])
    before, after = pattern_features(song, RATE, None), pattern_features(longer, RATE, None)
    assert 0 <= (after[: SOUND // 2, 3 * RATE // HOP] - before[: SOUND // 2, 3 * RATE // HOP]).max() <= 1 / 40 + 1e-3


def test_silence_is_at_the_ends_alone_and_long():
    """Within a song the drums may play alone, and most songs end with a short silence."""
    sound, quiet = tone(at=0.0), np.zeros(3 * RATE, np.float32)
    song = np.concatenate([quiet, sound, quiet, sound, 1e-5 * sound, quiet])
    silent = silent_ends(pattern_features(song, RATE, None))
    times = np.arange(len(silent)) * FRAME
    assert silent[times < 2.9].all() and not silent[(times > 3.1) & (times < 11.8)].any() and silent[times > 12.1].all()
    short = np.concatenate([quiet[: RATE + RATE // 2], sound, quiet[: RATE + RATE // 2]])
    assert not silent_ends(pattern_features(short, RATE, None)).any()
    assert not silent_ends(pattern_features(quiet, RATE, None)).any(), "of a song without sound nothing is said"


def test_another_rate_gives_the_same_times():
    song = np.repeat(tone(), 2)
    found = pattern_features(song, 2 * RATE, None)
    assert found.shape[1] == 1 + 3 * RATE // HOP
    assert abs(found[SOUND - 2].argmax() * FRAME - 1.0) < 0.02


def test_phases_follow_the_beats():
    beats = Beats(120.0, 0.25)
    found = pattern_features(tone(), RATE, beats)
    sine, cosine = found[SOUND : SOUND + 2]
    for beat in (0.25, 0.75, 1.25):
        frame = round(beat / FRAME)
        assert cosine[frame] > 0.99 and abs(sine[frame]) < 0.1
        assert cosine[frame + round(0.25 / FRAME)] < -0.99
    bar = found[-1]
    assert bar[round(0.25 / FRAME)] > 0.99 and bar[round(1.25 / FRAME)] < -0.99 and bar[round(2.25 / FRAME)] > 0.99


def test_phases_are_zero_where_beats_are_unknown():
    assert not pattern_features(tone(), RATE, None)[SOUND:].any()


def test_positions_count_beats_from_the_first_and_below_it():
    beats = Beats(120.0, 0.25)
    assert np.allclose(beat_positions(beats, np.array([0.0, 0.25, 0.5, 1.25])), [-0.5, 0, 0.5, 2])


def test_silence_and_nothing_have_features():
    assert not np.isnan(pattern_features(np.zeros(RATE, np.float32), RATE, None)).any()
    assert pattern_features(np.zeros(0, np.float32), RATE, None).shape[0] == CHANNELS


def test_a_song_in_one_block_needs_no_memory_for_its_spectra():
    song = tone(seconds=40.0)
    tracemalloc.start()
    pattern_features(song, RATE, Beats(120.0, 0.25))
    features = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    rises = Rises(0.5, FINE)
    rises.add(song)
    rises.finish()
    envelope = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(features, envelope) < 2 * song.nbytes

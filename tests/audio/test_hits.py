"""Hits of a drum stem become the notes that a person would write down, at their times and at the tempo found."""

import mido
import numpy as np
import pytest

from p2p_dist.audio.beats import Beats
from p2p_dist.audio.hits import CLOSED_HAT, KICK, OPEN_HAT, RATE, SNARE, Bands, Hit, write_midi
from tests.audio.strokes import strokes


def heard(sound, size=5000):
    bands = Bands(float(np.abs(sound).max()))
    for start in range(0, len(sound), size):
        bands.add(sound[start : start + size].astype(np.float32))
    bands.finish()
    return bands


PATTERN = {
    KICK: ("kick", [0.25, 1.25, 2.25, 3.25]),
    SNARE: ("snare", [0.75, 1.75, 2.75, 3.75]),
    CLOSED_HAT: ("closed", [0.5, 1.0, 1.5, 2.0]),
    OPEN_HAT: ("open", [2.5, 3.0]),
}


@pytest.fixture(scope="module")
def beat():
    return sum(strokes(kind, times, 4.4) for kind, times in PATTERN.values())


@pytest.mark.parametrize("note", PATTERN)
def test_each_drum_is_its_note_at_its_time(beat, note):
    found = [hit.seconds for hit in heard(beat).hits() if hit.note == note]
    assert np.allclose(found, PATTERN[note][1], atol=0.015), found


def test_blocks_do_not_matter_nor_does_the_level(beat):
    assert heard(beat, 777).hits() == heard(beat, 100_000).hits()
    assert [(hit.note, hit.seconds) for hit in heard(0.05 * beat).hits()] == [
        (hit.note, hit.seconds) for hit in heard(beat).hits()
    ]


def test_louder_strokes_have_a_higher_velocity():
    sound = strokes("kick", [0.3, 1.3], 3) + strokes("kick", [0.8, 1.8], 3, loud=0.4)
    loud, quiet, *_ = (hit.velocity for hit in heard(sound).hits() if hit.note == KICK)
    assert loud > quiet + 10 and loud <= 127


def test_noise_that_comes_10_ms_after_the_body_is_of_the_same_stroke():
    times = [0.3, 1.3, 2.3]
    sound = strokes("snare", times, 3) + 3 * strokes("closed", [time + 0.01 for time in times], 3)
    sound += strokes("kick", [0.8, 1.8], 3)
    assert [hit.note for hit in heard(sound).hits()] == [SNARE, KICK, SNARE, KICK, SNARE]


def test_silence_has_no_hits():
    assert heard(np.zeros(6 * RATE)).hits() == [] and Bands(0.1).hits() == []


def test_a_note_ends_before_the_same_one_begins_again(tmp_path):
    """At 60 beats a minute a note of an eighth of a quarter lasts 125 ms. Otherwise its end cuts the next one off."""
    hits = [Hit(0.5, KICK, 100), Hit(0.55, KICK, 90), Hit(0.56, SNARE, 90), Hit(1.0, KICK, 80)]
    write_midi(tmp_path / "a.mid", hits, Beats(60.0, 0.1), "drums")
    at, on, lengths = 0.0, {}, []
    for event in mido.MidiFile(tmp_path / "a.mid"):
        at += event.time
        if event.type == "note_on":
            assert event.note not in on
            on[event.note] = at
        elif event.type == "note_off":
            lengths.append(round(at - on.pop(event.note), 2))
    assert not on and lengths == [0.05, 0.12, 0.12, 0.12]


def test_the_file_is_general_midi(tmp_path):
    hits = [Hit(0.5, KICK, 100), Hit(0.5, CLOSED_HAT, 60), Hit(1.25, SNARE, 110)]
    write_midi(tmp_path / "a.mid", hits, Beats(90.0, 0.1), "Õhtu drums")
    midi = mido.MidiFile(tmp_path / "a.mid", charset="utf-8")
    (lane,) = midi.tracks
    assert lane.name == "Õhtu drums"
    assert [mido.tempo2bpm(event.tempo) for event in lane if event.type == "set_tempo"] == [pytest.approx(90)]
    at, found = 0.0, []
    for event in midi:
        at += event.time
        if event.type == "note_on":
            assert event.channel == 9
            found.append((round(at, 2), event.note, event.velocity))
    assert sorted(found) == sorted((hit.seconds, hit.note, hit.velocity) for hit in hits)
    write_midi(tmp_path / "none.mid", [], None, "nothing")
    assert mido.MidiFile(tmp_path / "none.mid").length == 0

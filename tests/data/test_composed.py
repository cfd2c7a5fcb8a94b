"""Songs that the program composes: within their style, the same for a seed, beats and strokes where the sound has them."""

import shutil

import mido
import numpy as np
import pytest
import soundfile

from p2p_dist.audio import attacks, layouts, stems
from p2p_dist.audio.beats import DRUMS_LATE
from p2p_dist.audio.rhythm import beats_in
from p2p_dist.cli import compose as command
from p2p_dist.common import records, schemas
from p2p_dist.data.composed import render
from p2p_dist.data.composed.grooves import BASS_LINES, CHORD_RHYTHMS, CLASSES, GROOVES, STYLES
from p2p_dist.data.composed.score import compose

RENDERED = pytest.mark.skipif(
    shutil.which("fluidsynth") is None or not render.SOUND_FONT.is_file(),
    reason="FluidSynth or its sound font is not installed",
)


HEAD = b"RIFF\x08\0\0\0sfbk"


def test_every_pattern_fits_the_bars_of_the_styles_that_use_it():
    for style in STYLES.values():
        patterns = [pattern for name in style.grooves for pattern in GROOVES[name].values()]
        patterns += [BASS_LINES[name] for name in style.bass] + [CHORD_RHYTHMS[name] for name in style.chords]
        assert {len(pattern) for pattern in patterns} == {4 * style.beats_per_bar}
        assert set("".join(patterns)) <= set("xo.")
    assert {note for groove in GROOVES.values() for note in groove} <= set(CLASSES)


@pytest.mark.parametrize("number", range(len(STYLES)))
def test_a_song_keeps_to_its_style_and_its_instruments_play(number):
    score = compose(3, number, 40)
    style = STYLES[score.style]
    assert style.tempo[0] - 0.01 <= score.bpm <= style.tempo[1] + 0.01 and style.swing[0] <= score.swing <= style.swing[1]
    assert score.beats * 60 / score.bpm >= 40 and score.beats % (4 * style.beats_per_bar) == 0
    assert score.sections[0] == ("intro", 0) and "break" in [name for name, _ in compose(3, number, 120).sections]
    for stem, lines in score.lines.items():
        notes = [note for line in lines for note in line.notes]
        assert notes or stem == "vocals"
        assert all(0 <= note.beat < score.beats and 0 < note.velocity < 128 and 0 <= note.pitch < 128 for note in notes)


def test_a_seed_and_a_number_are_a_song():
    assert compose(1, 4, 20) == compose(1, 4, 20)
    assert compose(1, 4, 20) != compose(2, 4, 20) and compose(1, 4, 20) != compose(1, 17, 20)


def test_swing_delays_the_second_eighth_note():
    number = list(STYLES).index("shuffle")
    score = next(score for seed in range(9) if (score := compose(seed, number, 60)).bpm < 300)
    places = [note.beat % 1 for note in score.lines["other"][0].notes + score.lines["bass"][0].notes]
    late = [place for place in places if 0.4 < place < 0.9]
    assert late and np.median(late) == pytest.approx(score.swing, abs=0.03)


@RENDERED
def test_the_strokes_of_the_record_are_where_the_drums_sound(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "TEST_EVERY", 2)
    assert command.main([str(tmp_path), "--songs", "2", "--seed", "5", "--seconds", "12"]) == 0
    one, two = layouts.find_songs(tmp_path)
    assert {one.split, two.split} == {"train", "test"}
    content = records.read(one.path / "song.json", schemas.COMPOSED)
    _, (drums, rest) = stems.load_sums(one, [("drums",), ("bass", "other", "vocals")])
    assert drums.sound.shape == rest.sound.shape and drums.sound.shape[0] == round(content["seconds"] * render.RATE)
    assert 0.05 < np.abs(drums.sound + rest.sound).max() <= 1
    loud = np.abs(drums.sound).max(axis=1)
    for stroke in [stroke for stroke in content["drums"] if stroke["class"] in ("kick", "snare")][:20]:
        at = round(stroke["seconds"] * render.RATE)
        assert loud[at : at + 882].max() > 3 * loud[max(at - 441, 0) : at + 44].min(), stroke
    beats = beats_in(stems.mono(drums.sound, render.RATE, attacks.RATE), DRUMS_LATE)
    step = 15 / content["bpm"]
    assert abs((beats.first + step / 2) % step - step / 2) < 0.005, "the first beat of a composed song is at 0"
    midi = mido.MidiFile(one.path / "song.mid")
    assert [mido.tempo2bpm(event.tempo) for event in midi.tracks[0] if event.type == "set_tempo"] == [content["bpm"]]
    assert np.diff(content["beats"]) == pytest.approx(60 / content["bpm"], abs=1e-5)
    # Asked again, songs that are there are kept.
    before = soundfile.info(one.path / "drums.flac").frames
    (one.path / "bass.flac").unlink()
    assert command.main([str(tmp_path), "--songs", "2", "--seed", "5", "--seconds", "12"]) == 0
    assert not (one.path / "bass.flac").exists() and soundfile.info(one.path / "drums.flac").frames == before


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="apt-get install fluidsynth"):
        command.main([str(tmp_path / "songs")])
    (tmp_path / "fluidsynth").write_text("#!/bin/sh\necho no sound >&2\nexit 3\n")
    (tmp_path / "fluidsynth").chmod(0o700)
    with pytest.raises(ValueError, match=r"no sound font .*/none.sf2: apt-get install fluid-soundfont-gm, or name another"):
        command.main([str(tmp_path / "songs"), "--font", str(tmp_path / "none.sf2")])
    for content, said in (
        (b"", "is not a SoundFont"),
        (b"RIFF\xff\0\0\0WAVE", "is not a SoundFont"),
        (HEAD[:-1], "is not a SoundFont"),
    ):
        (tmp_path / "font.sf2").write_bytes(content)
        with pytest.raises(ValueError, match=rf"font\.sf2 {said}"):
            command.main([str(tmp_path / "songs"), "--font", str(tmp_path / "font.sf2")])
    (tmp_path / "font.sf2").write_bytes(HEAD + b"\0" * 3)
    with pytest.raises(ValueError, match=r"font\.sf2 is truncated: its header states 16 bytes, the file has 15; copy it again"):
        command.main([str(tmp_path / "songs"), "--font", str(tmp_path / "font.sf2")])
    (tmp_path / "font.sf2").write_bytes(HEAD + b"\0" * 4)
    with pytest.raises(ValueError, match="FluidSynth failed \\(no sound\\)"):
        command.main([str(tmp_path / "songs"), "--font", str(tmp_path / "font.sf2"), "--songs", "1"])
    assert not list((tmp_path / "songs").rglob("*.flac"))


def test_an_empty_name_is_not_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="an argument is empty: specify a folder for the songs"):
        command.main([""])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("typed", ["--songs 0", "--seed -1", "--seconds 5"])
def test_a_number_out_of_range_is_refused(typed, tmp_path):
    with pytest.raises(ValueError, match=typed.split()[0]):
        command.main([str(tmp_path / "songs"), *typed.split()])
    assert not (tmp_path / "songs").exists()

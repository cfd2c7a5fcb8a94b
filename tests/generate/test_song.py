"""The stem of one song: level, part, rate and channels, and songs of any length."""

import json
from pathlib import Path

import numpy as np
import pytest

from p2p_dist.cli import generate
from p2p_dist.generate import song as one_song
from p2p_dist.model.generator import Generator
from p2p_dist.train import checkpoint
from tests.conftest import lay_out_run
from tests.full_disk import largest_file
from tests.generate.conftest import sound, write
from tests.generate.made import STEP, made


def test_level_and_part(runs):
    song = sound(3.0)
    write(Path("song.wav"), song)
    assert generate.main(["song.wav", "--from", "0.5", "--to", "2", "--out", "part"]) == 0
    assert generate.main(["song.wav", "--from", "0.5", "--to", "2", "--level", "-12", "--out", "quiet"]) == 0
    stem, mix, rate, record = made(Path("part"))
    quiet, quiet_mix, *_ = made(Path("quiet"))
    part = song[rate // 2 : 2 * rate]
    assert mix.shape == part.shape and record["song"]["begin_sample"] == rate // 2
    assert np.abs(quiet_mix - quiet - part).max() <= STEP * 1.001
    assert 10 * np.log10((stem**2).mean() / (quiet**2).mean()) == pytest.approx(12, abs=0.01)


def test_where_the_mix_would_clip_both_are_turned_down(runs, capsys):
    song = sound(1.3, level=0.33)
    write(Path("song.wav"), song)
    assert generate.main(["song.wav", "--level", "12"]) == 0
    stem, mix, _, record = made(Path("generated/song"))
    (take,) = record["takes"]
    assert take["gain_db"] < 0 and 0.9 < np.abs(mix).max() <= 1
    assert np.abs(mix - stem - song * 10 ** (take["gain_db"] / 20)).max() <= STEP * 1.001
    assert f"note: stem and mix were both turned down by {-take['gain_db']:g} dB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rate", "channels", "name"),
    [
        (8000, 1, "song.wav"),
        (44100, 1, "song.flac"),
        (48000, 2, "song.aiff"),
        (192000, 2, "song.flac"),
        (11025, 6, "song.flac"),
        (11025, 4, "song.wav"),
    ],
)
def test_any_rate_and_channel_count(runs, rate, channels, name, capsys):
    song = sound(0.7, rate, channels)
    write(Path(name), song, rate)
    assert generate.main([name]) == 0
    stem, mix, found, record = made(Path("generated/song"))
    assert found == rate and stem.shape == song.shape and len(record["song"]["channels"]) == channels
    assert np.abs(mix - stem - song).max() <= STEP * 1.001 and np.abs(stem[:, 0]).max() > 0.001
    said = capsys.readouterr().out
    assert ("contains nothing above" in said) == (rate < 22050)
    if channels > 2:
        assert not stem[:, 2:].any() and np.array_equal(stem[:, 0], stem[:, 1])
    if channels == 6:
        assert not stem[:, 2:].any() and np.array_equal(stem[:, 0], stem[:, 1])
        assert (
            "6 channels (FL, FR, FC, LFE, SL, SR): the model hears all of them, the new stem is in front left and "
            "right (FL, FR)"
        ) in said
    if channels == 4:
        assert (
            "4 channels (1, 2, 3, 4): the model hears all of them, the new stem is in front left and right (the "
            "first two, because"
        ) in said


@pytest.mark.parametrize("silent", [2, 4])
def test_silent_channels_do_not_change_the_level_of_the_stem(runs, silent):
    song = sound(0.7, 22050)
    write(Path("stereo/song.wav"), song)
    write(Path("more/song.wav"), np.concatenate([song, np.zeros((len(song), silent))], axis=1))
    for name in ("stereo", "more"):
        assert generate.main([f"{name}/song.wav", "--out", f"{name}/out"]) == 0
    (stereo, *_), (more, *_) = (made(Path(name) / "out") for name in ("stereo", "more"))
    assert np.abs(stereo).max() > 0.001 and np.abs(more[:, :2] - stereo).max() <= 1e-4 * np.abs(stereo).max()


@pytest.mark.parametrize("kind", ["wav", "ogg", "mp3"])
def test_formats_to_write(runs, kind):
    song = sound(1.3, 44100)
    write(Path("song.wav"), song, 44100)
    assert generate.main(["song.wav", "--format", kind]) == 0
    stem, mix, rate, _ = made(Path("generated/song"), kind=kind)
    assert rate == 44100 and mix.shape[1] == 2 and abs(len(mix) - len(song)) <= (0 if kind != "mp3" else 2500)
    if kind == "wav":
        assert np.abs(mix - stem - song).max() <= STEP * 1.001


def test_a_generator_whose_output_is_not_finite_makes_nothing(tmp_path, monkeypatch):
    """All of its weights are finite. It made a mix in which the song was silent, and said that all was well."""
    run, settings = lay_out_run(tmp_path, tmp_path, "overflows")
    monkeypatch.setenv("P2P_RUNS", str(run.path.parent))
    monkeypatch.chdir(tmp_path)
    weights = Generator(settings.model).state_dict()
    weights["down.0.convolution.weight"].sign_().mul_(3e38)
    checkpoint.save(run.checkpoints, 20, {"step": 20}, weights, {})
    write(Path("song.wav"), sound())
    with pytest.raises(ValueError, match=r"the generator's output is not finite .*: use another checkpoint or model"):
        generate.main(["song.wav"])
    assert not Path("generated").exists() or not list(Path("generated").rglob("*.*"))


def test_a_song_that_is_changed_meanwhile(runs, monkeypatch):
    write(Path("song.wav"), sound(0.5))
    real = one_song._measure

    def measured(*given):
        found = real(*given)
        write(Path("song.wav"), sound(0.6))
        return found

    monkeypatch.setattr(one_song, "_measure", measured)
    with pytest.raises(ValueError, match=r"song\.wav was changed while it was being read: run the command again"):
        generate.main(["song.wav"])
    assert not Path("generated/song").exists()


@pytest.mark.parametrize(("right", "told"), [(-0.97, True), (-0.5, False), (0.0, False), (1.0, False)])
def test_channels_that_cancel_out_are_told(runs, capsys, right, told):
    """As where the voice was removed by subtracting one channel from the other."""
    write(Path("song.wav"), sound(2.0, channels=1) * np.array([[1.0, right]]))
    assert generate.main(["song.wav"]) == 0
    assert ("left and right are out of phase" in capsys.readouterr().out) == told


def test_a_song_that_holds_drums_already(runs, capsys):
    from tests.audio.strokes import strokes

    hats = strokes("closed", np.arange(0.1, 2.9, 0.25), 3)
    song = 0.3 * hats[:, None] + 0.1 * sound(3, channels=1)
    write(Path("song.wav"), song * 0.002)  # however quiet the song is
    assert generate.main(["song.wav"]) == 0
    assert "note: the song seems to contain drums already (" in capsys.readouterr().out
    write(Path("few.wav"), song[:22050])
    assert generate.main(["few.wav"]) == 0
    assert "contain drums" not in capsys.readouterr().out, "of a few hats it says nothing"
    write(Path("without.wav"), sound(3, channels=1))
    assert generate.main(["without.wav"]) == 0
    assert "contain drums" not in capsys.readouterr().out


def test_a_file_that_is_cut_short_is_used_to_where_it_ends(runs, capsys):
    song = sound(2.0)
    write(Path("song.wav"), song)
    content = Path("song.wav").read_bytes()
    Path("song.wav").write_bytes(content[: 44 + (len(content) - 44) // 2])
    assert generate.main(["song.wav"]) == 0
    stem, mix, *_ = made(Path("generated/song"))
    assert abs(len(mix) - len(song) // 2) < 100 and np.abs(mix - stem - song[: len(mix)]).max() <= STEP * 1.001
    assert "note: the file is cut short, its header says 2.000 s, 1.000 s are there" in capsys.readouterr().out


def test_a_song_shorter_than_a_window(runs, capsys):
    write(Path("song.wav"), sound(0.1))
    assert generate.main(["song.wav"]) == 0
    assert "shorter than the 0.4 s that the model hears at once" in capsys.readouterr().out
    assert len(made(Path("generated/song"))[1]) == 2205


def test_a_disk_that_runs_full_while_a_stem_is_made_names_the_folder(tmp_path):
    blocks = iter([np.zeros((1000, 1), np.float32)] * 3)
    counts = []
    with largest_file(8000), pytest.raises(OSError, match="File too large") as raised:
        one_song._keep(blocks, tmp_path / "raw", counts.append)
    assert raised.value.filename == str(tmp_path) and counts[0] == 1000


def test_files_of_an_earlier_request_are_no_songs_later(runs):
    """They have another format or number of takes; no record named them any more."""
    write(Path("song.wav"), sound(0.4))
    assert generate.main(["song.wav", "--out", "o", "--takes", "2"]) == 0
    Path("o/song-drums-live.flac").touch()
    Path("o/song-drums-3.flac").touch()  # no record names it: somebody else's
    record = json.loads(Path("o/song.json").read_text())
    record["takes"][0]["files"]["mix"]["name"] = "../song.wav"
    Path("o/song.json").write_text(json.dumps(record))
    assert generate.main(["song.wav", "--out", "o", "--format", "wav", "--overwrite"]) == 0
    left = {path.name for path in Path("o").iterdir() if path.is_file()}
    made = {"song-drums.wav", "song-mix.wav", "song-drums.mid", "song.json", "index.html"}
    assert left - {"song-mix-1.flac"} == made | {"song-drums-live.flac", "song-drums-3.flac"}
    assert Path("song.wav").is_file()


@pytest.mark.parametrize("link", ["media", "media/song"])
def test_a_link_in_place_of_the_tracks_is_refused_before_anything_is_made(runs, link, tmp_path):
    write(Path("song.wav"), sound(0.4))
    (tmp_path / "elsewhere").mkdir()
    Path("o", link).parent.mkdir(parents=True)
    Path("o", link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"o/{link} .*link|o/{link} already exists"):
        generate.main(["song.wav", "--out", "o"])
    with pytest.raises(ValueError, match=f"o/{link} is a link"):
        generate.main(["song.wav", "--out", "o", "--overwrite"])
    assert [path.name for path in Path("o").iterdir()] == ["media"]


def test_a_home_folder_is_that_of_the_user(runs, monkeypatch, tmp_path):
    write(Path("song.wav"), sound(0.4))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert generate.main(["song.wav", "--out=~/made"]) == 0
    assert (tmp_path / "home" / "made" / "song.json").is_file() and not Path("~").exists()

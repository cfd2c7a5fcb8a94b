"""Sound files of any program, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from p2p_dist.cli import evaluate
from p2p_dist.common import records
from p2p_dist.evaluate import audio_files


def sounds(length: int = 44100) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    time = np.arange(length) / 22050
    heard = 0.1 * np.sin(2 * np.pi * 220 * time)
    drums = 0.3 * random.standard_normal(length) * np.exp(-20 * (time % 0.25))
    return {"input": heard, "target": heard + drums, "output": heard + 0.5 * drums}


def lay_out(folder: Path, **changed: Any) -> str:
    """Three folders of one file each; `changed` replaces a sound, None leaves it out, a pair is (sound, rate)."""
    for kind, sound in (sounds() | changed).items():
        (folder / kind).mkdir(parents=True)
        if sound is not None:
            samples, rate = sound if isinstance(sound, tuple) else (sound, 22050)
            soundfile.write(folder / kind / f"a song_{kind}_1.wav", samples, rate, subtype="FLOAT")
    return str(folder) + "/{input,output,target}/*.wav"


def test_files_made_by_anything_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pattern = lay_out(tmp_path / "some files")
    assert evaluate.main(["--files", pattern, "--mixes", "--json", str(tmp_path / "found.json")]) == 0
    found = records.read(tmp_path / "found.json")
    rows = found["songs"]["a song_1"]
    assert set(rows) == {"copy the input", "ceiling", "output"}, "silence is no mix"
    assert 0 < rows["output"]["mix_l1"] < rows["copy the input"]["mix_l1"] and rows["output"]["lock8"] is None
    shown = capsys.readouterr().out
    assert "the files hold mixes, so the stem is unknown" in shown
    assert evaluate.main(["--files", pattern, "--best-gain", "--json", str(tmp_path / "found.json")]) == 0
    rows = records.read(tmp_path / "found.json")["songs"]["a song_1"]
    assert set(rows) == {"copy the input", "silence", "ceiling", "output"}


def test_one_gain_makes_up_for_another_level(tmp_path: Path) -> None:
    target = sounds()["target"]
    pattern = lay_out(tmp_path / "f", output=0.1 * target)
    for arguments, expected in (([], pytest.approx(20, abs=0.2)), (["--best-gain"], pytest.approx(0, abs=0.01))):
        evaluate.main(["--files", pattern, "--json", str(tmp_path / "found.json"), *arguments])
        assert records.read(tmp_path / "found.json")["mean"]["output"]["stem_l1"] == expected


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"output": None}, "no file matches .*output"),
        ({"target": np.zeros(44100)}, "a song_target_1.wav is silent, so .*output.* cannot be measured against it"),
        ({"output": sounds(44000)["output"]}, "differ in length in samples: .*44100.*44000"),
        ({"output": (sounds()["output"], 44100)}, "differ in rate in Hz: .*22050.*44100"),
        ({"output": np.full(44100, np.nan)}, "contains NaN or infinite samples"),
        ({"output": np.full(44100, 1e25)}, r"output.*contains samples up to 1e\+25 times full scale"),
        ({"target": np.zeros(0), "input": np.zeros(0), "output": np.zeros(0)}, "no samples"),
    ],
)
def test_files_that_can_not_be_measured_are_named(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        evaluate.main(["--files", lay_out(tmp_path / "f", **changed)])


def test_a_file_that_is_cut_short_or_not_readable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libsndfile reads a cut wav file without an error. If it failed: figures of the part that is there."""
    pattern = lay_out(tmp_path / "f")
    for path in (tmp_path / "f").rglob("*.wav"):
        path.write_bytes(path.read_bytes()[: 44100 * 2])
    with pytest.raises(ValueError, match=r"a song_input_1\.wav: cut short, its header says 2\.000 s"):
        evaluate.main(["--files", pattern])
    monkeypatch.setenv("HOME", str(tmp_path))

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(audio_files.soundfile, "SoundFile", refuse)
    monkeypatch.setattr(audio_files.wav, "whole", lambda path: path)
    with pytest.raises(ValueError, match=rf"{tmp_path}/f/input/a song_input_1\.wav: can't be read \(Permission denied\)"):
        evaluate.main(["--files", "~/f/{input,output,target}/*.wav"])


def test_a_streamed_flac_without_a_length_is_named(tmp_path: Path) -> None:
    """It was said that an array is too big."""
    lay_out(tmp_path)
    for path in tmp_path.rglob("*.wav"):
        soundfile.write(path.with_suffix(".flac"), *soundfile.read(path))
    path = tmp_path / "output" / "a song_output_1.flac"
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the length is 36 bits of the first block, which begins at 8
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"a song_output_1\.flac: a streamed flac without a length in its header: write it again"
    ):
        evaluate.main(["--files", f"{tmp_path}/{{input,output,target}}/*.flac"])


def test_copies_of_a_file_server_are_no_files_to_measure(tmp_path: Path) -> None:
    for folder in audio_files.FOLDERS:
        for below in ("", "@eaDir/a.wav"):
            (tmp_path / folder / below).mkdir(parents=True)
            (tmp_path / folder / below / "a.wav").touch()
    assert set(audio_files.find_triples(f"{tmp_path}/{{input,output,target}}/**/*.wav")) == {"a"}


def test_names_that_are_equal_in_all_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    """A folder's own word is left out of a name only where the names differ in it."""
    titles = ("output", "on target", "on")
    for folder in audio_files.FOLDERS:
        (tmp_path / folder).mkdir()
        for title in titles:
            (tmp_path / folder / f"{title}.wav").touch()
    found = audio_files.find_triples(str(tmp_path) + "/{input,output,target}/*.wav")
    assert set(found) == set(titles)
    assert all(paths[folder] == tmp_path / folder / f"{key}.wav" for key, paths in found.items() for folder in paths)


def test_what_is_there_as_it_is_written_is_no_pattern(tmp_path: Path) -> None:
    """Folders and files are called so, too: brackets, stars and braces are for patterns only where nothing has that name."""
    home = tmp_path / "takes [live] {old}" / "*"
    for folder in audio_files.FOLDERS:
        (home / "deep" / folder).mkdir(parents=True)
        for title in ("a [1]", "a 1", "b2"):
            (home / "deep" / folder / f"{title}.wav").touch()
        (home / "deep" / folder / "c.wav").mkdir()
    other = tmp_path / "takes l {old}" / "*" / "deep" / "input"
    other.mkdir(parents=True)
    (other / "x.wav").touch()
    for pattern, titles in {
        "*/deep/{input,output,target}/*.wav": {"a [1]", "a 1", "b2"},
        "*/deep/{input,output,target}/a [1].wav": {"a [1]"},
        "*/deep/{input,output,target}/[a-b]?[1].wav": {"a 1"},
        "**/{input,output,target}/b[0-9].wav": {"b2"},
        "*/deep/**/{input,output,target}/b2.wav": {"b2"},
    }.items():
        assert set(audio_files.find_triples(f"{tmp_path}/takes [live] {{old}}/{pattern}")) == titles, pattern
    with pytest.raises(ValueError, match="no file matches"):
        audio_files.find_triples(f"{tmp_path}/takes [dead]/{{input,output,target}}/*.wav")


def test_lists_that_do_not_match_are_named(tmp_path: Path) -> None:
    pattern = lay_out(tmp_path / "f")
    soundfile.write(tmp_path / "f" / "output" / "more.wav", sounds()["output"], 22050)
    with pytest.raises(ValueError, match=r"more\.wav has no input and no target of the same name \(more\)"):
        evaluate.main(["--files", pattern])
    (tmp_path / "f" / "output" / "more.wav").unlink()
    (tmp_path / "f" / "target" / "a song_target_1.wav").write_bytes(b"not sound")
    with pytest.raises(ValueError, match="can't be read as audio"):
        evaluate.main(["--files", pattern])
    with pytest.raises(ValueError, match="write it in quotes"):
        evaluate.main(["--files", "a/*.wav"])

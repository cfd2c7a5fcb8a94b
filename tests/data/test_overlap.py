"""Held-out songs that are trained on, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from p2p_dist.audio import stems
from p2p_dist.common import records
from p2p_dist.data import manifest, overlap, shards
from p2p_dist.data import manifest as manifests
from p2p_dist.evaluate import held_out_songs
from p2p_dist.settings.config import Data


def test_a_training_song_that_is_held_out_too_is_found_by_its_sound(
    new_song: Callable[..., Path], small: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under another name and in another format; another song of the same length is another song."""
    for number, name in enumerate(("train/One", "train/Two", "test/New")):
        new_song(tmp_path / "songs" / name, seconds=2.0, seed=number)
    again = tmp_path / "songs/test/01 - Same (remastered)"
    again.mkdir()
    for path in (tmp_path / "songs/train/Two").iterdir():
        sound, rate = soundfile.read(path)
        soundfile.write(again / f"{path.stem}.flac", 0.5 * sound, rate, subtype="PCM_16")
    assert shards.preprocess(tmp_path / "songs", tmp_path / "out", small, workers=1) == []
    told = "01 - Same (remastered) (test) has the audio of Two (train)"
    assert told in capsys.readouterr().err and told in (tmp_path / "out/DATASET.md").read_text()
    content = manifests.read(tmp_path / "out")
    assert [song.get("same_as") for song in content["splits"]["test"]["songs"]] == [["Two"], None]
    assert [song.name for song in held_out_songs.from_shards(tmp_path / "out", "test", 10, allow_overlap=False)] == ["New"]
    assert len(held_out_songs.from_shards(tmp_path / "out", "test", 10, allow_overlap=True)) == 2
    manifest.check_unseen(content, "test")
    content["splits"]["test"]["songs"].pop()
    content["splits"]["test"]["songs"][0]["name"] += "\nerror: lost"
    with pytest.raises(ValueError, match=r"all test songs .*Same \(remastered\)\\nerror: lost\).*--allow-overlap"):
        manifest.check_unseen(content, "test")
    # Of what earlier versions made, nothing is claimed.
    read = [records.read(path) for path in (tmp_path / "out/parts").glob("t*-*.json")]
    assert overlap.training_songs(read) and not overlap.training_songs([{**one, "fingerprint": None} for one in read])
    assert not overlap.training_songs([{k: v for k, v in one.items() if k != "fingerprint"} for one in read])


@pytest.mark.parametrize("changed", ["rate", "coded", "offset", "none", "less", "silent", "take", "short"])
def test_what_sounds_alike_is_one_song(changed: str) -> None:
    random = np.random.default_rng(0)
    sound = random.normal(0, 0.1, (6 * 44100, 2)).astype(np.float32)
    other, rate, alike = sound, 44100, True
    if changed == "rate":
        other, rate = stems.resample(sound, 44100, 48000), 48000
    elif changed == "coded":
        other = (sound + random.normal(0, 0.01, sound.shape)).astype(np.float32)[:-1000]
    elif changed == "offset":
        other = sound + np.float32(0.2)
    elif changed == "none":
        other, alike = random.normal(0, 0.1, sound.shape).astype(np.float32) + np.float32(0.2), False
    elif changed == "take":  # correlated by 0.89
        other, alike = (sound + random.normal(0, 0.05, sound.shape)).astype(np.float32), False
    elif changed == "short":
        sound = other = sound[:40000]
        alike = False
    elif changed == "less":
        other, alike = sound[: 5 * 44100], False
    else:
        sound, other, alike = 0 * sound, 0 * sound, False
    zero = np.zeros_like
    finished = [
        {"split": split, "key": split, "song": split, "fingerprint": overlap.fingerprint([one, zero(one)], of)}
        for split, one, of in (("train", sound, 44100), ("valid", other, rate))
    ]
    assert overlap.training_songs(finished) == ({("valid", "valid"): ["train"]} if alike else {})

"""The name of a dataset follows its settings and songs."""

import dataclasses

from p2p_dist.data import dataset as datasets
from p2p_dist.settings import config


def song(folder, split, name, size=10):
    path = folder / split / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def test_shards_are_named_by_settings_and_songs(tmp_path):
    data = config.Data()
    song(tmp_path / "a", "train", "Õhtu & öö.stem.mp4")
    song(tmp_path / "b", "train", "Õhtu & öö.stem.mp4")
    name = datasets.dataset_name(tmp_path / "a", data)
    assert name.startswith("drums-default-")
    assert name == datasets.dataset_name(tmp_path / "b", data), "moving the songs changes nothing"
    assert name != datasets.dataset_name(tmp_path / "a", dataclasses.replace(data, mels=64))
    assert name == datasets.dataset_name(tmp_path / "a", dataclasses.replace(data, stage="node"))
    song(tmp_path / "b", "train", "Õhtu & öö.stem.mp4", size=11)
    assert name != datasets.dataset_name(tmp_path / "b", data)

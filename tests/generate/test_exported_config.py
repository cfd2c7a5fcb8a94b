"""config.json of an exported folder, read on a login node: without torch and numpy, and as data that others wrote."""

import json
import os
import subprocess
import sys

import pytest

from p2p_dist.common.files import DamagedError
from p2p_dist.generate import exported_config

CONTENT = {
    "schema": 1,
    "format": "p2p_dist-generator",
    "name": "band",
    "step": 7,
    "task": {"name": "vocals+other->drums"},
    "weights": {"dtype": "float16", "bytes": 3, "sha256": "0" * 64},
    "spectrogram": {
        "representation": "thesis",
        "sample_rate": 22050,
        "n_fft": 1024,
        "hop_length": 256,
        "mels": 64,
        "frames": 32,
        "window_hop": 31,
        "channels": "mono",
    },
    "scaling": {},
    "network": {
        "channels": 8,
        "max_channels": 16,
        "depth": 3,
        "upsample": "nearest",
        "norm": "batch",
        "dropout": 0.25,
        "noise_channels": 2,
        "leaky_slope": 0.1,
    },
    "inversion": {"iterations": 5},
    "versions": {},
}


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "model"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(CONTENT))
    (place / "model.safetensors").write_bytes(b"abc")
    return place


def test_the_settings_are_those_in_the_file(folder):
    found = exported_config.settings_of(exported_config.read_config(folder), folder / "config.json")
    assert found.data.task == "vocals+other->drums"
    assert {name: getattr(found.data, name) for name in CONTENT["spectrogram"]} == CONTENT["spectrogram"]
    assert {name: getattr(found.model, name) for name in CONTENT["network"]} == CONTENT["network"]


def test_settings_that_no_run_can_have_are_damage(folder):
    content = {**CONTENT, "spectrogram": {**CONTENT["spectrogram"], "window_hop": 33}}
    with pytest.raises(DamagedError, match=r"model/config\.json is damaged: data\.window-hop 33 .*; export it again"):
        exported_config.settings_of(content, folder / "config.json")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_with_one_of_the_files_is_meant_as_a_model(folder, name):
    for path in folder.iterdir():
        path.unlink()
    assert not exported_config.is_exported(folder)
    (folder / name).symlink_to("nowhere")
    assert exported_config.is_exported(folder)


def test_a_config_of_more_than_a_mebibyte_is_not_read(folder):
    path = folder / "config.json"
    path.write_text(path.read_text().ljust(1 << 20))
    assert exported_config.read_config(folder)["name"] == "band"
    path.write_text(path.read_text() + " ")
    with pytest.raises(DamagedError, match="too large for the settings of a model"):
        exported_config.read_config(folder)


def test_weights_of_another_size_or_none_are_damage(folder):
    path = folder / "model.safetensors"
    exported_config.check_weights(path, CONTENT["weights"])
    for size in (2, 4):
        path.write_bytes(b"x" * size)
        with pytest.raises(DamagedError, match=rf"has {size} bytes, not the 3 that config\.json gives"):
            exported_config.check_weights(path, CONTENT["weights"])
    path.unlink()
    path.mkdir()
    with pytest.raises(DamagedError, match="missing or not a regular file"):
        exported_config.check_weights(path, CONTENT["weights"])


def test_a_login_node_needs_no_torch_and_no_numpy(folder):
    code = (
        "import sys, pathlib\n"
        "sys.modules['torch'] = sys.modules['numpy'] = None\n"
        "from p2p_dist.generate import exported_config as e\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "content = e.read_config(folder)\n"
        "e.check_weights(folder / e.WEIGHTS, content['weights'])\n"
        "print(e.settings_of(content, folder / e.CONFIG).model.depth)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, env=os.environ)
    assert done.stdout.strip() == "3", done.stderr

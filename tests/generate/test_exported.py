"""An exported model gives the same picture wherever it is run, and one of others is checked before it is used."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from p2p_dist.common.files import DamagedError
from p2p_dist.data import pairs
from p2p_dist.data.stream import from_network, to_network
from p2p_dist.generate import exported, exported_config
from p2p_dist.generate.model import Model, find_model
from p2p_dist.model.generator import Generator
from p2p_dist.settings import config
from p2p_dist.settings.presets import PRESETS
from tests.full_disk import largest_file
from tests.generate import drums

EXAMPLE = Path(__file__).with_name("run_exported.py")

RUN = """
import runpy, sys
sys.modules["p2p_dist"] = None  # whoever imports it fails
for folder in sys.argv[1:]:
    sys.argv = ["run_exported.py", folder, f"{folder}-in", f"{folder}-out", "5"]
    runpy.run_path(EXAMPLE)
import torch
from safetensors.torch import load_file, save_file
network, given = torch.export.load("program/model.pt2").module(), load_file("program-scaled")
save_file({str(count): network(given["input"][:count], given["noise"][:count]) for count in (1, 3)}, "program-made")
assert "scipy" not in sys.modules and "yaml" not in sys.modules
"""


def untrained(preset: str, data: dict[str, Any] | None = None, **changed: Any) -> Model:
    """A small network of a preset's kind with weights that show every layer."""
    base = PRESETS[preset]
    settings = dataclasses.replace(base.model, channels=4, max_channels=12, **changed)
    pictures = dataclasses.replace(base.data, **(data or {}))
    torch.manual_seed(1)
    generator = Generator(settings, pictures.picture_channels)
    weights = {name: tensor + 0.2 * torch.randn_like(tensor) for name, tensor in generator.state_dict().items()}
    return Model(f"{preset}-run@7", pictures.task, 7, "0" * 64, pictures, settings, weights)


MODELS = {
    "small": untrained("small", {"mels": 64, "frames": 96, "window_hop": 48}),
    "half": untrained("tiny", {"channels": "mid-side", "frames": 48}, noise_channels=2, leaky_slope=0.1),
    "quiet": untrained("tiny", noise_channels=0, upsample="transposed", dropout=0.3),
    "thesis": untrained("thesis", {"mels": 32, "frames": 32, "window_hop": 31}, depth=5),
    "program": untrained("thesis", {"mels": 16, "frames": 16, "window_hop": 15}, depth=4, dropout=0.0, noise_channels=1),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an export of each of `MODELS`, what goes into it, and what it should give; as run without p2p_dist."""
    place = tmp_path_factory.mktemp("exported")
    for name, model in MODELS.items():
        halved, program = name == "half", name == "program"
        exported.export(model, 16, place / name, lambda content: "# card\n", half=halved, torch_export=program)
        low, high = pairs.FLOOR, pairs.CEILING[model.data.representation]
        size = (model.data.mels, model.data.frames)
        torch.manual_seed(3)
        input = torch.rand(3, model.data.picture_channels, *size) * (high - low) + low
        noise = torch.randn(3, model.model.noise_channels, *size)
        safetensors.torch.save_file({"input": input, "noise": noise}, f"{place / name}-in")
        scaled = to_network(input, low, high)
        safetensors.torch.save_file({"input": scaled, "noise": noise}, f"{place / name}-scaled")
        network = exported.read_exported(place / name).generator(torch.device("cpu"))
        torch.manual_seed(5)
        with torch.inference_mode():
            parts = zip(scaled.split(1), noise.split(1), strict=True)
            output = torch.cat([network(one, also if model.model.noise_channels else None) for one, also in parts])
        safetensors.torch.save_file({"output": output}, f"{place / name}-wanted")
    code = RUN.replace("EXAMPLE", repr(str(EXAMPLE)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *MODELS], cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return place


def test_a_disk_that_is_full_is_named(tmp_path: Path) -> None:
    with largest_file(1000), pytest.raises(OSError) as error:
        exported.export(MODELS["half"], 16, tmp_path / "out", lambda content: "# card\n", half=True, torch_export=False)
    assert error.value.filename == str(tmp_path / "out") and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", MODELS)
def test_torch_and_safetensors_alone_give_the_same_picture(name: str, written: Path) -> None:
    wanted = safetensors.torch.load_file(f"{written / name}-wanted")["output"]
    data = MODELS[name].data
    low, high = pairs.FLOOR, pairs.CEILING[data.representation]
    found = safetensors.torch.load_file(f"{written / name}-out")["output"]
    assert found.shape == wanted.shape and float(wanted.std()) > 0.05
    assert float((to_network(found, low, high) - wanted).abs().max()) < 1e-5
    assert float((found - from_network(wanted, low, high)).abs().max()) < 1e-3


def test_the_program_gives_the_same_picture_for_any_number_of_windows(written: Path) -> None:
    """Also where its norm is the thesis's, which then takes each window by itself, and of 1 x 1 values leaves the bias."""
    wanted = safetensors.torch.load_file(f"{written / 'program'}-wanted")["output"]
    made = safetensors.torch.load_file(f"{written / 'program'}-made")
    for count in (1, 3):
        assert made[str(count)].shape == wanted[:count].shape
        assert float((made[str(count)] - wanted[:count]).abs().max()) < 1e-5
    assert str(Path(exported.__file__).parents[1]).encode() not in (written / "program" / "model.pt2").read_bytes()


def test_what_is_read_is_what_was_written(written: Path) -> None:
    for name, model in MODELS.items():
        found = exported.read_exported(written / name)
        assert (found.name, found.step, found.data, found.task) == (model.name, 7, model.data, model.task)
        assert found.model == dataclasses.replace(
            model.model,
            discriminator_channels=found.model.discriminator_channels,
            discriminator_norm=found.model.discriminator_norm,
        )
        assert found.sha256 == hashlib.sha256((written / name / "model.safetensors").read_bytes()).hexdigest()
        for key, tensor in model.weights.items():
            kept = tensor.half().float() if name == "half" else tensor
            assert torch.equal(found.weights[key], kept)
    halves = [(written / name / "model.safetensors").stat().st_size for name in ("half", "quiet")]
    assert halves[0] < 0.7 * halves[1]


def test_every_setting_is_exported_or_only_of_the_training() -> None:
    of_training = {"root", "shards", "split_by_title", "task", "silent_share", "copies", "seed", "stage", "shard_size"}
    assert {field.name for field in dataclasses.fields(config.Data)} == {*exported_config.SPECTROGRAM, *of_training}
    of_discriminator = {"discriminator_channels", "discriminator_norm"}
    assert {field.name for field in dataclasses.fields(config.Model)} == {
        *exported_config.NETWORK,
        *exported_config.GUIDED,
        *exported_config.LATER,
        *of_discriminator,
    }


@pytest.mark.parametrize("later", [{}, dict.fromkeys(exported_config.LATER, True)])
def test_a_model_with_a_sketch_is_exported_with_its_drummer(tmp_path: Path, later: dict[str, bool]) -> None:
    guided = {"sketch": True, "beat_phase": True, "residual": True, **later}
    plain = untrained("tiny", noise_channels=0, **guided)
    model = dataclasses.replace(plain, drummer=drums.drummer(plain.data, plain.model))
    content = exported.export(model, 16, tmp_path / "a", lambda content: "# card\n", half=False, torch_export=True)
    assert {name: content["network"][name] for name in guided} == guided and "guide" in content["notes"]
    assert {*content["network"]} & {*exported_config.LATER} == {*later}, "as earlier versions wrote it"
    assert ("level" in content["notes"]) == bool(later)
    found = exported.read_exported(tmp_path / "a")
    assert found.model == dataclasses.replace(
        plain.model, discriminator_channels=found.model.discriminator_channels, discriminator_norm="spectral"
    )
    song = drums.chords(3.0)
    first, second = (
        one.drummer.play(lambda: iter([song]), drums.RATE, 1.0, "song", 1.0).guide(0).cut(5) for one in (model, found)
    )
    assert (first - second)[first > 0.2].abs().max() < 0.01, "what is quiet is noise: strokes are rounded to 16 bits"
    network = torch.export.load(tmp_path / "a" / "model.pt2").module()
    input = torch.rand(3, 1, plain.data.mels, plain.data.frames) * 2 - 1
    output = network(input, guide=torch.stack([first] * 3))
    with torch.no_grad():
        wanted = found.generator(torch.device("cpu"))(input, None, torch.stack([first] * 3))
    assert torch.allclose(output, wanted, atol=1e-5)
    exported.check_out(tmp_path / "a", overwrite=True)
    (tmp_path / "a" / "strokes.safetensors").write_bytes(b"x")
    with pytest.raises(DamagedError, match="strokes"):
        exported.read_exported(tmp_path / "a")


def test_no_word_of_sketches_in_other_exports(written: Path) -> None:
    content = json.loads((written / "small" / "config.json").read_text())
    assert not {*exported_config.GUIDED, *exported_config.LATER} & content["network"].keys()
    assert not {"guide", "residual", "level"} & content["notes"].keys()
    assert not list((written / "small").glob("drummer*"))


def change(**sections: dict[str, Any]) -> Any:
    def apply(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        for name, values in sections.items():
            content[name] = {**content[name], **values} if isinstance(values, dict) else values
        (folder / "config.json").write_text(json.dumps(content))

    return apply


def weigh(**changed: torch.Tensor | None) -> Any:
    """Other weights, and a config.json that names them."""

    def apply(folder: Path) -> None:
        weights = {
            **safetensors.torch.load_file(folder / "model.safetensors"),
            **{k.replace("_", "."): v for k, v in changed.items()},
        }
        data = safetensors.torch.save({name: tensor for name, tensor in weights.items() if tensor is not None})
        (folder / "model.safetensors").write_bytes(data)
        change(weights={"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})(folder)

    return apply


def put(name: str, data: bytes) -> Any:
    return lambda folder: (folder / name).write_bytes(data)


def same_size(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def pickled(folder: Path) -> None:
    torch.save({"a": torch.zeros(3)}, folder / "model.safetensors")
    data = (folder / "model.safetensors").read_bytes()
    change(weights={"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})(folder)


HARM = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
    "weights are a pipe": (
        lambda f: ((f / "model.safetensors").unlink(), os.mkfifo(f / "model.safetensors")),
        "not a regular file",
    ),
    "config is a pipe": (lambda f: ((f / "config.json").unlink(), os.mkfifo(f / "config.json")), "not a regular file"),
    "not json": (put("config.json", b"{"), "not readable as JSON"),
    "too large": (put("config.json", b" " * (1 << 21)), "too large for the settings"),
    "of others": (put("config.json", b'{"architectures": ["Bert"]}'), "another kind of model"),
    "newer": (change(schema=9), "newer"),
    "name is a path": (change(name="../../x"), "name is"),
    "unknown task": (change(task={"name": "drums->nothing"}), "config.json is damaged: task"),
    "deep": (change(network={"depth": 10**9}), "network.depth"),
    "too deep for the picture": (change(network={"depth": 9}), "cannot be halved"),
    "huge": (change(network={"channels": 10**12}), "network.channels"),
    "wide": (change(network={"channels": 16000, "max_channels": 16000}), "but the network in config.json needs"),
    "no number": (change(network={"leaky_slope": "0.2"}), "network.leaky_slope"),
    "dropout of 2": (change(network={"dropout": 2.0}), "model.dropout"),
    "another scale": (change(spectrogram={"mel_scale": "htk"}), "spectrogram.mel_scale is 'htk'"),
    "another floor": (change(scaling={"floor_db": -60.0}), "scaling.floor_db"),
    "of a later version": (change(network={"attention": True}), "network.attention is True"),
    "cut short": (put("model.safetensors", b"abc"), "has 3 bytes"),
    "a bit": (same_size, "sha256"),
    "a pickle": (pickled, "can't be read as weights"),
    "one too many": (weigh(more=torch.zeros(2)), "has a tensor 'more'"),
    "one missing": (weigh(last_1_bias=None), "has no tensor 'last.1.bias'"),
    "another shape": (weigh(last_1_bias=torch.zeros(3)), "needs float32 (1,)"),
    "another type": (weigh(last_1_bias=torch.zeros(1, dtype=torch.float64)), "is float64"),
    "not finite": (weigh(last_1_bias=torch.full((1,), torch.nan)), "not finite"),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_or_foreign_folder_is_refused_in_one_line(harm: str, written: Path, tmp_path: Path) -> None:
    shutil.copytree(written / "small", tmp_path / "model")
    apply, said = HARM[harm]
    apply(tmp_path / "model")
    with pytest.raises(ValueError) as caught:
        exported.read_exported(tmp_path / "model")
    assert said in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_no_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        exported.read_exported(tmp_path / "missing")


def test_a_person_names_it_by_its_path(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(written)
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    found = find_model("small")
    assert found.name == "small-run@7" and torch.equal(found.weights["last.1.bias"], MODELS["small"].weights["last.1.bias"])
    assert find_model(str(written / "quiet")).name == "tiny-run@7"
    (tmp_path / "config.json").write_bytes((written / "small" / "config.json").read_bytes())
    with pytest.raises(DamagedError, match=r"model\.safetensors is missing"):
        find_model(str(tmp_path))


def test_links_of_a_hub_s_cache_are_read(written: Path, tmp_path: Path) -> None:
    for path in (written / "small").iterdir():
        (tmp_path / path.name).symlink_to(path)
    assert exported.read_exported(tmp_path).step == 7


def test_weights_that_float16_does_not_hold_are_refused(tmp_path: Path) -> None:
    model = dataclasses.replace(MODELS["small"], weights={**MODELS["small"].weights, "last.1.bias": torch.full((1,), 1e6)})
    with pytest.raises(ValueError, match="too large for float16: export it without --half"):
        exported.export(model, 16, tmp_path / "out", lambda content: "", half=True, torch_export=False)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_export_is_replaced_whole_or_stays(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "model"
    shutil.copytree(written / "program", out)

    def write() -> None:
        exported.export(MODELS["small"], 16, out, lambda content: "new\n", half=False, torch_export=False)

    with monkeypatch.context() as patched:
        renamed = Path.rename

        def fail(self: Path, target: Path) -> Path:
            if Path(target) == out and (self / "config.json").is_file() and (self / "README.md").read_text() == "new\n":
                raise OSError(28, "No space left on device")
            return renamed(self, target)

        patched.setattr(Path, "rename", fail)
        with pytest.raises(OSError, match="No space"):
            write()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (out / "model.pt2").is_file() and exported.read_exported(out).name == "thesis-run@7"
    write()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert exported.read_exported(out).name == "small-run@7"


def test_what_another_put_into_the_folder_meanwhile_is_not_lost(written: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    shutil.copytree(written / "small", out)

    def card(_: dict[str, Any]) -> str:
        (out / "notes.txt").write_text("mine")
        return ""

    with pytest.raises(ValueError, match=r"also holds 'notes\.txt', which export did not write"):
        exported.export(MODELS["small"], 16, out, card, half=False, torch_export=False)
    assert (out / "notes.txt").read_text() == "mine" and [path.name for path in tmp_path.iterdir()] == ["model"]


def test_only_an_exported_model_is_overwritten(written: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    exported.check_out(out, overwrite=False)
    shutil.copytree(written / "small", out)
    with pytest.raises(ValueError, match="exists: name another folder, or replace it with --overwrite"):
        exported.check_out(out, overwrite=False)
    exported.check_out(out, overwrite=True)
    (out / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"also holds 'thesis\.tex'"):
        exported.check_out(out, overwrite=True)
    for name, text in (("file", "README.md"), ("mine", "README.md"), ("other", "config.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / text).write_text("{}")
        with pytest.raises(ValueError, match=f"{name}.*: it is not overwritten; name another folder"):
            exported.check_out(tmp_path / name, overwrite=True)
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(ValueError, match="is a link"):
        exported.check_out(tmp_path / "link", overwrite=True)
    (tmp_path / "text").write_text("")
    with pytest.raises(ValueError, match="not a folder"):
        exported.check_out(tmp_path / "text", overwrite=True)

"""MODEL.md says what the model is, and warns where its measures are not of unseen songs."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from p2p_dist.common import records, schemas
from p2p_dist.data import manifest as manifests
from p2p_dist.evaluate.report import model_card, page
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import config, presets
from p2p_dist.settings.config import Config
from tests.evaluate.finished_run import make


@pytest.mark.parametrize("part", ["test", "valid"])
def test_the_model_card_warns_of_songs_that_are_trained_and_tested_on(tmp_path: Path, part: str) -> None:
    run, settings = make(tmp_path / "run", {"a": "A"}, (5,), seconds=0.5)
    content = manifests.read(run.shards)
    for split, names in {"train": ["Dawn", "Noon"], part: ["Noon", "Night"]}.items():
        songs = [{"name": name, "key": name.lower(), "seconds": 9.0} for name in names]
        content["splits"][split] = {**content["splits"]["train"], "songs": songs}
    manifests.write(run.shards, content)
    page.write(run, settings)
    warned = "Trained and tested on the same titles, so its figures do not apply to other songs: Noon."
    assert warned in (run.path / "MODEL.md").read_text(encoding="utf-8").splitlines()
    content["splits"][part]["songs"][0]["name"] = "Dusk"
    manifests.write(run.shards, content)
    page.write(run, settings)
    assert "same titles" not in (run.path / "MODEL.md").read_text(encoding="utf-8")


def test_the_model_card_says_what_it_is_and_names_no_place(finished: tuple[RunDir, Config]) -> None:
    run, _ = finished
    text = (run.path / "MODEL.md").read_text(encoding="utf-8")
    assert text.startswith("# Model card: drums-demo, step 90\n")
    assert "| parameters of the generator | 22 |" in text, "of the weights that lie there"
    assert "| **this checkpoint** | 0.60 | 3.00 [2.00, 5.00] |" in text
    for name, grid in (("copy the input", "0.31"), ("silence", "0.00"), ("ceiling", "0.98")):
        assert f"| {name} | {grid} |" in text
    assert "- distance: it needs 8 windows" in text and "- same song, far away: the song is shorter than 40 s" in text
    assert "(1 x time + 1 x real + 1 x amount) / 3" in text and "| train | 1 | 0.02 | 40 |" in text
    assert "machine-name" not in text and "/home/" not in text and "None" not in text


def test_the_model_card_lists_the_losses(finished: tuple[RunDir, Config]) -> None:
    run, settings = finished
    assert "| losses | hinge, L1 x 20, differences x 0.5, features x 10 |" in (run.path / "MODEL.md").read_text(
        encoding="utf-8"
    )
    more = dataclasses.replace(settings, train=dataclasses.replace(settings.train, compressed_weight=5.0, flux_weight=0.3))
    _, text = head_and_text(model_card.exported(run, more, content(90)))
    assert "features x 10, compressed magnitudes x 5, correlation of rises x 0.3 |" in text


def test_the_model_card_says_what_a_sketch_is_made_of(finished: tuple[RunDir, Config]) -> None:
    run, settings = finished
    for name, said in (
        (
            "sketch",
            "on the steps of the beat, of each class in every 24 seconds, each beat like those around it, with soft hats, "
            "the place in the beat, and the output is the sketch, "
            "changed but as loud; 200 steps",
        ),
        ("small", None),
    ):
        model = presets.preset(name).model
        _, text = head_and_text(model_card.exported(run, dataclasses.replace(settings, model=model), content(90)))
        assert ("| sketch | real strokes laid at predicted onsets" in text) == (said is not None)
        assert said is None or (said in text and "from true onsets; strokes of the louder half of each class |" in text)
    by_class = {"kick": 0.512, "snare": None, "all": 0.43}
    run.pattern.mkdir()
    records.write(run.pattern_measures, schemas.PATTERN_MEASURES, {"songs": ["a", "b"], "true": by_class, "heard": by_class})
    _, text = head_and_text(
        model_card.exported(run, dataclasses.replace(settings, model=presets.preset("sketch").model), content(90))
    )
    assert "; correlation of its output with the true strokes of 2 validation songs: kick 0.51, all 0.43 |" in text
    run.pattern_measures.unlink()
    train = dataclasses.replace(settings.train, predicted_strokes=True, loud_strokes=False, kits="<EVR*")
    model = config.Model(sketch=True, residual=True)
    _, text = head_and_text(model_card.exported(run, dataclasses.replace(settings, model=model, train=train), content(90)))
    assert "sketch, changed; 200" in text and "from true onsets, and a quarter predicted ones; strokes" in text
    assert "; strokes of the songs named &#60;EVR&#42; alone |" in text and "louder half" not in text


def content(step: int, program: bool = False) -> dict[str, Any]:
    """What a card tells of config.json."""
    return {
        "step": step,
        "weights": {"dtype": "float16", "bytes": 44, "sha256": "a" * 64, "checkpoint_sha256": "b" * 64, "parameters": 22},
        "spectrogram": {"mels": 128, "frames": 96},
        "network": {"pictures": 1, "noise_channels": 2},
        "program": {"torch": "2.13.0"} if program else None,
    }


def head_and_text(card: str) -> tuple[Any, str]:
    empty, head, text = card.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(head), text


def test_the_card_of_an_exported_model_has_a_head_for_hubs(finished: tuple[RunDir, Config]) -> None:
    run, settings = finished
    head, text = head_and_text(model_card.exported(run, settings, content(90)))
    assert head["license"] == "unknown" and head["datasets"] == [] and "license_link" not in head
    assert head["library_name"] == "p2p_dist" and "drums" in head["tags"] and head["metrics"][:2] == ["grid", "level dB"]
    assert "the licence of its songs, so the licence of the weights is unknown" in text and "p2p-dist generate SONG" in text
    assert "| weights | model.safetensors, float16, 0.0 MB, sha256 aaaa" in text and "model.pt2" not in text
    assert "| **this checkpoint** | 0.60 | 3.00 [2.00, 5.00] |" in text and "| silence | 0.00 |" in text
    assert "Chosen on the test songs (there are no validation songs" in text and "machine-name" not in text
    _, other = head_and_text(model_card.exported(run, settings, content(30, program=True)))
    assert "Its score on the test songs is " in other and "that of the best checkpoint, step 90, is " in other
    assert "noise of (windows, 2, 128, 96) from N(0, 1)" in other and "network(input, noise)" in other
    _, unknown = head_and_text(model_card.exported(run, settings, content(31)))
    assert "This checkpoint was not evaluated" in unknown and "**this checkpoint**" not in unknown


def test_the_card_says_what_is_known_of_the_licence(tmp_path: Path) -> None:
    run, settings = make(tmp_path / "run", {"a": "A"}, (5,), seconds=0.5)
    page.write(run, settings)
    found = manifests.read(run.shards)
    found["splits"]["train"]["songs"] = [{"name": name, "key": "k", "seconds": 9.0} for name in ("Mine", "ANiMAL - Rockshow")]
    manifests.write(run.shards, found)
    head, text = head_and_text(model_card.exported(run, settings, content(5)))
    assert (head["license"], head["license_name"], head["datasets"]) == ("other", "musdb18-non-commercial", ["musdb18"])
    assert "One of the songs has a title of MUSDB18." in text and "non-commercial, educational use" in text
    found["splits"]["test"] = {**found["splits"]["train"], "songs": [{"name": "<b>|`x", "key": "k", "seconds": 9.0}]}
    found["splits"]["train"]["songs"] = [{"name": "<b>|`x", "key": "k", "seconds": 9.0}]
    manifests.write(run.shards, found)
    head, text = head_and_text(model_card.exported(run, settings, content(5)))
    assert head["license"] == "unknown" and "&#60;b&#62;&#124;&#96;x" in text and "<b>" not in text
    shutil.rmtree(run.shards)
    head, text = head_and_text(model_card.exported(run, settings, content(5)))
    assert head["license"] == "unknown" and "The shards of the run no longer exist" in text

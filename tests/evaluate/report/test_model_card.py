"""MODEL.md says what the model is, and warns where its measures are not of unseen songs."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2p_dist.data import manifest as manifests
from p2p_dist.evaluate.report import page
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings.config import Config
from tests.evaluate.finished_run import HOSTILE, make


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Config]:
    folder = tmp_path_factory.mktemp("machine-name") / "runs" / "drums-demo"
    songs = {"dawn": HOSTILE, "falcon-69": "Falcon 69"}
    run, settings = make(folder, songs, seconds=1.0, root="/home/someone/songs/falcon69")
    page.write(run, settings)
    return run, settings


@pytest.mark.parametrize("part", ["test", "valid"])
def test_the_model_card_warns_of_songs_that_are_trained_and_tested_on(tmp_path: Path, part: str) -> None:
    run, settings = make(tmp_path / "run", {"a": "A"}, (5,), seconds=0.5)
    content = manifests.read(run.shards)
    for split, names in {"train": ["Dawn", "Noon"], part: ["Noon", "Night"]}.items():
        songs = [{"name": name, "key": name.lower(), "seconds": 9.0} for name in names]
        content["splits"][split] = {**content["splits"]["train"], "songs": songs}
    manifests.write(run.shards, content)
    page.write(run, settings)
    warned = "Trained and tested on the same titles, so its figures say nothing of other songs: Noon."
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

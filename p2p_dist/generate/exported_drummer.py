"""Write a model without a generator as a folder, and read such a folder: its drummer plays the stem itself, with strokes.

DIR/config.json    task, sample rate of the stem, the songs that it learnt from, seeds, versions; the sha256 of drummer.json
DIR/drummer.json, pattern.safetensors, strokes.safetensors    the drummer, see drummer.py; the weights are float16
DIR/README.md      the model card

The starter model, which comes with the package, is such a folder. Like every exported folder it is untrusted input: digests,
names and shapes are checked, and nothing is unpickled.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from p2p_dist import __version__
from p2p_dist.common import files, records, schemas
from p2p_dist.generate import drummer, drummer_record, exported_config
from p2p_dist.generate.exported_config import CONFIG, DRUMMER_FORMAT
from p2p_dist.generate.model import Model
from p2p_dist.settings.tasks import parse_task

CARD = "README.md"


def export(
    model: Model,
    trained_on: list[dict[str, str]],
    recipe: dict[str, float],
    out: Path,
    card: Callable[[dict[str, Any]], str],
) -> dict[str, Any]:
    """Write a folder with a single rename; return the content of its config.json.

    Args:
        model: without a generator. trained_on: name, author, licence and sha256 of each song. recipe: seeds and numbers with
            which the same songs give the same model. out: it must not exist.
        card: returns the text of README.md, given the content of config.json.
    """
    assert model.weights is None and model.drummer is not None
    with files.new_folder(out) as folder:
        drummer.save(folder, model.drummer, half=True, codec="opus")
        record = folder / drummer_record.NAME
        heard, made = parse_task(model.task)
        content = {
            "format": DRUMMER_FORMAT,
            "name": model.name.rpartition("@")[0],
            "step": model.step,
            "task": {"name": model.task, "heard": list(heard), "made": list(made)},
            "stem": {
                "made_of": "strokes",
                "sample_rate": model.data.sample_rate,
                **{name: True for name in schemas.PLAYING if getattr(model.model, name)},
            },
            "drummer": {"bytes": record.stat().st_size, "sha256": files.sha256_file(record)},
            "trained_on": trained_on,
            "recipe": recipe,
            "versions": {
                "p2p_dist": __version__,
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in ("torch", "numpy", "scipy", "soundfile")},
            },
        }
        assert (wrong := records.wrong(content, schemas.EXPORTED_DRUMMER.shape)) is None, wrong
        files.write_text(folder / CARD, card(content))
        records.write(folder / CONFIG, schemas.EXPORTED_DRUMMER, content)
    return content


def read(folder: Path, content: dict[str, Any]) -> Model:
    """Load the model in a folder, which may come from anybody. Args: content: of its config.json.

    Raises:
        DamagedError: a file has changed since it was written. The message names it.
    """
    settings = exported_config.settings_of(content, folder / CONFIG)
    sha256 = exported_config.check_files(folder, content)
    drums = drummer.load(folder, settings.data, settings.model)
    name = f"{content['name']}@{content['step']}"
    return Model(name, settings.data.task, content["step"], sha256, settings.data, settings.model, None, drums)

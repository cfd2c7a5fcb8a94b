"""The code of a later version and the old run: a copy of the package with one more field in every settings dataclass, at a
default, one more measure and one more field in the record of a stage. If it failed: an update loses every run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from p2p_dist.data import dataset
from p2p_dist.run import metrics_file
from p2p_dist.run.rundir import RunDir
from p2p_dist.settings import config
from tests.conftest import write_songs

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "p2p_dist"

PARTS = {"Data", "Model", "Train", "Evaluate", "Where", "Resources", "Config"}


def mutate(copy):
    """Edit the text of a copy, as whoever adds these things does."""
    added = set()
    for path in (copy / "settings").glob("*.py"):
        text = path.read_text()
        for part in set(re.findall(r"^@dataclass\(frozen=True\)\nclass (\w+)", text, re.MULTILINE)) & PARTS:
            field = f'\n    {part.lower()}_later: int = 7\n    """a setting of a later version"""\n'
            text, edits = re.subn(
                rf'(^class {part}\b.*?:\n    """.*?"""\n)', rf"\g<1>{field}", text, count=1, flags=re.M | re.S
            )
            assert edits == 1, part
            added.add(part)
        path.write_text(text)
    assert added == PARTS

    path = copy / "evaluate" / "measures" / "table.py"
    text = path.read_text()
    measure = '    "later": Measure("later", "low", REPORTED, "of a later version", OfStem(lambda stem, _: 0.5), _POSITIVE),\n'
    assert "\nMEASURES" in text
    head, rest = text.split("\nMEASURES", 1)
    opening, rest = rest.split("{\n", 1)
    path.write_text(f"{head}\nMEASURES{opening}{{\n{measure}{rest}")

    path = copy / "common" / "schemas.py"
    text = path.read_text()
    shape = '        "attempt": str,\n        "stage": str,\n'
    assert text.count(shape) == 1 and text.count('        "message": str,\n    },\n)') == 1
    text = text.replace(shape, shape + '        "later": str,\n').replace(
        '        "message": str,\n    },\n)', '        "message": str,\n    },\n    {"later": "implied"},\n)'
    )
    path.write_text(text)


def test_a_later_version_goes_on_with_the_old_run(tmp_path):
    code = shutil.copytree(PACKAGE, tmp_path / "p2p_dist", ignore=shutil.ignore_patterns("__pycache__"))
    mutate(code)
    run = RunDir(tmp_path / "runs" / "run-v1")
    shutil.copytree(HERE / "run-v1", run.path)
    shutil.copytree(HERE / "shards-v1", tmp_path / "shards" / "shards-v1")
    write_songs(tmp_path / "songs", {"train/one": 0.1})
    before = (run.evaluations / "step-00000004" / "metrics.json").read_bytes()
    command = [sys.executable, "-P", HERE / "mutated.py", run.path, tmp_path / "songs"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1", "P2P_RUNS": str(run.path.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["code"] == 0 and found["verified"] == [] and found["page"]
    assert re.fullmatch("stopped .* at step 8", found["state"])
    assert found["after"] == [[], "done", "done"]
    assert found["later"] == [], "at the value that older records imply"
    assert found["same"] == dataset.dataset_name(tmp_path / "songs", config.Data()), "no dataset has another name"
    assert (run.evaluations / "step-00000004" / "metrics.json").read_bytes() == before
    continued = json.loads((HERE / "run-v1-continued.json").read_text())
    assert " ".join(row["digests"] for row in metrics_file.read(run)) == continued["batches"]

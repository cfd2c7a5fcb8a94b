"""What the mutated copy of the package does with the old run: resume, verify, evaluate, show. Run by test_mutated_copy.py.

python mutated.py RUN    with the copy on $PYTHONPATH
"""

import json
import sys
from dataclasses import fields
from pathlib import Path

import p2p_dist
from p2p_dist.common import records, schemas
from p2p_dist.data import dataset
from p2p_dist.evaluate import checkpoints
from p2p_dist.evaluate.measures.table import MEASURES
from p2p_dist.evaluate.report import page
from p2p_dist.jobs import begin_run, status
from p2p_dist.run import rundir, starts
from p2p_dist.settings import config
from p2p_dist.train import loop, speed, verify
from p2p_dist.train.stop import StopFlag


def main(run, songs):
    assert all(part.__name__.lower() + "_later" in {f.name for f in fields(part)} for part in PARTS), "it is the mutated copy"
    assert Path(p2p_dist.__file__).is_relative_to(run.path.parents[1])
    speed.flops_per_image = lambda config: 10**9
    settings = rundir.read_settings(run)
    assert settings.train.train_later == 7 and "later" in MEASURES and run.read_outcome()["later"] == "implied"
    name = dataset.name_for(run, songs, settings.data)
    begin_run.check_begin(run, settings, run.read_dataset())
    before = status.gather(run)
    found = {"state": before["stages"]["train"], "verified": verify.verify_run(run), "name": name}
    found["same"] = dataset.dataset_name(songs, config.Data())
    assert checkpoints.evaluate(run, settings, only=[4, 8]) == 1, "what is evaluated stays"
    text = page.write(run, settings).read_text()
    found["page"] = all(word in text for word in ("Held Out", rundir.step_name(4), rundir.step_name(8)))
    starts.append(run.attempts("train"), "later 1 2 3")
    starts.note_start(run.attempts("train"), "b.1", 8, by_hand=True)
    found["code"] = loop.train(run, settings, StopFlag())
    run.write_outcome("train", "done", step=12)
    starts.note_end(run.attempts("train"), "b.1", 12, found["code"], "done")
    meta = records.read(run.checkpoints / rundir.step_name(12) / "meta.json", schemas.CHECKPOINT)
    found["after"] = [verify.verify_run(run), run.read_outcome()["outcome"], status.gather(run)["stages"]["train"]]
    found["later"] = [name for name in meta["settings"] if name.endswith("later")]
    return found


PARTS = (config.Data, config.Model, config.Train, config.Evaluate, config.Where, config.Resources, config.Config)

if __name__ == "__main__":
    print(json.dumps(main(rundir.RunDir(Path(sys.argv[1])), Path(sys.argv[2]))))

"""How run-v1 and shards-v1 were made: by the code of commit e9c9568, in a checkout of it, and with its environment.

    cd CHECKOUT-OF-e9c9568; .venv/bin/python -P THIS/FILE OUTPUT-FOLDER

It writes songs, shards and a run that was asked to stop at step 8 of 12; its checkpoint of step 4 is evaluated. A copy goes on
to the end with the same code: `continued.json`, here run-v1-continued.json, holds what came of it. The snapshot of the code and
the page, which repeats the sound, are left out of the run.
"""

import dataclasses
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import soundfile
import torch

from p2p_dist.data import shards
from p2p_dist.evaluate import checkpoints as evaluation
from p2p_dist.evaluate.report import page
from p2p_dist.jobs import begin_run
from p2p_dist.run import metrics_file, rundir, starts
from p2p_dist.settings import presets
from p2p_dist.settings.config import Model
from p2p_dist.train import checkpoint, loop
from p2p_dist.train.stop import StopFlag

RATE = 11025
SONGS = {"train/Alpha & Omega - 1.5 Times": 2.2, "train/Émile's Tune": 1.7, "train/Three": 1.9, "test/Held Out": 1.7}


class StopAtEight(StopFlag):
    """Asked to stop while step 7 is trained, which the processes agree on a step later."""

    reads = 0

    def __bool__(self):
        self.reads += 1
        return self.reads >= 7


def write_songs(root):
    """Songs that a few lines of arithmetic make: hits of noise, a bass, chords, a voice that glides; 16 bits, one channel."""
    for number, (name, seconds) in enumerate(SONGS.items()):
        random, time = np.random.default_rng(number), np.arange(round(seconds * RATE)) / RATE
        beat = 0.3 + 0.05 * number
        pitch = 55 * 2 ** (number / 6)
        sounds = {
            "drums": 0.4 * random.standard_normal(len(time)) * np.exp(-25 * (time % beat)),
            "bass": 0.3 * np.sin(2 * np.pi * pitch * time),
            "other": 0.1 * sum(np.sin(2 * np.pi * pitch * 4 * ratio * time) for ratio in (1, 1.25, 1.5)),
            "vocals": 0.2 * np.sin(2 * np.pi * (440 * time + 3 * np.sin(5 * time))) * (np.sin(2 * np.pi * time / 1.6) > 0),
        }
        for stem, sound in sounds.items():
            path = root / name / f"{stem}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.round(sound * 32767).clip(-32768, 32767).astype(np.int16), RATE)


def settings():
    """The preset `tiny` with networks as small as they come."""
    tiny = presets.PRESETS["tiny"]
    return dataclasses.replace(
        tiny,
        model=Model(channels=2, max_channels=4, depth=2, discriminator_channels=2, upsample="nearest"),
        train=dataclasses.replace(tiny.train, steps=12, checkpoint_every=6, keep_every=0.69),
    )


def digest_of(run, step):
    """A digest of every tensor of a checkpoint, and the sums of their absolute values, to which other processors come near."""
    state = torch.load(run.checkpoints / rundir.step_name(step) / checkpoint.STATE, weights_only=True)
    tensors = list(checkpoint.tensors(state))
    whole = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()
    return {"sha256": whole, "sums": [float(tensor.double().abs().sum()) for tensor in tensors]}


def processor():
    """The kind of processor, on which the last bits of a sum depend."""
    found = dict(re.findall(r"^(.*?)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
    kind = [found.get(name, "") for name in ("vendor_id", "cpu family", "model", "stepping")]
    return " ".join([*kind, torch.backends.cpu.get_cpu_capability()])


def main(out):
    torch.set_num_threads(1)
    write_songs(out / "songs")
    wanted = settings()
    run = rundir.RunDir(out / "runs" / "run-v1")
    began = begin_run.begin(run, wanted, "shards-v1")
    assert shards.preprocess(out / "songs", run.shards, began.data, workers=1) == []
    log = run.attempts("train")
    starts.note_start(log, rundir.attempt(), 0, by_hand=True)
    assert loop.train(run, began, StopAtEight()) == 75
    run.write_outcome("train", "stopped", step=8)
    starts.note_end(log, rundir.attempt(), 8, 75, "stopped")
    assert evaluation.evaluate(run, began, only=[4]) == 1
    page.write(run, began)
    for part in (run.code, run.page.parent):
        shutil.rmtree(part)

    copy = rundir.RunDir(out / "continued" / "runs" / "run-v1")
    shutil.copytree(run.path, copy.path)
    shutil.copytree(out / "shards", copy.shards.parent)
    assert loop.train(copy, began) == 0
    rows = metrics_file.read(copy)
    found = {
        "weights": digest_of(copy, 12),
        "batches": " ".join(row["digests"] for row in rows),
        "l1": [row["l1"] for row in rows],
        "torch": torch.__version__,
        "processor": processor(),
    }
    (run.shards / "parts" / ".lock").unlink()
    (out / "continued.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

"""What a dry run prints."""

import dataclasses
import math
import os
import shlex
import subprocess
import sys

from p2p_dist.jobs import dry_run, estimate, site
from p2p_dist.run import rundir
from p2p_dist.settings import config, presets
from tests.jobs.submit_command import CHECKOUT, launch, place, scripts, songs

__all__ = ["place"]

GOLDEN = CHECKOUT / "tests" / "golden" / "dry-run.txt"


def test_the_dry_run_is_the_recorded_one(place, monkeypatch):
    done = launch("--nodes", "2", "--data", songs(place / "songs"), "--dry-run", "--account", "project_1", "--cluster", "slurm")
    text = done.stdout.replace(str(place).replace("'", "'\"'\"'"), "PLACE").replace(str(place).replace("'", "''"), "PLACE")
    text = text.replace(str(place), "PLACE").replace(shlex.quote(sys.executable), "PYTHON").replace(sys.executable, "PYTHON")
    if os.environ.get("RECORD"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "intended? RECORD=1 pytest tests/jobs/test_dry_run.py, and read the difference"


def test_the_scripts_are_whole_and_quoted(place):
    """Row 32: a job that was pickled by one version of Python and is read by another, or whose code has moved.

    Seen: the job fails at its start, in the container.
    Now: nothing is pickled: a job is a command line, and each of its arguments is quoted.
    """
    printed = launch("--nodes", "2", "--data", songs(place / "songs"), "--dry-run", "--cluster", "slurm").stdout
    found = scripts(printed)
    assert list(found) == ["preprocess", "pattern", "train", "evaluate", "page"]
    for stage, script in found.items():
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
        (last,) = [line for line in script.splitlines() if line.startswith("exec bash")]
        shown = subprocess.run(["bash", "-c", last.replace("exec bash", "printf '%s|'")], capture_output=True, text=True).stdout
        run = place / "runs" / "drums-default"
        assert shown == f"{run}/code/hpc/job.sh|{stage}|{run}|"
        assert "--wckey" not in script
    assert "#SBATCH --nodes=2" in found["train"] and "--signal=USR2@300" in found["train"]
    assert "#SBATCH --nodes=1" in found["evaluate"]
    assert "#SBATCH --time=120\n" in found["preprocess"], "minutes"
    assert "--dependency" not in found["preprocess"] and "--dependency='afterok:the preprocess job'" in found["pattern"]
    assert "--dependency='afterok:the pattern job'" in found["train"]
    assert "--kill-on-invalid-dep=yes" in found["page"]


def test_the_settings_printed_are_a_settings_file(place, tmp_path):
    printed = launch("--data", songs(place / "songs"), "--train.seed", "7", "--dry-run").stdout
    text = printed.split("##### config.yaml\n")[1].split("\n# at most")[0]
    (tmp_path / "c.yaml").write_text(text)
    assert presets.from_yaml(tmp_path / "c.yaml").train.seed == 7


def test_the_dry_run_says_what_can_be_billed(place):
    more = ("--max-gpu-hours", "10", "--time", "1-0", "--nodes", "2", "--account", "a", "--dry-run")
    shown = launch("--data", songs(place / "songs"), "--cluster", "lumi", *more).stdout
    assert "# at most 466.0 GPU-hours:" in shown
    assert "train: 202.0 (--max-gpu-hours 10, and the start that is running when it is reached: 192.0)" in shown
    assert "evaluate: 264.0 (11 starts of 24.0)" in shown
    assert "# likely about" not in shown.split("# at most")[0] and "to limit what" not in shown, "a limit was given"
    refused = launch("--data", str(place / "songs"), "--cluster", "slurm", *more)
    assert (
        refused.returncode == 2
        and "billing of this cluster is not known" in refused.stderr
        and "gpus_per_node" in refused.stderr
    )


def test_the_dry_run_says_what_is_likely_and_from_what_speed(tmp_path, capsys, monkeypatch):
    """64 images a step at a speed that is expected, or that this run was measured at; LUMI bills 4 GPU-hours a node-hour."""
    settings = config.Config(resources=config.Resources(nodes=2), train=config.Train(epochs=None, steps=36_000))
    run, place = rundir.RunDir(tmp_path / "runs" / "r"), site.load_site("lumi")
    speed = 16 * 40e12 / estimate.flops_per_image(settings)
    dry_run.say_likely(run, settings, place, None)
    likely, advice = capsys.readouterr().out.splitlines()
    hours = 36_000 * 64 / speed / 3600
    assert f"about {8 * hours:.2g} GPU-hours" in likely and "36000 steps" in likely and "not measured" in likely
    assert advice.endswith(f"--max-gpu-hours {max(1, math.ceil(12 * hours))}")
    run.path.mkdir(parents=True)
    run.config.write_text(presets.to_yaml(settings))
    run.metrics.write_text('{"step": 10, "images_per_second": 640.0}\n')
    # Of a range, that speed was the speed on the nodes of the last start.
    run.config.write_text(presets.to_yaml(dataclasses.replace(settings, resources=config.Resources(nodes=4, least_nodes=1))))
    log = run.slurm / "train" / "attempts"
    log.parent.mkdir(parents=True)
    log.write_text("start 7.0 0 10 4\nend 7.0 9 20 75 stopped\nstart 7.1 9 30 1\nend 7.1 10 40 75 stopped\n")
    dry_run.say_likely(run, settings, place, None)
    assert "in 0.5 hours at 1280 images/s (measured" in capsys.readouterr().out
    run.config.write_text(presets.to_yaml(settings))
    more = dataclasses.replace(settings, resources=config.Resources(nodes=4, max_gpu_hours=50.0))
    dry_run.say_likely(run, more, place, None)
    assert capsys.readouterr().out == (
        "# likely about 8 GPU-hours for the training: 36000 steps in 0.5 hours at 1280 images/s "
        "(measured at the last step of this run)\n"
    )
    monkeypatch.setattr(dry_run.checkpoints, "newest_step", lambda folder: 18_000)
    dry_run.say_likely(run, more, place, None)
    assert "about 4 GPU-hours for the training: 18000 steps in 0.25 hours" in capsys.readouterr().out, "what is left"

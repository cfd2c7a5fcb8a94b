"""The launcher's settings, its scripts, and what it refuses; each as a user types it, without Slurm and without torch."""

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from p2p_dist.cli import submit
from p2p_dist.common import console
from p2p_dist.jobs import begin_run, dry_run, estimate, packages, site
from p2p_dist.jobs.slurm import specs, squeue
from p2p_dist.run import rundir
from p2p_dist.settings import config, presets

CHECKOUT = Path(__file__).resolve().parents[2]
GOLDEN = CHECKOUT / "tests" / "golden" / "dry-run.txt"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working place whose name needs quoting."""
    place = tmp_path / "it's my place"
    place.mkdir()
    monkeypatch.setenv("P2P_RUNS", str(place / "runs"))
    monkeypatch.delenv("MUSDB_PATH", raising=False)
    monkeypatch.delenv("SBATCH_ACCOUNT", raising=False)
    return place


def songs(folder):
    """Files that only have to be there: the launcher opens none."""
    for split, name in (("train", "a.stem.mp4"), ("test", "b.stem.mp4")):
        (folder / split).mkdir(parents=True)
        (folder / split / name).write_bytes(b"x")
    return str(folder)


def launch(*arguments, code=None):
    """Run launch/submit.py in its own process; `code` runs before it."""
    before = f"{code}\n" if code else ""
    program = (
        f"{before}import runpy, sys; sys.argv = sys.argv[1:]; sys.path.insert(0, 'launch'); "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-c", program, "launch/submit.py", *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
    )


BASE_ONLY = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "numpy", "scipy", "av", "soundfile", "webdataset", "musdb", "stempeg"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


def test_a_dry_run_needs_only_what_a_login_node_has_and_writes_nothing(place):
    done = launch("--nodes", "2", "--data", songs(place / "songs"), "--dry-run", "--cluster", "slurm", code=BASE_ONLY)
    assert done.returncode == 0, done.stderr
    assert "#SBATCH" in done.stdout and done.stderr == ""
    assert not (place / "runs").exists()


def test_the_launcher_imports_neither_torch_nor_the_data_libraries(place):
    code = "import atexit, sys; atexit.register(lambda: print('MODULES', *sorted(sys.modules)))"
    done = launch("--dry-run", code=code)
    loaded = set(done.stdout.rsplit("MODULES", 1)[1].split())
    assert "p2p_dist.cli.submit" in loaded
    assert not loaded & {
        "torch",
        "webdataset",
        "musdb",
        "numpy",
        "av",
        "p2p_dist.data.index",
        "p2p_dist.audio.stems",
        "p2p_dist.train",
    }


def test_the_dry_run_is_the_recorded_one(place, monkeypatch):
    done = launch("--nodes", "2", "--data", songs(place / "songs"), "--dry-run", "--account", "project_1", "--cluster", "slurm")
    text = done.stdout.replace(str(place).replace("'", "'\"'\"'"), "PLACE").replace(str(place).replace("'", "''"), "PLACE")
    text = text.replace(str(place), "PLACE").replace(sys.executable, "PYTHON")
    if os.environ.get("RECORD"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "intended? RECORD=1 pytest tests/cli/test_submit.py, and read the difference"


def scripts(printed):
    """stage -> script, of what a dry run printed."""
    parts = printed.split("\n##### ")[1:]
    return {
        name.removesuffix(".sh"): body for name, _, body in (part.partition("\n") for part in parts) if name.endswith(".sh")
    }


def test_the_scripts_are_whole_and_quoted(place):
    """Row 32: a job that was pickled by one version of Python and is read by another, or whose code has moved.

    Seen: the job fails at its start, in the container.
    Now: nothing is pickled: a job is a command line, and each of its arguments is quoted.
    """
    printed = launch("--nodes", "2", "--data", songs(place / "songs"), "--dry-run", "--cluster", "slurm").stdout
    found = scripts(printed)
    assert list(found) == ["preprocess", "train", "evaluate", "page"]
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
    assert "--dependency" not in found["preprocess"] and "--dependency='afterok:the preprocess job'" in found["train"]
    assert "--kill-on-invalid-dep=yes" in found["page"]


def test_the_settings_printed_are_a_settings_file(place, tmp_path):
    printed = launch("--data", songs(place / "songs"), "--train.seed", "7", "--dry-run").stdout
    text = printed.split("##### config.yaml\n")[1].split("\n# at most")[0]
    (tmp_path / "c.yaml").write_text(text)
    assert presets.from_yaml(tmp_path / "c.yaml").train.seed == 7


def bill(**resources):
    """stage -> the most GPU-hours on LUMI."""
    settings = config.Config(resources=config.Resources(**{"nodes": 2, "time": "10:00:00", "max_requeues": 4} | resources))
    place = site.load("lumi")
    found = specs.bill(specs.jobs(rundir.find("r"), settings, place), settings.resources, place)
    return {stage: most for stage, (most, _) in found.items()}


def test_gpu_hours_are_what_the_site_bills():
    """LUMI: 4 GPU-hours a node-hour where nodes are given out whole, else half of one for each of the 8 dies asked for."""
    assert bill() == {"train": 2 * 4 * 10 * 5, "evaluate": 4 * 12 * 5}
    assert bill(evaluate_array=3)["evaluate"] == 4 * 12 * 5 * 3
    assert bill(partition="small-g") == {"train": 2 * 8 * 0.5 * 10 * 5, "evaluate": 8 * 0.5 * 12 * 5}
    assert bill(partition="small-g", processes_per_node=1)["train"] == 2 * 1 * 0.5 * 10 * 5
    assert bill(max_gpu_hours=100.0)["train"] == 100 + 2 * 4 * 10, "the last start begins below and may take all of its time"
    assert bill(max_gpu_hours=1000.0)["train"] == 2 * 4 * 10 * 5


def test_the_dry_run_says_what_can_be_billed(place):
    more = ("--max-gpu-hours", "10", "--time", "1-0", "--nodes", "2", "--account", "a", "--dry-run")
    shown = launch("--data", songs(place / "songs"), "--cluster", "lumi", *more).stdout
    assert "# at most 730.0 GPU-hours:" in shown
    assert "train: 202.0 (--max-gpu-hours 10, and the start that is running when it is reached: 192.0)" in shown
    assert "evaluate: 528.0 (11 starts of 48.0)" in shown
    assert "# likely about" not in shown.split("# at most")[0] and "to limit what" not in shown, "a limit was given"
    refused = launch("--data", str(place / "songs"), "--cluster", "slurm", *more)
    assert (
        refused.returncode == 2
        and "billing of this cluster is not known" in refused.stderr
        and "gpus_per_node" in refused.stderr
    )


def test_the_dry_run_says_what_is_likely_and_from_what_speed(tmp_path, capsys):
    """64 images a step at a speed that is expected, or that this run was measured at; LUMI bills 4 GPU-hours a node-hour."""
    settings = config.Config(resources=config.Resources(nodes=2), train=config.Train(epochs=None, steps=36_000))
    run, place = rundir.RunDir(tmp_path / "runs" / "r"), site.load("lumi")
    speed = 16 * 40e12 / estimate.flops_per_image(settings)
    dry_run.say_likely(run, settings, place, None)
    likely, advice = capsys.readouterr().out.splitlines()
    hours = 36_000 * 64 / speed / 3600
    assert f"about {8 * hours:.2g} GPU-hours" in likely and "36000 steps" in likely and "not measured" in likely
    assert advice.endswith(f"--max-gpu-hours {max(1, math.ceil(12 * hours))}")
    run.path.mkdir(parents=True)
    run.config.write_text(presets.to_yaml(settings))
    run.metrics.write_text('{"step": 10, "images_per_second": 640.0}\n')
    more = dataclasses.replace(settings, resources=config.Resources(nodes=4, max_gpu_hours=50.0))
    dry_run.say_likely(run, more, place, None)
    assert capsys.readouterr().out == (
        "# likely about 8 GPU-hours for the training: 36000 steps in 0.5 hours at 1280 images/s "
        "(measured at the last step of this run)\n"
    )


def test_what_jobs_import_is_looked_for_in_their_environment(tmp_path, monkeypatch, capsys):
    def check(text, *needed):
        file = tmp_path / f"{len(needed)}{len(text)}.sh"
        file.write_text(text)
        monkeypatch.setattr(packages, "PACKAGES", needed)
        place = dataclasses.replace(site.load("slurm"), environment=str(file))
        packages.check_packages_anywhere(config.Resources(), place, "slurm")

    (tmp_path / "only_there.py").touch()
    check(f"export PYTHONPATH='{tmp_path}'\n", "yaml", "only_there")
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match=r"environment of .*\.sh, where these packages are missing: only_there, nowhere;"):
        check("true\n", "only_there", "yaml", "nowhere")
    check("echo 'no module of this name' >&2; exit 1\n", "yaml")
    assert "could not be checked here (no module of this name); launch/check.py preflight checks it" in capsys.readouterr().out


def test_where_nodes_are_shared_only_what_processes_use_is_asked_for():
    """LUMI bills each die asked for, and a further one for each 64 GB."""
    found = {}
    for partition in ("small-g", "standard-g"):
        resources = config.Resources(partition=partition, processes_per_node=1)
        asked = config.Config(resources=resources)
        found[partition] = specs.jobs(rundir.find("r"), asked, site.load("lumi"), ("train", "evaluate"))
    shared, whole = found["small-g"][0].script(), found["standard-g"][0].script()
    assert "--gpus-per-node=1\n" in shared and "--mem=60G\n" in shared
    assert "--gpus-per-node=8\n" in whole and "--mem=480G\n" in whole and "--exclusive" in whole
    shared, whole = found["small-g"][1].script(), found["standard-g"][1].script()
    assert "--gpus-per-node=1\n" in shared and "--mem=60G\n" in shared and "--ntasks-per-node=1\n" in shared
    assert "--gpus-per-node=8\n" in whole and "--mem=480G\n" in whole and "--ntasks-per-node=8\n" in whole


def test_tensorboard_is_looked_for_before_anything_is_queued_or_begun(place):
    absent = BASE_ONLY.replace(
        '("torch", "numpy", "scipy", "av", "soundfile", "webdataset", "musdb", "stempeg")', '("tensorboard",)'
    )
    for more in (("--dry-run",), ("--cluster", "local")):
        done = launch("--train.tensorboard", "--preset", "tiny", *more, code=absent)
        assert done.returncode == 2 and "--train.tensorboard needs the package tensorboard" in done.stderr, done.stderr
    assert not (place / "runs").exists()
    done = launch("--preset", "tiny", "--cluster", "local", code=BASE_ONLY)
    assert done.returncode == 2 and "these packages are missing: torch, numpy" in done.stderr and not (place / "runs").exists()


def test_masks_leave_the_systems_cores_alone_and_share_none():
    """LUMI-G: the first core of every group of 8 is not for jobs; each process has the 7 others next to its die."""
    masks = [int(mask, 16) for mask in site.load("lumi").cpu_masks]
    assert len(masks) == 8
    cores = [[bit for bit in range(64) if mask >> bit & 1] for mask in masks]
    assert all(len(own) == 7 and len({core // 8 for core in own}) == 1 for own in cores)
    assert not {core for own in cores for core in own} & set(range(0, 64, 8))
    assert sum(masks) == int("fe" * 8, 16), "no core twice"


def test_only_on_whole_nodes_are_processes_bound_by_masks(place):
    for partition, bound in (("standard-g", True), ("small-g", False), (None, True)):
        resources = config.Resources(partition=partition, processes_per_node=2)
        jobs = specs.jobs(rundir.find("r"), config.Config(resources=resources), site.load("lumi"), ("train", "preflight"))
        assert ["P2P_CPU_MASKS" in job.script() for job in jobs] == [bound, bound]


def test_each_process_on_lumi_has_its_own_cache(tmp_path):
    """Rows 28, 29: MIOpen's database on a shared disk, or shared by processes; a variable that hangs the network.

    Seen: "database is locked"; or the first collective between nodes never ends (NCCL_NET_GDR_LEVEL, on images of 2026).
    Now: a folder made inside each task, on the node's own disk; the variable is left as it is found, unset.
    """
    environment = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "7", "P2P_ENVIRONMENT": str(site.HPC / "env" / "lumi.sh")}
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    found = []
    for rank in ("0", "1"):
        command = ["bash", str(site.HPC / "rank.sh"), sys.executable, "-c", program]
        done = subprocess.run(command, env={**environment, "SLURM_PROCID": rank}, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    folders = [each["MIOPEN_USER_DB_PATH"] for each in found]
    assert len(set(folders)) == 2 and all(folder.startswith("/tmp/") and Path(folder).is_dir() for folder in folders)
    for folder in folders:
        Path(folder).rmdir()
    assert found[0]["NCCL_SOCKET_IFNAME"] == "hsn0,hsn1,hsn2,hsn3" and "NCCL_NET_GDR_LEVEL" not in found[0]


def test_a_site_of_ones_own(place, tmp_path):
    """`--site FILE`: what it names is asked for, what it leaves out is as in slurm.yaml, its limits hold."""
    mine = tmp_path / "my site.yaml"
    mine.write_text(
        'partition: long\ngpus_per_node: 4\nevaluate_time: "4:00:00"\nlimits: {long: {time: "1:00:00", nodes: 3}}\n'
    )
    asked = (
        "--data",
        songs(place / "songs"),
        "--dry-run",
        "--site",
        str(mine),
        "--time",
        "60",
        "--train.global-batch-size",
        "48",
    )
    found = scripts(launch(*asked, "--cluster", "slurm", "--nodes", "3").stdout)
    script = found["train"]
    assert "#SBATCH --time=60\n" in found["evaluate"], "what the partition gives: it goes on where it was"
    for line in ("--partition=long", "--gpus-per-node=4", "--ntasks-per-node=4", "--cpus-per-task=2"):
        assert f"#SBATCH {line}\n" in script
    long = "--time asks for 1.02 hours, long gives at most 1:00:00"
    for more, said in ((("--time", "61"), long), (("--nodes", "4"), "at most 3")):
        refused = launch(*asked, "--cluster", "slurm", *more)
        assert refused.returncode == 2 and said in refused.stderr, refused.stderr
    assert site.load("local", str(mine)).processes_per_node(config.Resources()) == 4
    assert site.load("local").processes_per_node(config.Resources()) == 1


def test_flags_win_over_a_file_over_a_preset(place, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("train: {seed: 5, l1_weight: 7}\n")
    command, _ = submit.parse(["--preset", "small", "--config", str(file), "--train.seed", "6", "--data", "/songs"])
    train = command.settings.train
    assert (train.seed, train.l1_weight, train.global_batch_size) == (6, 7.0, presets.preset("small").train.global_batch_size)


def test_a_file_that_names_a_preset_goes_over_that_one(place, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("preset: tiny\ntrain: {steps: 5}\n")
    settings = submit.parse(["--config", str(file)])[0].settings
    assert settings.data.mels == presets.preset("tiny").data.mels and settings.train.steps == 5
    with pytest.raises(ValueError, match="omit one of them"):
        submit.parse(["--config", str(file), "--preset", "small"])


def test_the_preset_is_demo_without_songs_and_default_with_them(place, monkeypatch):
    assert submit.parse([])[0].settings.preset == "demo"
    assert submit.parse(["--data", "/songs"])[0].settings.preset == "default"
    assert submit.parse(["--data.root=/songs"])[0].settings.preset == "default"
    monkeypatch.setenv("MUSDB_PATH", "/elsewhere")
    command, run = submit.parse(["--task", "bass"])
    assert (command.settings.preset, command.settings.data.root) == ("default", "/elsewhere")
    assert run.path == place / "runs" / "bass-default"


def test_a_run_that_exists_is_its_own_preset(place):
    command, run = submit.parse(["--preset", "small", "--run", "mine", "--train.seed", "3", "--data", "/songs", "--nodes", "2"])
    begin_run.begin(run, command.settings, "songs")
    again, _ = submit.parse(["--run", "mine"])
    assert again.settings == command.settings
    other, _ = submit.parse(["--run", "mine", "--train.seed", "4", "--nodes", "3"])
    with pytest.raises(ValueError, match=r"train\.seed: 3 -> 4"):
        begin_run.begin(run, other.settings, "songs")


def test_what_is_typed_wins_over_the_alternative_that_a_preset_or_file_names(place, tmp_path):
    """`--preset small` names epochs: --train.steps takes their place, and the other way round."""

    def length(*arguments):
        train = submit.parse(list(arguments))[0].settings.train
        return train.epochs, train.steps

    assert length("--preset", "small", "--train.steps", "10") == (None, 10)
    assert length("--preset", "small", "--train.steps=10", "--train.epochs", "None") == (None, 10)
    assert length("--preset", "tiny", "--train.epochs", "2") == (2.0, None)
    assert length("--preset", "tiny", "--train.epochs", "None") == (None, presets.preset("tiny").train.steps)
    file = tmp_path / "mine.yaml"
    file.write_text("preset: small\ntrain: {steps: 5}\n")
    assert length("--config", str(file)) == (None, 5)
    assert length("--config", str(file), "--train.steps", "6") == (None, 6)
    assert length("--config", str(file), "--train.epochs", "3") == (3.0, None)
    file.write_text("train: {epochs: 5}\n")
    assert length("--config", str(file), "--preset", "tiny") == (5.0, None)
    file.write_text("train: {epochs: 5, steps: 4}\n")
    with pytest.raises(ValueError, match=r"mine\.yaml: either train\.epochs"):
        length("--config", str(file))


def test_a_run_that_is_not_there_is_begun_only_where_something_says_of_what(place):
    for name in ("drums-demo", "bass-small"):
        command, run = submit.parse(["--preset", "tiny", "--run", name])
        begin_run.begin(run, command.settings, "songs")
    for typed in (["--run", "drms-demo"], ["--run=drms-demo", "--nodes", "2"]):
        with pytest.raises(
            ValueError, match=r"no run drms-demo in [^;]*; did you mean drums-demo\?\nthere are: bass-small, drums"
        ):
            submit.main(typed)
    with pytest.raises(ValueError, match="no run bass-small-seed-0 in"):
        submit.main(["--run", "bass-small", "--sweep", "train.seed=0,1", "--dry-run"])
    for typed in (["--run", "drums-demo"], ["--run", "new", "--preset", "tiny"], ["--sweep", "train.seed=0,1"]):
        assert submit.main([*typed, "--cluster", "slurm", "--dry-run"]) == console.DONE
    assert submit.parse(["--run", "drums-demo"])[0].settings.preset == "tiny", "the page's own command, for who has the run"


def test_a_sweep_is_one_run_for_each_combination(place):
    sweep = ("train.seed=0,1", "train.learning-rate=1e-4,2e-4,3e-4")
    found = submit.combinations(["--data", "/songs", "--nodes", "2"], list(sweep), "drums-default")
    parsed = [submit.parse(one) for one in found]
    assert [(c.settings.train.seed, c.settings.train.learning_rate, c.settings.resources.nodes) for c, _ in parsed] == [
        (seed, rate, 2) for seed in (0, 1) for rate in (1e-4, 2e-4, 3e-4)
    ]
    assert len({run.path for _, run in parsed}) == 6 and parsed[0][1].path.name == "drums-default-seed-0-learning-rate-1e-4"
    printed = launch("--data", songs(place / "songs"), "--cluster", "slurm", "--dry-run", "--sweep", *sweep).stdout
    assert printed.count("##### train.sh") == 6
    assert printed.count("##### preprocess.sh") == 1 and printed.count("which makes the same shards") == 5
    assert printed.count("afterok:the preprocess job of drums-default-seed-0-learning-rate-1e-4'") == 5


@pytest.mark.parametrize("sweep", [("--sweep", "A", "B"), ("--sweep=A", "--sweep=B"), ("--sweep", "A", "--sweep", "B")])
def test_a_sweep_is_written_in_any_way(sweep):
    assert submit.split_sweep(["--nodes", "2", *sweep, "--time", "5"]) == (["--nodes", "2", "--time", "5"], ["A", "B"])


def test_a_ctrl_c_ends_a_sweep(place, monkeypatch, capsys):
    """Stopped in its first run it begins no other; the table shows the one that there is."""
    monkeypatch.setattr(submit.local, "run", lambda *_: console.STOPPED)
    arguments = ["--data", songs(place / "songs"), "--preset", "tiny", "--cluster", "local", "--run", "swept"]
    assert submit.main([*arguments, "--evaluate", "during", "--sweep", "train.seed=0,1"]) == console.STOPPED
    assert [path.name for path in (place / "runs").iterdir()] == ["swept-seed-0"]
    said = capsys.readouterr().out
    assert said.count("0 of 20") == 1 and said.count("checkpoints are evaluated after the training") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nods", "2"], "--nodes"),
        (["--nodes", "0"], "nodes must be greater than 0"),
        (["--preset", "demoo"], "did you mean demo"),
        (["--preset"], "--preset"),
        (["--task", "drms"], "drums, accompaniment, bass, vocals"),
        (["--data", "/no/such/folder"], "no folder /no/such/folder"),
        (["--data", "EMPTY"], "expected train/ and test/"),
        (["--data", ""], "--data is empty"),
        (["--preset", "small", "--train.steps", "3", "--train.epochs", "4"], "either train.epochs (4.0) or train.steps (3)"),
        (["--preset", "tiny", "--train.steps", "None"], "either train.epochs (None) or train.steps (None)"),
        (["--run", "drms-demo"], "no run drms-demo"),
        (["--run", ""], "use letters"),
        (["--nodes", "2", "--run=x", "--task", "bass"], "--preset demo for the example song"),
        (["--train.l1-weight", "nan"], "l1-weight"),
        (["--run", "../up"], "is not in the folder of runs"),
        (["--config", "/no/such.yaml"], "no file /no/such.yaml"),
        (["--train.learning-rate", "fast"], "learning-rate"),
        (["--time", "soon"], "1:30:00"),
        (["--cluster", "moon"], "slurm"),
        (["--sweep", "train.seed"], "train.seed=0,1,2"),
        (["--sweep", "train.sed=1,2"], "--train.seed"),
        (["--sweep"], "--sweep is empty"),
        (["--site", "/no/such.yaml", "--cluster", "slurm", "--dry-run"], "no file /no/such.yaml"),
        (["--max-gpu-hours", "0"], "max-gpu-hours must be greater than 0"),
        (["--cluster", "slurm", "--account", "a\n#SBATCH --wrap=x", "--dry-run"], "the preprocess job: account (--account"),
        (["--max-crash-restarts", "-1"], "max-crash-restarts must be 0 or more"),
    ],
)
def test_a_mistake_is_one_screen_with_exit_code_2_and_leaves_nothing(arguments, said, place):
    (place / "empty").mkdir()
    done = launch(*[str(place / "empty") if a == "EMPTY" else a for a in arguments])
    shown = done.stdout + done.stderr
    assert done.returncode == 2
    assert "error: " in done.stderr and said in shown and "Traceback" not in shown and "│" not in shown
    assert len(shown.splitlines()) < 5
    assert not (place / "runs").exists()


def test_missing_packages_are_said_before_anything_starts(place):
    hidden = (
        "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *a: None if n in ('torch', 'av') else f(n, *a)"
    )
    done = launch(code=hidden)
    assert done.returncode == 2 and "torch, av" in done.stderr and "[run]" in done.stderr
    assert not (place / "runs").exists()


def test_a_missing_base_package_says_how_to_install(place):
    for name in ("tyro", "rich", "submitit"):
        done = launch("--data", songs(place / name), "--cluster", "slurm", code=f"import sys; sys.modules['{name}'] = None")
        assert done.returncode == 2 and f"{name} is missing" in done.stderr and "Traceback" not in done.stderr
        assert not (place / "runs").exists()


def test_an_old_python_is_told_what_to_load():
    done = launch(code="import sys; sys.version_info = (3, 6, 15)")
    assert done.returncode == 2 and "3.11 or newer, this is 3.6" in done.stderr


def test_the_version():
    done = launch("--version")
    assert done.returncode == 0 and done.stdout.split()[0] == "p2p_dist"


def test_a_site_file_with_a_mistake_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "HPC", tmp_path)
    (tmp_path / "sites").mkdir()
    shutil.copy(CHECKOUT / "hpc" / "sites" / "slurm.yaml", tmp_path / "sites" / "mine.yaml")
    good = yaml.safe_load((tmp_path / "sites" / "mine.yaml").read_text())
    changes = [
        ({"gpus": 8}, "gpus"),
        ({"evaluate_time": [7200]}, "evaluate_time must be text, not .7200."),
        ({"limits": {"a": {"hours": 3}}}, "limits.a: unknown setting hours; there are time, nodes, jobs"),
    ]
    changes += [
        ({"limits": None}, "mine.yaml: limits must be a list of names and values"),
        ({"whole_nodes": "a"}, "whole_nodes must be a list"),
    ]
    changes += [
        ({"gpus_per_node": "8"}, "gpus_per_node must be a whole number without quotes, not '8'"),
        ({"requeue": "no"}, "true or false"),
    ]
    changes += [
        ({"gpu_hours_per_node_hour": "x"}, "gpu_hours_per_node_hour must be a number"),
        ({"limits": {"a": {"nodes": "4"}}}, "limits.a: nodes must be a whole number without quotes, not '4'"),
    ]
    changes += [({name: 0}, f"mine.yaml: {name} must be greater than 0") for name in ("cores_per_process", "preprocess_cores")]
    changes += [
        ({"evaluate_processes": 0}, "mine.yaml: evaluate_processes must be greater than 0"),
        ({"partition": ""}, "partition must be text that is not empty, not ''"),
    ]
    changes += [
        ({"gpu_hours_per_gpu_hour": math.inf}, "gpu_hours_per_gpu_hour must be 0 or more and finite, not inf"),
        ({"memory_per_node": "much"}, "480G"),
        ({"preprocess_memory": "8G\n#SBATCH --partition=b"}, "480G"),
    ]
    changes += [
        ({"cpu_masks": ["hello"]}, "cpu_masks must be the cores of a process, as 0xfe00, not 'hello'"),
        ({"limits": {"a": {"nodes": 0}}}, "limits.a: nodes must be greater than 0"),
    ]
    changes += [
        ({"evaluate_time": "soon"}, "mine.yaml: evaluate_time must be .*1:30:00.* not 'soon'"),
        ({"environment": "no.sh"}, "no file"),
    ]
    for change, said in (*changes, ({"limits": {"a": {"time": "soon"}}}, "mine.yaml: limits.a: time must be .*1:30:00")):
        (tmp_path / "sites" / "mine.yaml").write_text(json.dumps({**good, **change}).replace("Infinity", ".inf"))
        with pytest.raises(ValueError, match=said):
            site.load("mine")
    (tmp_path / "sites" / "mine.yaml").write_text("limits: {small")
    with pytest.raises(ValueError, match="not readable as YAML"):
        site.load("mine")
    with pytest.raises(ValueError, match="no site other"):
        site.load("other")


def test_a_site_file_is_read_as_it_is_written(tmp_path):
    """Without quotes too: a time is no number of base 60, `no` no name of a partition's, digits may name an account."""
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "partition: no\ncpu_partition: 010\nevaluate_time: 2:00:00\npreprocess_time: 90\nrequeue: no\nneeds_account: yes\n"
        "container_binds: [/a, /1:/2]\nlimits: {on: {time: 12:30:00, nodes: 4}}\n"
    )
    read = site.load("slurm", str(mine))
    assert (read.partition, read.cpu_partition, read.requeue, read.needs_account) == ("no", "010", False, True)
    assert (read.evaluate_time, read.preprocess_time) == ("2:00:00", "90")
    assert read.limits == {"on": site.Limit("12:30:00", nodes=4)} and read.container_binds == ["/a", "/1:/2"]
    mine.write_text("partition: a\nlimits: {a: {nodes: 3,\n nodes: 4}}\n")
    with pytest.raises(ValueError, match=r"mine\.yaml is not readable as YAML: line 3: nodes is set more than once"):
        site.load("slurm", str(mine))


def test_queued_jobs_are_known_by_their_comment(tmp_path, monkeypatch):
    """Also by the run's real path (a scratch folder is often a link); the successor of a job that still ends counts."""
    (tmp_path / "real" / "a | run").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    real, link = tmp_path / "real" / "a | run", tmp_path / "link" / "a | run"
    lines = [
        f"7|COMPLETING|None|p2p_dist train {link}",
        f"12|PENDING|Dependency|p2p_dist train {link}",
        f"9|RUNNING|None|p2p_dist evaluate {real}",
        f"10|RUNNING|None|p2p_dist page {link}-2",
        "11|RUNNING|None|(null)",
    ]
    (tmp_path / "squeue").write_text("#!/bin/sh\ncat <<X\n" + "\n".join(lines) + "\nX\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = squeue.queued_jobs(rundir.RunDir(link))
    assert {stage: job.number for stage, job in found.items()} == {"train": "12", "evaluate": "9"}
    (tmp_path / "squeue").write_text("#!/bin/sh\necho no contact >&2\nexit 1\n")
    with pytest.raises(OSError, match="no contact"):
        squeue.queued_jobs(rundir.RunDir(link))


def test_the_example_song_is_trained_and_tested_on_its_own_sound(place, monkeypatch):
    """It is the only one whose figures come without asking; of other songs, --allow-overlap asks for them."""
    monkeypatch.setenv("P2P_RUNS", str(place / "runs"))
    monkeypatch.delenv("MUSDB_PATH", raising=False)
    other = ["--data", str(songs(place / "songs"))]
    for arguments, allowed in ((["--preset", "tiny"], True), (other, False), ([*other, "--allow-overlap"], True)):
        assert submit.parse(arguments)[0].settings.evaluate.allow_overlap is allowed


IN_SITES = ("partition", "cpu_partition", "container", "environment", "memory_per_node", "preprocess_memory")
IN_SCRIPTS = [
    ("account", lambda value: ({"account": value}, {})),
    ("$SBATCH_ACCOUNT", lambda value: os.environ.update(SBATCH_ACCOUNT=value) or ({}, {})),
    ("partition", lambda value: ({"partition": value}, {})),
    ("--container", lambda value: ({"container": f"/x{value}"}, {})),
    ("--overlay", lambda value: ({"container": "/x", "overlay": f"/x{value}"}, {})),
    ("path of the run", lambda value: rundir.RunDir(Path(f"/x{value}/r"))),
    *(
        (name, lambda value, name=name: ({}, {name: value}))
        for name in ("partition", "cpu_partition", "container", "environment")
    ),
    ("site's file", lambda value: ({"container": "/x"}, {"container_binds": [f"/x{value}"]})),
]


@pytest.mark.parametrize(("source", "use"), IN_SCRIPTS)
@pytest.mark.parametrize("character", ["\n", "\r", "\x1b", "\x85", "\u2028"])
def test_no_control_character_gets_into_a_job_script(character, source, use, monkeypatch):
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    found = use(f"a{character}touch /tmp/pwned")
    run, (resources, place) = (found, ({}, {})) if isinstance(found, rundir.RunDir) else (rundir.RunDir(Path("/x/r")), found)
    settings = config.Config(resources=config.Resources(**resources))
    with pytest.raises(ValueError, match="has a control character") as refused:
        specs.jobs(run, settings, dataclasses.replace(site.load("slurm"), **place))
    assert character not in str(refused.value)
    assert source in str(refused.value) or source in place


@pytest.mark.parametrize("character", ["\n", "\x1b"])
def test_runs_lie_in_no_folder_with_a_control_character(character, tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / f"a{character}b"))
    with pytest.raises(ValueError, match="control character"):
        rundir.runs_root()

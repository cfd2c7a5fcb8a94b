"""The launcher's settings, its scripts, and what it refuses; each as a user types it, without Slurm."""

import dataclasses
import shlex

import pytest

from p2p_dist.cli import check, submit, sweep
from p2p_dist.common import console
from p2p_dist.jobs import begin_run
from p2p_dist.run import rundir
from p2p_dist.settings import presets
from tests.jobs.submit_command import BASE_ONLY, launch, place, songs

__all__ = ["place"]


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


def test_songs_that_a_file_names_are_those_of_the_user(place, tmp_path):
    """As with flags: the preset is not the demo's, and what contradicts itself is refused."""
    file = tmp_path / "mine.yaml"
    for text in ("data: {root: /songs}", "data: {shards: 'https://example.org/set'}"):
        file.write_text(text)
        assert submit.parse(["--config", str(file)])[0].settings.preset == "default"
    for text, said in (
        ("data: {root: ''}", "data.root is empty"),
        ("data: {root: /songs, shards: /set}", "data.root names songs and data.shards a finished dataset: omit one of them"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=said):
            submit.parse(["--config", str(file)])
        assert submit.parse(["--config", str(file), "--data", "/others"])[0].settings.data.root == "/others"
    file.write_text("train: {seed: 3}")
    assert submit.parse(["--config", str(file)])[0].settings.preset == "demo"
    file.write_text("resources: {nodes: 1-4, least_nodes: 3}")
    with pytest.raises(ValueError, match=r"1-4 sets the least number of nodes, too: omit resources\.least_nodes"):
        submit.parse(["--config", str(file)])
    file.write_text("- a\n")
    with pytest.raises(ValueError, match=r"mine\.yaml: it must be"):
        submit.parse(["--config", str(file)])


def test_files_of_the_jobs_are_found_from_any_folder(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    typed = ["--site", "my.yaml", "--container", "~/image.sif", "--overlay", "more.sqsh"]
    resources = submit.parse(["--preset", "tiny", *typed])[0].settings.resources
    assert (resources.site, resources.container) == (str(tmp_path / "my.yaml"), "/home/me/image.sif")
    assert resources.overlay == str(tmp_path / "more.sqsh")


def test_the_preset_is_demo_without_songs_and_default_with_them(place, monkeypatch):
    assert submit.parse([])[0].settings.preset == "demo"
    assert submit.parse(["--data", "/songs"])[0].settings.preset == "default"
    assert submit.parse(["--data.root=/songs"])[0].settings.preset == "default"
    monkeypatch.setenv("MUSDB_PATH", "/elsewhere")
    command, run = submit.parse(["--task", "bass"])
    assert (command.settings.preset, command.settings.data.root) == ("default", "/elsewhere")
    assert run.path == place / "runs" / "bass-default"
    assert not command.settings.model.sketch and submit.parse([])[0].settings.model.sketch
    assert not submit.parse(["--data", "/songs", "--data.task", "bass"])[0].settings.model.sketch
    assert not submit.parse(["--data", "/songs", "--data.copies", "1"])[0].settings.model.sketch
    (place / "mine.yaml").write_text("train: {seed: 3}\n")
    assert not submit.parse(["--config", str(place / "mine.yaml"), "--task", "bass"])[0].settings.model.sketch


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
    swept = ["train.seed=0,1", "train.learning-rate=1e-4,2e-4,3e-4"]
    found = sweep.combinations(["--data", "/songs", "--nodes", "2"], swept, "drums-default")
    parsed = [submit.parse(one) for one in found]
    assert [(c.settings.train.seed, c.settings.train.learning_rate, c.settings.resources.nodes) for c, _ in parsed] == [
        (seed, rate, 2) for seed in (0, 1) for rate in (1e-4, 2e-4, 3e-4)
    ]
    assert len({run.path for _, run in parsed}) == 6 and parsed[0][1].path.name == "drums-default-seed-0-learning-rate-1e-4"
    printed = launch("--data", songs(place / "songs"), "--cluster", "slurm", "--dry-run", "--sweep", *swept).stdout
    assert printed.count("##### train.sh of 6 runs") == 1 and printed.count("#SBATCH --array=0,1,2,3,4,5\n") == 4
    assert printed.count("##### preprocess.sh") == 1 and printed.count("which makes the same shards") == 5
    assert printed.count("afterok:the preprocess job of drums-default-seed-0-learning-rate-1e-4'") == 1


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
        (["--preset", ""], "unknown preset ''"),
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
        (["--nodes", "1-4", "--least-nodes", "3"], "--nodes 1-4 sets the least number of nodes, too: omit --least-nodes"),
        (["--preset", "tiny", "--data.mels", "16"], "data.mels 16: the discriminator needs at least 24"),
        (["--preset", "tiny", "--site", "/x/\udce9.yaml", "--dry-run"], "is not UTF-8, so it can't be stored"),
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


def test_a_missing_base_package_says_how_to_install(place):
    for name in ("tyro", "rich", "submitit"):
        done = launch("--data", songs(place / name), "--cluster", "slurm", code=f"import sys; sys.modules['{name}'] = None")
        assert done.returncode == 2 and f"{name} is missing" in done.stderr and "Traceback" not in done.stderr
        assert not (place / "runs").exists()


def test_an_old_python_is_told_what_to_load():
    done = launch(code="import sys; sys.version_info = (3, 6, 15)")
    assert done.returncode == 2 and "3.11 or newer, this is 3.6" in done.stderr


def test_the_version():
    done = launch("--version", code="pass")
    assert done.returncode == 0 and done.stdout.split()[0] == "p2p_dist"


IN_SITES = ("partition", "cpu_partition", "container", "environment", "memory_per_node", "preprocess_memory")


@pytest.mark.parametrize("character", ["\n", "\x1b"])
def test_runs_lie_in_no_folder_with_a_control_character(character, tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / f"a{character}b"))
    with pytest.raises(ValueError, match="control character"):
        rundir.runs_root()


def test_torchrun_is_for_machines_without_slurm(place):
    with pytest.raises(ValueError, match="--torchrun is for machines without Slurm: add --cluster local"):
        submit.main(["--torchrun", "--cluster", "slurm", "--yes", "--account", "a"])
    assert not (place / "runs").exists()


def test_the_torchrun_command_starts_what_a_machine_has(place, monkeypatch):
    run = rundir.RunDir(place / "my runs" / "a")
    resources = dataclasses.replace(presets.preset("tiny").resources, nodes=3)
    monkeypatch.setattr(submit.fits, "has_gpu", lambda: True)
    command = submit.torchrun_command(run, resources)
    assert command.startswith("torchrun --nnodes 3 --nproc-per-node gpu ") and "--rdzv-id a -m" in command
    assert shlex.split(command)[-1] == str(run.path)
    monkeypatch.setattr(submit.fits, "has_gpu", lambda: False)
    assert "--nproc-per-node 1 " in submit.torchrun_command(run, resources)


def test_a_range_of_nodes_is_typed_as_one_and_ends_with_a_number(place):
    """If it failed: an old range stays when a number is typed, and a start of the training gets fewer nodes than that."""
    base = ["--preset", "tiny", "--run", "a"]
    command, run = submit.parse([*base, "--nodes", "1-4"])
    assert command.settings.resources.sizes == (1, 4)
    begin_run.begin(run, command.settings, "none")
    for typed, sizes in (
        ([], (1, 4)),
        (["--nodes=3"], (3,)),
        (["--nodes", "3"], (3,)),
        (["--nodes=2-8"], (2, 8)),
        (["--nodes", "2-2"], (2,)),
        (["--nodes", "6", "--least-nodes", "5"], (5, 6)),
        (["--nodes", "8", "--nodes", "1-2"], (1, 2)),
    ):
        assert submit.parse(["--run", "a", *typed])[0].settings.resources.sizes == sizes, typed
    assert sweep.combinations(base, ["nodes=1-2,4"], "a")[0][-4:] == ["--nodes", "1-2", "--run", "a-nodes-1-2"]
    for typed in ("4-1", "0-2", "1-", "-4", "1-99999999999"):
        with pytest.raises(ValueError, match=f"^nodes must be a number, or the fewest and the most, as 1-4, not '{typed}'$"):
            submit.parse([*base, "--nodes", typed])
    with pytest.raises(ValueError, match="least-nodes 5 is more than nodes 4: give both ends as nodes, such as 1-4"):
        submit.parse([*base, "--nodes", "4", "--least-nodes", "5"])
    with pytest.raises(ValueError, match="--nodes must be a whole number, not 'True'"):
        submit.parse([*base, "--nodes", "True"])


def test_where_a_range_of_nodes_makes_no_sense(place):
    with pytest.raises(ValueError, match="--torchrun starts the training on a fixed number of machines"):
        submit.main(["--preset", "tiny", "--cluster", "local", "--torchrun", "--nodes", "1-2"])
    with pytest.raises(ValueError, match="a check runs on a fixed number of nodes: omit --least-nodes"):
        check.main(["preflight", "--least-nodes", "1", "--nodes", "2", "--cluster", "local"])
    with pytest.raises(ValueError, match="--nodes must be a whole number, not '1-2'"):
        check.main(["preflight", "--nodes", "1-2", "--cluster", "local"])
    assert not (place / "runs").exists()


def test_on_one_machine_a_range_is_its_most_nodes_and_that_is_said(place, monkeypatch, capsys):
    """If it failed: the command of the cluster trains with another number of processes here, and nobody knows."""
    monkeypatch.setattr(submit.local, "run", lambda run, *_: begun.append(rundir.read_settings(run).resources.nodes) or 0)
    begun = []
    for nodes in ("1-2", "2"):
        assert submit.main(["--preset", "tiny", "--run", "a", "--cluster", "local", "--nodes", nodes]) == 0
        said = "note: --nodes 1-2: on one machine, the training starts with 2"
        assert (said in capsys.readouterr().out.splitlines()) == (nodes == "1-2")
    assert begun == [2, 2]

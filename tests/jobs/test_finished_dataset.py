"""A run on a finished dataset that a server has: fetched once, trained on, gone on with, verified; and what is refused."""

import contextlib
import os
import shutil
import signal
import sys
import threading
import time

import pytest
import yaml

from p2p_dist.cli import status, submit
from p2p_dist.common import console, files, records, schemas
from p2p_dist.data import manifest, remote, staging, transfer
from p2p_dist.data.index import Index
from p2p_dist.jobs import begin_run, example_song, local, site, stage_process, stages
from p2p_dist.jobs.slurm import launch, squeue
from p2p_dist.run import rundir, snapshot
from p2p_dist.settings import presets
from p2p_dist.train import loop
from tests.data.server import Server
from tests.train import on_ranks


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A place for runs, with a folder for each node's disk."""
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "disk"))
    monkeypatch.delenv("MUSDB_PATH", raising=False)
    monkeypatch.setattr(remote, "PAUSES", (0.0,))
    return tmp_path


@pytest.fixture
def server(tiny_shards, tmp_path):
    """The shards of the tiny songs, served."""
    with Server(shutil.copytree(tiny_shards, tmp_path / "there")) as server:
        yield server


TINY = ("--preset", "tiny", "--nodes", "2", "--evaluate", "never")


def names(server):
    """What was asked for, and forget it."""
    found = [name for name, _ in server.asked]
    server.asked.clear()
    return found


def test_a_dataset_of_a_server_is_trained_on_and_each_node_fetches_its_shards_once(place, typed, server, capsys):
    content = records.read(server.folder / "manifest.json")
    training = {shard["name"] for shard in content["splits"]["train"]["shards"]}
    size = sum(shard["bytes"] for shard in content["splits"]["train"]["shards"])
    line = ("--data.shards", server.url, *TINY, "--run", "far", "--data.stage", "disk", "--train.steps", "10")
    printed = typed(*line)
    asked = names(server)
    assert len(asked) == len(set(asked)) and training < set(asked), "two processes of one node, each file once"
    run = rundir.find("far")
    number = "1 file" if len(training) == 1 else f"{len(training)} files"
    fetched = f"fetching {number} ({console.size(size)}) from {server.url} to {place}/disk/p2p_dist-"
    said = printed + (run.logs / "train-rank1.log").read_text()  # of the process that comes first
    assert f"fetching {server.url}\n" in printed and said.count(fetched) == 1 and stages.is_done("train", run) == "10 steps"
    assert not training & {path.name for path in run.shards.iterdir()}
    saved = yaml.safe_load(run.config.read_text())["data"]
    assert (saved["shards"], saved["root"]) == (server.url, None)
    assert status.main(["far", "--verify"]) == 0, capsys.readouterr()
    shutil.rmtree(place / "disk")
    shutil.rmtree(max(path for path in run.checkpoints.iterdir() if path.is_dir()))
    noted = run.dataset_record()
    records.write(run.dataset, schemas.DATASET, {"name": noted["name"]})  # as version 0.2.0 noted it
    moved = shutil.move(server.folder, place / "moved")
    printed = typed("--run", "far", "--data.shards", str(moved))
    assert "preprocess: already done" in printed, printed
    assert "10 steps from 8" in printed, printed
    assert names(server) == [] and run.read_dataset().startswith("from-") and stages.is_done("train", run)
    assert noted["manifest"] == manifest.identity(content) and run.dataset_record() == noted, "the training notes it, too"


def test_what_each_node_fetches_by_itself_is_not_needed_to_evaluate(place, typed, tiny_shards):
    line = ("--data.shards", str(tiny_shards), "--preset", "tiny", "--run", "far", "--data.stage", "disk", "--train.steps", "2")
    printed = typed(*line)
    run = rundir.find("far")
    assert run.page.is_file(), printed
    baselines = records.read(run.evaluations / "baselines.json")["splits"]["test"]
    assert baselines["rows"]["noise hits"]["mean"]["level_error"] is not None


@pytest.fixture
def begun(place, monkeypatch):
    """`begun(address, **data)`: a run on a dataset there, as the launcher begins it, and its settings."""
    monkeypatch.setattr(snapshot, "copy_code", lambda _: None)  # which is not run here

    def begun(address, **data):
        changed = {f"data.{name}": value for name, value in data.items()}
        settings = presets.with_values(presets.PRESETS["tiny"], {"data.shards": address, **changed})
        run = rundir.find("far")
        return run, begin_run.begin(run, settings, example_song.lay_out(run, settings.data))

    return begun


def test_all_is_fetched_where_the_nodes_share_it(begun, server, tiny_shards):
    run, settings = begun(server.url, stage="node")
    assert stages.is_done("preprocess", run) is None and stage_process.fetch(run, settings) == 0
    done = stages.is_done("preprocess", run)
    assert done is not None and "3 train songs" in done
    training = [shard["name"] for shard in manifest.read(run.shards)["splits"]["train"]["shards"]]
    assert not set(training) & set(names(server))
    run, settings = begun(server.url, stage="none")
    assert stages.is_done("preprocess", run) is None, "another launch reads them where they are"
    assert stage_process.fetch(run, settings) == 0 and names(server) == ["manifest.json", *training]
    assert stages.is_done("preprocess", run) == done
    before, now = Index(tiny_shards, "train"), Index(run.shards, "train")
    assert now.samples.digest == before.samples.digest, "the batches are those of the dataset where it was made"


def test_each_launch_asks_for_changes_until_there_is_a_checkpoint(begun, server, monkeypatch):
    run, settings = begun(server.url)
    assert stage_process.fetch(run, settings) == 0
    started = []
    monkeypatch.setattr(local, "run_until_it_ends", lambda stage, *_: started.append(stage) or 75)

    def first(**queued):
        """The first stage that a launch on this machine starts, and whether one on Slurm queues the job that asks."""
        started.clear()
        local.run(run, 0, None, "again")
        place = site.load_site("slurm", None)
        return started[0], launch.plan(run, settings, place, queued, run.read_dataset())[0].is_new

    assert first() == ("preprocess", True)
    assert first(train=squeue.Queued("7", "RUNNING", "None")) == ("preprocess", False), "it was asked before that was queued"
    noted = run.dataset_record()
    assert noted["manifest"]
    begun(server.url)
    assert run.dataset_record() == {**noted, "manifest": None}, "so that it begins with the newest"
    records.write(run.dataset, schemas.DATASET, noted)
    (run.checkpoints / rundir.step_name(1)).mkdir(parents=True)
    assert first() == ("train", False)
    begun(server.url)
    assert run.dataset_record() == noted


@pytest.mark.parametrize("asked", ["01", "1"])
def test_a_request_to_stop_ends_a_download(begun, server, ranks, place, asked):
    """One process fetches, the other waits for it; both leave in order at once. Then the same command goes on.

    If it failed: a job that is preempted while its nodes fetch for minutes is killed, and counts as crashed.
    """
    run, settings = begun(server.url, stage="disk")
    assert stage_process.fetch(run, settings) == 0
    (first, *_) = [shard["name"] for shard in manifest.read(run.shards)["splits"]["train"]["shards"]]
    if asked == "01":
        server.faults[first] = ["stall"] * 2
        assert ranks(2, stop_while_fetching, run.path, asked, place / "disk", seconds=200) == [75, 75]
        assert len(server.faults[first]) < 2, "a download that would have taken ten minutes had begun"
        assert not list((place / "disk").rglob("*.tar")) and not list((place / "disk").rglob(".tmp-*"))
    else:
        assert ranks(2, stop_while_fetching, run.path, asked, place / "disk", seconds=200) == [75, 75], (
            "though one of them was not told"
        )
    assert not run.checkpoints.exists() or not list(run.checkpoints.iterdir())


def stop_while_fetching(folder, asked, disk):
    """Train, where the ranks in `asked` are told to stop once half a file is there, or all are."""
    os.environ["TMPDIR"] = str(disk)
    if os.environ["RANK"] in asked:
        honest, there = loop.training_shards, threading.Event()

        def tell():
            while not there.wait(0.05):
                with contextlib.suppress(FileNotFoundError):
                    if any(path.stat().st_size for path in disk.rglob(".tmp-*.tar")):
                        break
            os.kill(os.getpid(), signal.SIGUSR2)

        def told(*arguments):
            threading.Thread(target=tell, daemon=True).start()
            honest(*arguments)
            there.set()
            for _ in range(6000):  # a signal that comes just before one sleep is heard after it
                time.sleep(0.1)

        loop.training_shards = told
    return on_ranks.train(folder)


def test_one_job_of_an_array_fetches(begun, server, monkeypatch):
    run, settings = begun(server.url)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert stage_process.fetch(run, settings) == 0 and names(server) == []


def test_a_dataset_of_other_settings_says_what_to_type(begun, server):
    run, settings = begun(server.url, mels=64)
    with pytest.raises(ValueError, match=r"\(mels: 32 -> 64\): for this dataset start a run with --data\.mels 32$"):
        stage_process.fetch(run, settings)


def test_songs_or_a_dataset(place, typed, server, tiny_songs):
    with pytest.raises(ValueError, match=r"--data names songs and --data\.shards a finished dataset: omit one of them"):
        submit.main(["--data", str(tiny_songs), "--data.shards", server.url])
    printed = typed("--data.shards", server.url, *TINY, "--dry-run", "--cluster", "slurm", "--yes")
    assert f"# dataset: {server.url}\n# shards: from-" in printed and names(server) == [], "the launcher fetches nothing"


@pytest.mark.parametrize("more", [("--dry-run",), (), ("--dry-run", "--cluster", "slurm", "--yes")])
def test_a_folder_without_a_dataset_is_refused_before_a_run_is_begun(place, more):
    (place / "empty").mkdir()
    for folder in ("gone", "empty"):
        with pytest.raises(FileNotFoundError, match=rf"no dataset there, .*{folder}/manifest\.json"):
            submit.main(["--data.shards", str(place / folder), *TINY, *more])
    assert not list(place.glob("runs/*"))


def test_no_secret_is_written_down(place, server, capsys):
    """Whatever is typed is refused before anything is written; what the environment holds is in no record."""
    address = server.url.replace("//", "//me:sesame@")
    with pytest.raises(ValueError, match="put it into an environment variable") as error:
        submit.main(["--data.shards", address, *TINY])
    assert "sesame" not in str(error.value) and not list(place.glob("runs/*"))


def test_what_the_environment_holds_is_in_no_record(begun, place, tiny_shards, monkeypatch, capfd):
    monkeypatch.setenv("OUR_WORD", "opensesame")
    with Server(shutil.copytree(tiny_shards, place / "there"), login="me:opensesame") as server:
        address = server.url.replace("//", "//me:$OUR_WORD@")
        monkeypatch.setattr(sys, "argv", ["launch/submit.py", "--data.shards", address])
        run, settings = begun(address)
        assert stage_process.fetch(run, settings) == 0
        shutil.rmtree(run.shards)
        monkeypatch.setenv("OUR_WORD", "somethingelse")
        with pytest.raises(OSError, match="the server answers 401") as error:
            stage_process.fetch(run, settings)
    text = f"{capfd.readouterr()} {error.value}".encode()
    assert b"me:$OUR_WORD@" in text
    text += b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
    assert b"opensesame" not in text and b"somethingelse" not in text


def test_a_command_is_run_only_from_what_the_user_alone_can_write(place, new_run, tmp_path):
    run, _ = new_run("far")
    here = f"pipe:touch {tmp_path}/harmed; cat {{name}}"
    settings = presets.with_values(presets.from_saved(run.config), {"data.shards": here, "data.stage": "disk"})
    files.write_text(run.config, presets.to_yaml(settings))
    assert transfer.address_of(run, settings.data) == here
    run.config.chmod(0o666)
    with pytest.raises(ValueError, match=r"config\.yaml is writable by everybody, and its data\.shards is a command or"):
        transfer.address_of(run, settings.data)
    with pytest.raises(ValueError, match=r"so it is not used: start a run of your own"):
        staging.training_shards(run, settings.data)
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text(f"data:\n  shards: '{here}'\n")
    theirs.chmod(0o666)
    with pytest.raises(ValueError, match=r"theirs\.yaml is writable by everybody, and its data\.shards .*: read it"):
        submit.main(["--config", str(theirs), *TINY])
    sent = f"https://theirs.example/{'$'}AWS_SECRET_ACCESS_KEY"  # as an address to which a secret of the user would go
    theirs.write_text(f"data:\n  shards: '{sent}'\n")
    with pytest.raises(ValueError, match="or contains variables of the environment: read it"):
        submit.main(["--config", str(theirs), *TINY])
    theirs.write_text(f"data:\n  shards: '{here}'\n")
    theirs.chmod(0o644)
    if os.geteuid() == 0:
        os.chown(theirs, 4321, -1)
        with pytest.raises(ValueError, match="belongs to user 4321"):
            submit.main(["--config", str(theirs), *TINY])
        os.chown(theirs, 0, -1)
    assert submit.main(["--config", str(theirs), *TINY, "--dry-run", "--cluster", "slurm", "--yes"]) == 0
    assert not (tmp_path / "harmed").exists()
    assert manifest.NAME not in {path.name for path in tmp_path.iterdir()}

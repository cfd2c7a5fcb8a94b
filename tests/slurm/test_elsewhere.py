"""A dataset that a server has, on the cluster: a job fetches what the nodes share, and each node its training shards."""

import re
import shutil

import pytest

from p2p_dist.data import manifest
from p2p_dist.run import rundir
from tests.data.server import Server


@pytest.fixture
def server(tiny_shards, tmp_path):
    """The shards of the tiny songs, served."""
    with Server(shutil.copytree(tiny_shards, tmp_path / "there")) as server:
        yield server


def test_a_dataset_of_a_server_is_fetched_by_jobs_and_a_run_that_is_typed_again_goes_on(
    lab, launch, server, monkeypatch, tmp_path
):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "disk"))  # of the nodes
    settings = ("--data.shards", server.url, "--preset", "tiny", "--evaluate", "never", "--nodes", "2", "--time", "10")
    line = (*settings, "--run", "far", "--data.stage", "disk", "--train.steps", "6")
    said = launch("submit", *line)
    assert server.asked == [], "the login node asks for nothing"
    jobs = dict(re.findall(r"^(\w+): job (\d+)", said, re.MULTILINE))
    for stage in ("preprocess", "train"):
        lab.wait_for(jobs[stage], 180, "COMPLETED")
    asked = [name for name, _ in server.asked]
    training = {shard["name"] for shard in manifest.read(server.folder)["splits"]["train"]["shards"]}
    run = rundir.find("far")
    assert training <= set(asked) and not training & {path.name for path in run.shards.iterdir()}
    assert asked.count("manifest.json") == 1 and run.dataset_record()["manifest"] == manifest.identity(
        manifest.read(run.shards)
    )
    server.asked.clear()
    said = launch("submit", *line)
    assert "preprocess: already done" in said and "train: already done (6 steps)" in said and server.asked == []

"""Names that are read never lead out of their folder, and nothing is written or removed behind a link: whoever put it there."""

import dataclasses
import json
import os
import shutil

import pytest

from p2p_dist.common import files
from p2p_dist.data import index, manifest, shards, song_record, staging
from p2p_dist.evaluate import checkpoints, held_out_songs, ranking
from p2p_dist.evaluate.report import curves, page
from p2p_dist.jobs import begin_run
from p2p_dist.run import rundir, starts
from p2p_dist.settings import presets
from p2p_dist.train import checkpoint
from tests.golden import make
from tests.golden.copied import run

__all__ = ["run"]

OUTSIDE = ("../../../../pwned/x", "/tmp/pwned", "..", "a/b", "x\ny", "", ".hidden/../x")


def tree(folder):
    """All that lies in a folder, with what it holds."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def changed(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(files.sealed(content) if "digest" in content else content))


def in_manifest(run, name):
    """What anybody can write: the seal is a plain digest."""

    def change(content):
        part = content["splits"]["test"]
        for row in part["samples"]:
            row[1] = name
        part["shards"][0]["name"] = name

    changed(run.shards / "manifest.json", change)
    return lambda: staging.copy_to_node(run.shards, "test", run.path.parent / "memory")


def in_sound(run, name):
    changed(run.shards / "manifest.json", lambda content: content["splits"]["test"]["audio"][0].update(name=name))
    return lambda: held_out_songs.from_shards(run.shards, "test", 9)


def in_key(run, name):
    changed(run.shards / "manifest.json", lambda content: content["splits"]["test"]["songs"][0].update(key=name))
    return lambda: checkpoints.evaluate(run, make.settings())


def in_window(run, name):
    changed(run.shards / "manifest.json", lambda content: content["splits"]["test"]["samples"][0].__setitem__(0, name))
    return lambda: index.Index(run.shards, "test")


def in_metrics(run, name):
    path = run.evaluations / "step-00000004" / "metrics.json"
    changed(path, lambda content: content["songs"][0].update(key=name))
    return lambda: page.write(run, make.settings())


def in_baselines(run, name):
    changed(run.evaluations / "baselines.json", lambda content: content.update(songs={name: {}}))
    return lambda: ranking.read_evaluations(run.evaluations)


def in_dataset(run, name):
    run.dataset.write_text(json.dumps({"name": name}))
    return lambda: run.shards


@pytest.mark.parametrize("record", [in_manifest, in_sound, in_key, in_window, in_metrics, in_baselines, in_dataset])
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_elsewhere_is_refused_where_it_is_read(record, name, run, tmp_path):
    use = record(run, name)
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=r"is damaged|not of this shape"):
        use()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", OUTSIDE)
def test_the_record_of_a_song_with_such_a_name_is_none(name, run):
    path = run.shards / "parts" / "test-00000-held-out.json"
    assert song_record.read_record(path) is not None
    changed(path, lambda content: content["shard"].update(name=name))
    assert song_record.read_record(path) is None


def test_a_baseline_of_any_name_makes_no_folder_of_tensorboards(run):
    """Each curve is a folder named after a baseline; names in baselines.json are anybody's."""

    def change(content):
        for split in content["splits"].values():
            split["rows"]["../../../../pwned"] = next(iter(split["rows"].values()))

    changed(run.evaluations / "baselines.json", change)
    evaluated, baselines = ranking.read_evaluations(run.evaluations)
    ranked = ranking.rank(evaluated, baselines, make.settings().evaluate, pitched=False)
    drawn = curves.collect(evaluated, baselines, ranked, pitched=False)
    assert not [name for name in curves.for_board(drawn) if "." in name or "/" in name]


def test_the_manifest_that_earlier_versions_wrote_has_good_names(run):
    assert {row[0] for row in manifest.read(run.shards)["splits"]["valid"]["samples"]} >= {"00000-emile-s-tune-00000"}


LINKS = ("page/media", "page", "evaluations/step-00000004", "checkpoints", "logs", "tensorboard", "evaluations/references")


@pytest.mark.parametrize("where", LINKS)
def test_nothing_is_written_or_removed_behind_a_link(where, run, tmp_path):
    precious = tmp_path / "precious"
    (precious / "step-00000008").mkdir(parents=True)
    for name in ("letter.txt", ".tmp-mine", "step-00000008/letter.txt"):
        (precious / name).write_text("mine")
    if (run.path / where).exists():
        shutil.rmtree(run.path / where)
    (run.path / where).parent.mkdir(parents=True, exist_ok=True)
    (run.path / where).symlink_to(precious)
    before = tree(tmp_path)
    settings = make.settings()
    for write in (
        lambda: page.write(run, settings),
        lambda: checkpoints.evaluate(run, settings),
        lambda: begin_run.begin(run, settings, "shards-v1"),
    ):
        with pytest.raises(ValueError, match=rf"{where} is a link.*precious.*remove the link"):
            write()
    assert tree(tmp_path) == before


def test_songs_are_not_removed_behind_a_link_for_their_records(run, tmp_path):
    shutil.move(run.shards / "parts", tmp_path / "parts")
    (run.shards / "parts").symlink_to(tmp_path / "parts")
    (tmp_path / "songs" / "train" / "one").mkdir(parents=True)
    (tmp_path / "songs" / "train" / "one" / "drums.wav").touch()
    before = tree(tmp_path / "parts")
    with pytest.raises(ValueError, match="parts is a link"):
        shards.preprocess(tmp_path / "songs", run.shards, make.settings().data, workers=1)
    assert tree(tmp_path / "parts") == before


def test_files_that_grow_are_not_grown_behind_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "link").symlink_to(victim)
    for write in (
        lambda: files.append(tmp_path / "link", "more\n"),
        lambda: starts.note_end(tmp_path / "link", "7.0", 1, 0, "done"),
        lambda: os.close(files.open_ours(tmp_path / "link", os.O_WRONLY | os.O_TRUNC)),
    ):
        with pytest.raises(OSError, match="a symbolic link, which is not followed"):
            write()
    assert victim.read_text() == "mine"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe"):
        files.append(tmp_path / "pipe", "more\n")


def test_a_folder_is_removed_and_never_what_links_in_it_lead_to(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "letter").touch()
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "folder" / "sub" / "link").symlink_to(tmp_path / "precious")
    files.remove_tree(tmp_path / "folder")
    files.remove_tree(tmp_path / "folder")
    (tmp_path / "folder").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="a symbolic link, which is not followed"):
        files.remove_tree(tmp_path / "folder")
    (tmp_path / ".tmp-x").symlink_to(tmp_path / "precious")
    files.remove_garbage(tmp_path)
    assert not (tmp_path / ".tmp-x").is_symlink() and (tmp_path / "precious" / "letter").exists()


def test_a_lease_is_not_made_behind_a_link(run, tmp_path):
    found = checkpoint.find(run.checkpoints)[-1]
    (found.path / f"lease-{files.writer()}").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="a symbolic link"), checkpoint.leased(found):
        pass
    assert not (tmp_path / "victim").exists()


def test_links_that_a_user_makes_around_a_run_are_followed(run, tmp_path, monkeypatch):
    """runs/ and shards/NAME on another disk."""
    (tmp_path / "disk").mkdir()
    shutil.move(run.shards, tmp_path / "disk" / "shards-v1")
    (run.path.parent.parent / "shards" / "shards-v1").symlink_to(tmp_path / "disk" / "shards-v1")
    (tmp_path / "runs").symlink_to(run.path.parent)
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    again = rundir.find("run-v1")
    settings = dataclasses.replace(make.settings(), resources=presets.preset("tiny").resources)
    begin_run.begin(again, settings, "shards-v1")
    assert index.Index(again.shards, "test").samples

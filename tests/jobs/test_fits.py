"""What is refused before a process is started or a job queued, and that what is advised there works."""

import dataclasses
import re
import shutil

import pytest

from p2p_dist.cli import submit
from p2p_dist.jobs import begin_run, estimate, fits, site
from p2p_dist.run import rundir
from p2p_dist.settings import config, presets
from tests.run.unread_checkpoints import run

__all__ = ["run"]

DEFAULT = presets.PRESETS["default"]


def with_resources(base, **resources):
    return dataclasses.replace(base, resources=config.Resources(**resources))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    for name in ("MUSDB_PATH", "SBATCH_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fits.linux, "usable_cores", lambda: 2)
    monkeypatch.setattr(fits, "has_gpu", lambda: False)
    for split, name in (("train", "a.stem.mp4"), ("test", "b.stem.mp4")):
        (tmp_path / "songs" / split).mkdir(parents=True)
        (tmp_path / "songs" / split / name).write_bytes(b"x")
    return tmp_path


def dry_run(place, *more):
    return submit.main(["--data", str(place / "songs"), "--dry-run", *more])


def test_processes_that_can_not_share_the_batch_are_told_what_can(place, capsys):
    """LUMI, 8 processes a node, batch 64: any number of nodes up to 8."""
    typed = ("--cluster", "lumi", "--account", "a", "--partition", "standard-g")
    with pytest.raises(ValueError, match=r"72 processes .*use --nodes 8, or --train.global-batch-size 72$"):
        dry_run(place, *typed, "--nodes", "9")
    for nodes in ("3", "8"):
        assert dry_run(place, *typed, "--nodes", nodes) == 0
    assert dry_run(place, *typed, "--nodes", "9", "--train.global-batch-size", "72") == 0
    capsys.readouterr()


def test_a_range_of_nodes_is_checked_at_both_ends(place, capsys):
    """If it failed: a start on the fewest nodes, or on the most, that no process has a pair for or no tier takes."""
    typed = ("--cluster", "lumi", "--account", "a", "--partition", "standard-g")
    with pytest.raises(ValueError, match=r"80 processes \(10 nodes of 8\).*use --nodes 2-8, or --train.global-batch-size 80$"):
        dry_run(place, *typed, "--nodes", "2-10")
    with pytest.raises(ValueError, match=r"use --nodes 8, or"):
        dry_run(place, *typed, "--nodes", "9-10")
    assert dry_run(place, *typed, "--nodes", "1-8") == 0
    with pytest.raises(ValueError, match="--nodes 8: a job in small-g has at most 4; nothing was queued"):
        dry_run(place, *typed[:-1], "small-g", "--nodes", "1-8")
    said = capsys.readouterr().out
    assert "# nodes: each start of the training gets 1 to 8, as many as are free; GPU-hours: for 8" in said
    assert "\n  nodes: 8\n  least_nodes: 1\n" in said


def test_on_the_fewest_nodes_a_process_needs_the_most_memory(place, tmp_path):
    mine = tmp_path / "mine.yaml"
    fixed = with_resources(DEFAULT, nodes=4)
    most = -(-estimate.memory_of_node(fixed, 4, 1, forked=False) // 2**20)
    mine.write_text(f"memory_per_node: {most}M")
    fits.check_node(fixed, site.load_site("slurm", str(mine)), 1)
    with pytest.raises(ValueError, match="1 processes on a node will take about"):
        fits.check_node(with_resources(DEFAULT, nodes=4, least_nodes=1), site.load_site("slurm", str(mine)), 1)


def test_a_batch_smaller_than_a_node_is_shared_by_fewer_processes(place, capsys):
    typed = ("--cluster", "lumi", "--account", "a", "--preset", "demo")
    with pytest.raises(ValueError, match=r"use --nodes 1 --processes-per-node 4, or --train.global-batch-size 8"):
        dry_run(place, *typed)
    assert dry_run(place, *typed, "--nodes", "1", "--processes-per-node", "4") == 0
    with pytest.raises(
        ValueError, match=r"24 processes.*use --nodes 1 --processes-per-node 4, or --train.global-batch-size 24"
    ):
        dry_run(place, *typed, "--nodes", "3")
    capsys.readouterr()


def test_the_batch_of_a_run_that_has_begun_is_not_offered(place):
    run = rundir.find("a")
    begin_run.begin(run, presets.PRESETS["tiny"], "none")
    with pytest.raises(ValueError, match=r"use --nodes 4$"):
        fits.check_batch(
            config.Resources(nodes=5), presets.PRESETS["tiny"].train.global_batch_size, site.load_site("local"), begun=True
        )


def test_more_processes_than_cores_are_refused(place):
    """Whatever starts them; 4 are let through on any machine, to try things."""
    with pytest.raises(ValueError, match=r"40 processes on this machine, which has 2 cores.*use --nodes 4$"):
        dry_run(place, "--cluster", "local", "--nodes", "40", "--preset", "tiny", "--train.global-batch-size", "40")
    with pytest.raises(ValueError, match=r"use --nodes 4 --processes-per-node 1$"):
        dry_run(place, "--processes-per-node", "9", "--preset", "tiny", "--train.global-batch-size", "9", "--cluster", "local")
    assert dry_run(place, "--cluster", "local", "--nodes", "4", "--preset", "tiny") == 0


def test_what_does_not_fit_into_memory_is_told_a_number_that_does(place, monkeypatch):
    settings = with_resources(DEFAULT, nodes=4)
    two, four = (estimate.memory_of_node(settings, n, n, forked=True) for n in (2, 4))
    monkeypatch.setattr(estimate, "free_memory", lambda: two)
    with pytest.raises(
        ValueError, match=r"4 processes will take about 12\.1 GB.*use --nodes 2, or --train.micro-batch-size 8$"
    ):
        fits.check_this_machine(settings, 4)
    fits.check_this_machine(with_resources(DEFAULT, nodes=2), 2)
    fits.check_this_machine(estimate.with_micro_batch(settings, 8), 4)
    monkeypatch.setattr(estimate, "free_memory", lambda: four)
    fits.check_this_machine(settings, 4)
    monkeypatch.setattr(estimate, "free_memory", lambda: 10**8)
    with pytest.raises(ValueError, match="even one process is too large for this machine: use --preset small"):
        fits.check_this_machine(settings, 4)
    monkeypatch.setattr(fits, "has_gpu", lambda: True)
    fits.check_this_machine(settings, 4)


def test_a_node_of_the_cluster_has_so_many_cores_masks_and_memory(place, tmp_path):
    with pytest.raises(ValueError, match=r"16 processes of 7 cores each .* a node of 56 cores: use --processes-per-node 8$"):
        dry_run(place, "--cluster", "lumi", "--account", "a", "--processes-per-node", "16")
    mine = tmp_path / "mine.yaml"
    mine.write_text("partition: p\nwhole_nodes: [p]\ncpu_masks: ['0x1', '0x2', '0x4']\nmemory_per_node: 3G\n")
    typed = ("--cluster", "slurm", "--site", str(mine), "--preset", "small", "--processes-per-node")
    with pytest.raises(ValueError, match=r"cpu_masks for 3: use --processes-per-node 3$"):
        dry_run(place, *typed, "4")
    assert dry_run(place, *typed, "2") == 0
    mine.write_text("memory_per_node: 1G")
    with pytest.raises(ValueError, match=r"4 processes on a node will take about \d\.\d GB.*memory_per_node is 1G"):
        dry_run(place, *typed, "4")


def test_a_disk_that_is_too_small_is_said_before(place, tiny_songs, monkeypatch):
    monkeypatch.setattr(estimate, "free_disk", lambda folder: 10**8)
    with pytest.raises(ValueError, match=r"about \d\.\d GB will be written below .*0\.1 GB are free there.*P2P_RUNS"):
        dry_run(place, "--cluster", "local")
    assert dry_run(place, "--cluster", "local", "--preset", "tiny") == 0
    monkeypatch.setattr(estimate, "free_disk", lambda folder: 10**6)
    with pytest.raises(ValueError, match=r"shards \d+ MB, checkpoints \S+ .B, sketches \d+ MB\), and 1 MB are free"):
        submit.main(["--data", str(tiny_songs), "--dry-run", "--cluster", "local", "--preset", "sketch"])


def test_the_dry_run_says_what_will_be_written(place, tiny_songs, tiny_shards, capsys):
    """Where the lengths of the songs are known. Shards that are there already are not written again."""

    def told(*more):
        assert submit.main(["--data", str(tiny_songs), "--dry-run", "--cluster", "local", *more]) == 0
        said = capsys.readouterr().out
        pattern = r"^# about (\S+ .B) will be written below (\S+) \(shards (\S+ .B), checkpoints (\S+ .B)\)$"
        (found,) = re.findall(pattern, said, re.MULTILINE)
        assert found[1] == str(place)
        return found[0], *found[2:], re.search(r"^# shards: (\S+)$", said, re.MULTILINE)[1]

    whole, shards, checkpoints, _ = told("--data.window-hop", "1", "--data.copies", "20")
    assert shards.endswith(" MB") and float(checkpoints[:-3]) > 1 and checkpoints.endswith(" GB")
    assert float(whole[:-3]) == pytest.approx(float(shards[:-3]) / 1000 + float(checkpoints[:-3]), abs=0.1)
    _, shards, _, dataset = told("--preset", "tiny")
    assert shards not in ("0 kB", "0 MB")
    (place / "shards").mkdir()
    (place / "shards" / dataset).symlink_to(tiny_shards)
    assert told("--preset", "tiny")[1] == "0 kB"
    dry_run(place, "--cluster", "local", "--preset", "tiny")
    assert "will be written" not in capsys.readouterr().out, "the lengths of these songs are not known"


def test_what_is_written_already_needs_no_more_room(place, tiny_songs):
    tiny = presets.preset("tiny")
    data = dataclasses.replace(tiny.data, root=str(tiny_songs))
    settings, mine = dataclasses.replace(presets.preset("sketch"), data=data), rundir.find("mine")
    first = fits.to_write(mine, settings, None, {"train": 100, "test": 10})
    assert list(first) == ["shards", "checkpoints", "sketches"] and min(first.values()) > 0
    (mine.checkpoints / "step-00000001").mkdir(parents=True)
    assert fits.to_write(mine, settings, None, {"train": 100, "test": 10}) == {**first, "checkpoints": 0}
    mine.pattern.mkdir()
    mine.drummer.touch()
    assert fits.to_write(mine, settings, None, {"train": 100, "test": 10}) == {"shards": first["shards"], "checkpoints": 0}


def test_a_run_that_has_trained_needs_neither_the_room_nor_the_processes_of_a_training(run, monkeypatch):
    monkeypatch.setattr(estimate, "free_disk", lambda folder: 0)
    settings = with_resources(rundir.read_settings(run), nodes=99)
    assert fits.check(run, settings, site.load_site("local"), "local", "songs") == []
    shutil.rmtree(run.checkpoints / "step-00000090")
    with pytest.raises(ValueError, match="99 processes"):
        fits.check(run, settings, site.load_site("local"), "local", "songs")


@pytest.mark.parametrize("name", ["runs", "shards"])
def test_a_folder_that_can_not_be_written_to_is_named_before_anything_is_made(place, name):
    (place / name).write_text("")
    with pytest.raises(OSError, match=f"{place}/{name}"):
        dry_run(place, "--cluster", "local", "--preset", "tiny")


def test_a_sketch_needs_audio_before_anything_is_made(place, capsys):
    (place / "songs" / "train" / "c").mkdir()
    (place / "songs" / "train" / "c" / "c_0.npz").touch()
    with pytest.raises(ValueError, match=r"songs/train.* spectrograms without audio, .* remove it, .* --preset thesis"):
        dry_run(place, "--cluster", "local", "--preset", "sketch")
    assert dry_run(place, "--cluster", "local", "--preset", "small") == 0


def test_that_the_default_preset_has_no_sketch_is_said_once(place, tiny_songs, capsys):
    told = "# note: there is no sketch of drums with --data.shards, --data.copies"
    for more, is_told in (
        (["--data.copies", "1"], True),
        (["--task", "bass"], False),
        (["--preset", "plain", "--data.copies", "1"], False),
        ([], False),
    ):
        assert submit.main(["--data", str(tiny_songs), "--dry-run", "--cluster", "local", *more]) == 0
        assert (told in capsys.readouterr().out) == is_told, more
    command, run = submit.parse(["--data", str(tiny_songs), "--data.copies", "1"])
    begin_run.begin(run, command.settings, "songs")
    assert submit.main(["--data", str(tiny_songs), "--data.copies", "1", "--dry-run", "--cluster", "local"]) == 0
    assert told not in capsys.readouterr().out, "it goes on as it began"


def test_the_example_song_is_not_there_yet(place, capsys):
    """It was said to be missing where the model has a sketch."""
    assert submit.main(["--dry-run", "--preset", "default", "--cluster", "local"]) == 0
    assert "# pattern: to do" in capsys.readouterr().out
    assert not (place / "songs" / "falcon69").exists()


def test_kits_of_no_training_song_are_refused_before_anything_is_made(place, tiny_songs, capsys):
    root = ["--data", str(tiny_songs), "--preset", "sketch"]
    with pytest.raises(ValueError, match=r"has a name like --train\.kits 'Real - \*': there are \w+"):
        dry_run(place, "--cluster", "local", *root, "--train.kits", "Real - *")
    name = next((tiny_songs / "train").iterdir()).name
    dry_run(place, "--cluster", "local", *root, "--train.kits", f"{name[:2]}*")
    assert f"kits: {name[:2]}*" in capsys.readouterr().out


def test_some_of_the_training_songs_are_named_where_no_kit_is_and_no_song_for_tests(place):
    data = dataclasses.replace(DEFAULT.data, root=str(place / "songs"))
    for number, name in enumerate("acde"):
        (place / "songs" / "train" / f"{name}.stem.mp4").write_bytes(b"x")
        listed = ", ".join("acde"[: number + 1][:3]) + (", ..." if number == 3 else "")
        with pytest.raises(ValueError, match=rf"like --train\.kits 'b': there are {re.escape(listed)}$"):
            fits.check_sketched_songs(data, config.Train(kits="b"))
    fits.check_sketched_songs(data, config.Train(kits="[ab]"))


def test_fewer_windows_than_a_batch_are_said(place, tiny_songs, capsys):
    typed = ["--data", str(tiny_songs), "--preset", "tiny", "--cluster", "local", "--dry-run"]
    submit.main([*typed, "--train.global-batch-size", "4"])
    assert "# note" not in capsys.readouterr().out
    submit.main([*typed, "--train.global-batch-size", "1000"])
    said = capsys.readouterr().out
    assert "fewer than the global batch of 1000" in said
    (advised,) = re.findall(r"--train.global-batch-size (\d+)", said)
    submit.main([*typed, "--train.global-batch-size", advised])
    assert "# note" not in capsys.readouterr().out


def test_an_image_that_was_typed_has_to_be_there_in_a_dry_run_too(place, capsys):
    for option in ("--container", "--overlay"):
        with pytest.raises(ValueError, match=r"image /no/such\S* does not exist"):
            dry_run(place, "--cluster", "slurm", option, "/no/such.sif")
    text = (site.HPC / "sites" / "lumi.yaml").read_text()
    mine = place / "mine.yaml"
    mine.write_text(text.replace("container: containers/p2p_dist.sif", "container: containers/none.sif"))
    assert dry_run(place, "--cluster", "slurm", "--site", str(mine), "--account", "a") == 0
    assert "# note: the image" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "data", "why"),
    [
        (
            config.Model(depth=3),
            config.Data(mels=16, frames=32, window_hop=8),
            r"data\.mels 16: the discriminator needs at least 24",
        ),
        (
            config.Model(depth=3),
            config.Data(mels=32, frames=16, window_hop=8),
            r"data\.frames 16: the discriminator needs at least 24",
        ),
        (
            config.Model(depth=5, max_channels=8),
            config.Data(mels=32, frames=32, window_hop=8),
            "leaves one bin of 8 channels .*group norm",
        ),
    ],
)
def test_pictures_that_the_networks_cannot_take_are_refused(model, data, why):
    with pytest.raises(ValueError, match=why):
        fits.check_pictures(config.Config(model=model, data=data))
    data = dataclasses.replace(data, mels=32, frames=64)
    fits.check_pictures(config.Config(model=dataclasses.replace(model, max_channels=16), data=data))

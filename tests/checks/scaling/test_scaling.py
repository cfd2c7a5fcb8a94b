"""The scaling check: its table, its model, and what it says of measurements that vary."""

import json

import pytest

from p2p_dist.checks.scaling import ranks, scaling
from p2p_dist.common import files
from p2p_dist.data.index import Index
from p2p_dist.run.rundir import RunDir
from p2p_dist.train import networks
from tests.train.on_ranks import CPU


def test_scaling_on_this_machine(stages_forked, typed, tmp_path):
    shown = typed("scaling", "--nodes", "2", "--cluster", "local", "--preset", "tiny", "--steps", "3")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines() if line.startswith("| ")][2:]
    assert [row[:4] for row in rows] == [["2", "2", "weak", "4"], ["2", "2", "strong", "4"]]
    assert all(float(row[4]) > 0 and row[10].endswith("GB/s") for row in rows) and rows[0][7] == "100%"
    assert float(rows[0][8]) == pytest.approx(float(rows[0][4]), rel=0.01), "the model begins at the smallest size"
    # Three parts of a step each. What a size was measured at is said at once.
    for row in rows:
        lowest, highest = (float(edge) for edge in row[6].split(" to "))
        assert row[5] == "3" and lowest <= float(row[4]) <= highest
    assert shown.index("nodes-2: weak ") < shown.index("| nodes")
    folder = tmp_path / "it's mine" / "runs" / "scaling"
    assert len(json.loads((folder / "scaling.json").read_text())) == 1 and "<svg" in (folder / "scaling.svg").read_text()


def test_a_model_with_a_sketch_is_measured_too(new_run):
    run, settings = new_run("a", model={"sketch": True, "beat_phase": True})
    training = ranks.Training(Index(run.shards, "train"), settings, networks.build(settings, CPU), CPU, 4)
    assert training.train(1) > 0 and training.guide.shape == (4, 3, settings.data.mels, settings.data.frames)


def measured(processes, images_per_second, bus):
    """A size as checks/scaling/ranks.py leaves it: 4 images a process, 100 MB of gradients."""
    reduced = None if bus is None else {"bus": bus}
    weak = {"batch": 4 * processes, "images_per_second": images_per_second, "measured": [images_per_second] * 3}
    return {"processes": processes, "all_reduce": reduced, "gradient_bytes": 100_000_000, "weak": weak}


def test_the_model_adds_what_does_not_hide():
    """One process: 4 images in 0.1 s. Gradients over 8 processes: 175 MB at 1 GB/s is 0.175 s, of which 0.016 hide."""
    one = measured(1, 40, None)
    assert scaling.predict(one, one, 4) == pytest.approx(40)
    eight = measured(8, 100, 1e9)
    assert scaling.predict(eight, one, 4) == pytest.approx(8 * 4 / (0.1 + 0.175 - 0.016))
    assert scaling.predict(measured(8, 100, 1e12), one, 4) == pytest.approx(8 * 40), "a fast network costs nothing"
    assert scaling.predict(eight, one, 1) == pytest.approx(8 / (0.025 + 0.175 - 0.004)), "a smaller share computes less"
    slow = scaling.predict(measured(16, 1, 1e9), measured(8, 8 * 4 / 0.259, 1e9), 4)
    assert slow == pytest.approx(16 * 4 / (0.1 + 0.1875 - 0.016)), "measured with eight, the computing is found again"


def test_a_table_whose_smallest_size_can_not_share_the_batch(tmp_path, capsys):
    """Efficiency is against the smallest size that was measured, each way for itself."""
    about = {"device": "d", "precision": "p", "flops_per_image": 1e9}
    runs = []
    for nodes, processes, strong in ((1, 3, None), (2, 6, 60), (4, 12, 90)):
        one = measured(processes, 10 * processes, 1e9) | about | {"nodes": nodes}
        one["weak"]["data_wait"] = 0.0
        one["strong"] = strong and {"batch": 12, "images_per_second": strong, "measured": [strong], "data_wait": 0.0}
        runs.append(RunDir(tmp_path / str(nodes)))
        files.write_json(runs[-1].path / "scaling.json", one)
    assert scaling.report(tmp_path, runs) == 0
    rows = json.loads((tmp_path / "scaling.json").read_text())
    assert [row["weak"]["efficiency"] for row in rows] == [1, 1, 1]
    assert [row["strong"] and row["strong"]["efficiency"] for row in rows] == [None, 1, 0.75]
    assert "too few pairs" in capsys.readouterr().out
    picture = (tmp_path / "scaling.svg").read_text()
    assert "weak, measured, processes 12: 120 (120 to 120)" in picture and "strong, measured, processes 12: 90" in picture
    assert "strong, measured, processes 3:" not in picture and picture.count("<polyline") == 2 * 5, "in the legend, too"


def sizes(tmp_path, **measured_at):
    """Runs of one and two nodes as the ranks leave them; weak_1=[...] and so on: images a second of each part."""
    about = {"device": "d", "precision": "p", "flops_per_image": 1e9, "all_reduce": None, "gradient_bytes": 1_000_000}
    runs = []
    for nodes in (1, 2):
        one = about | {"nodes": nodes, "processes": nodes}
        for way in scaling.WAYS:
            rates = measured_at.get(f"{way}_{nodes}", [10.0 * nodes] * 5)
            one[way] = {"batch": 4, "images_per_second": sorted(rates)[2], "measured": rates, "data_wait": 0.0}
        runs.append(RunDir(tmp_path / str(nodes)))
        files.write_json(runs[-1].path / "scaling.json", one)
    return runs


def test_scaling_says_nothing_of_measurements_that_agree(tmp_path, capsys):
    assert scaling.report(tmp_path, sizes(tmp_path, strong_2=[12, 12.5, 13, 13.5, 14])) == 0
    shown = capsys.readouterr().out
    assert "12 to 14" in shown and "65%" in shown
    assert "warning" not in shown and "note" not in shown


@pytest.mark.parametrize(
    ("measured_at", "said"),
    [
        (
            {"weak_1": [1, 1, 1, 1, 1]},
            "note: 2 nodes, weak: over 100 %: other work slowed the smallest size all the time, or it ran on slower nodes",
        ),
        (
            {"strong_2": [30.0] * 5},
            "note: 2 nodes, strong: over 100 %: the smaller batch of each process fits its caches better, "
            "or other work slowed the smallest size",
        ),
        (
            {"weak_1": [1, 1, 2, 10, 11]},
            "note: 2 nodes, weak: over 100 %: the measurements of this size and of the smallest size overlap",
        ),
        ({"weak_1": [1, 1, 2, 10, 11]}, "warning: 1 nodes, weak: the measurements vary (1 to 11 images/s)"),
    ],
)
def test_scaling_explains_scatter_and_more_than_100_percent(tmp_path, capsys, measured_at, said):
    assert scaling.report(tmp_path, sizes(tmp_path, **measured_at)) == 0
    assert said in capsys.readouterr().out
    assert said in (tmp_path / "scaling.md").read_text()


def test_scaling_measures_every_size_twice_and_says_when_the_machine_is_busy(tmp_path, capsys, monkeypatch):
    """Upwards, then downwards: a load that comes or goes meets the smallest size and the largest alike."""
    begun = []
    monkeypatch.setattr(scaling, "run_here", lambda stage, run, number: begun.append((stage, run.path.name)))
    monkeypatch.setattr(scaling.os, "getloadavg", lambda: (0.1, 0.1, 0.1))
    runs = sizes(tmp_path)
    scaling.measure_here(runs)
    assert "busy" not in capsys.readouterr().err
    monkeypatch.setattr(scaling.os, "getloadavg", lambda: (900.0, 0.1, 0.1))
    scaling.measure_here(runs)
    assert "warning: this machine is busy (load 900.0" in capsys.readouterr().err
    assert begun[:5] == [("preprocess", "1"), *(("scaling", name) for name in ("1", "2", "2", "1"))]

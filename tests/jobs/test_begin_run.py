"""What a launch writes into a run that exists: what the code that it continues with can read."""

import dataclasses

import pytest
import yaml

from p2p_dist.jobs import begin_run
from p2p_dist.run import rundir, snapshot
from p2p_dist.settings import presets

TINY = presets.preset("tiny")
LATER = {"resources": ["preprocess_array"], "data": ["split_by_title"], "evaluate": ["allow_overlap"]}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("P2P_RUNS", str(tmp_path / "runs"))
    run = rundir.find("old")
    begin_run.begin(run, TINY, "songs")
    return run


def names(run):
    saved = yaml.safe_load(run.config.read_text())
    return {f"{part}.{name}" for part, values in saved.items() if isinstance(values, dict) for name in values}


def test_a_run_of_an_earlier_version_keeps_the_names_that_its_code_knows(run, capsys):
    """That code refuses names that it does not know. If it failed: every preempted run is lost by an update."""
    saved = yaml.safe_load(run.config.read_text())
    for part, later in LATER.items():
        for name in later:
            del saved[part][name]
    run.config.write_text(yaml.safe_dump(saved))
    (run.code / "p2p_dist" / "__init__.py").write_text('__version__ = "0.1.0"\n')
    snapshot.record(run.code)
    before = names(run)
    begin_run.begin(run, dataclasses.replace(TINY, resources=dataclasses.replace(TINY.resources, nodes=2)), "songs")
    assert names(run) == before and "does not know" not in capsys.readouterr().out
    assert presets.from_saved(run.config).resources.nodes == 2
    more = dataclasses.replace(TINY.resources, nodes=3, preprocess_array=4)
    begin_run.begin(run, dataclasses.replace(TINY, resources=more), "songs")
    assert names(run) == before and presets.from_saved(run.config).resources.nodes == 3
    assert "does not know resources.preprocess_array: omitted from its settings" in capsys.readouterr().out


def test_a_run_that_takes_todays_code_has_todays_settings(run):
    saved = yaml.safe_load(run.config.read_text())
    del saved["resources"]["preprocess_array"]
    run.config.write_text(yaml.safe_dump(saved))
    begin_run.begin(run, TINY, "songs")
    assert "resources.preprocess_array" in names(run)


def test_a_run_goes_on_with_the_evaluation_that_it_began_with(tmp_path):
    """Not with 250 windows and one generation, which the preset has now."""
    run = rundir.RunDir(tmp_path / "runs" / "a")
    now = presets.PRESETS["small"]
    began = dataclasses.replace(now, evaluate=dataclasses.replace(now.evaluate, windows=0, seeds=2))
    saved = presets.to_yaml(began).splitlines()
    assert "  windows: 0" in saved
    run.path.mkdir(parents=True)
    run.config.write_text("\n".join(line for line in saved if line != "  windows: 0"))  # as version 0.1 wrote it
    evaluate = begin_run.check_begin(run, now, "songs").evaluate
    assert (evaluate.windows, evaluate.seeds, now.evaluate.windows, now.evaluate.seeds) == (0, 2, 250, 1)
    with pytest.raises(ValueError, match=r"evaluate\.windows: 0 -> 300"):
        begin_run.check_begin(run, dataclasses.replace(now, evaluate=dataclasses.replace(now.evaluate, windows=300)), "songs")


@pytest.mark.parametrize("name", ["on_steps", "even_classes", "repeat_pattern", "soft_hats"])
def test_a_run_with_a_sketch_of_an_earlier_version_goes_on_with_strokes_where_they_were(run, name):
    now = presets.PRESETS["sketch"]
    saved = presets.to_yaml(now).splitlines()
    assert f"  {name}: true" in saved
    run.path.mkdir(parents=True, exist_ok=True)
    run.config.write_text("\n".join(line for line in saved if line != f"  {name}: true"))
    assert not getattr(begin_run.check_begin(run, now, "songs").model, name) and getattr(now.model, name)


@pytest.mark.parametrize("residual", [True, False])
def test_a_run_with_a_sketch_of_an_earlier_version_goes_on_at_the_level_that_its_generator_finds(run, residual):
    """Without the residual the setting changes nothing, so the same command must not be refused either."""
    now = presets.with_values(presets.PRESETS["sketch"], {"model.residual": residual})
    saved = presets.to_yaml(now).splitlines()
    assert "  keep_level: true" in saved
    run.config.write_text("\n".join(line for line in saved if line != "  keep_level: true"))
    assert not begin_run.check_begin(run, now, "songs").model.keep_level and now.model.keep_level


def test_a_run_with_a_sketch_of_an_earlier_version_goes_on_with_its_losses(run):
    now = presets.PRESETS["sketch"]
    began = presets.with_values(now, {"train.compressed_weight": 100.0})
    run.config.write_text(presets.to_yaml(began))
    assert now.train.compressed_weight == 0
    assert begin_run.check_begin(run, now, "songs") == began
    with pytest.raises(ValueError, match=r"train\.compressed-weight: 100\.0 -> 5\.0"):
        begin_run.check_begin(run, presets.with_values(now, {"train.compressed_weight": 5.0}), "songs")


@pytest.mark.parametrize("changed", [{}, {"train.seed": 1}])
def test_a_run_of_the_default_preset_of_an_earlier_version_goes_on_without_a_sketch(run, changed):
    now, began = presets.preset("default"), dataclasses.replace(presets.preset("plain"), preset="default")
    run.config.write_text(presets.to_yaml(presets.with_values(began, changed)))
    if changed:
        with pytest.raises(ValueError, match=r"settings(.|\n)*train\.seed: 1 -> 0") as said:
            begin_run.check_begin(run, now, "songs")
        assert "sketch" not in str(said.value)
    else:
        assert begin_run.check_begin(run, now, "songs") == began
    small = dataclasses.replace(presets.preset("small"), preset="sketch")
    run.config.write_text(presets.to_yaml(small))
    with pytest.raises(ValueError, match=r"model\.sketch: False -> True"):
        begin_run.check_begin(run, presets.preset("sketch"), "songs")


def with_upsample(kind):
    return dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, upsample=kind))


def test_a_setting_that_only_the_preset_changed_stays_as_the_run_began(run):
    """The same command continues a run of an earlier version, whose preset named another value."""
    run.config.write_text(presets.to_yaml(with_upsample("nearest")))
    assert TINY.model.upsample == "folded"
    assert begin_run.check_begin(run, TINY, "songs").model.upsample == "nearest"
    assert begin_run.begin(run, TINY, "songs").model.upsample == "nearest"
    assert presets.from_saved(run.config).model.upsample == "nearest"
    with pytest.raises(ValueError, match=r"model\.upsample: nearest -> transposed"):
        begin_run.check_begin(run, with_upsample("transposed"), "songs")
    run.config.write_text(presets.to_yaml(with_upsample("transposed")))
    with pytest.raises(ValueError, match=r"model\.upsample: transposed -> folded"):
        begin_run.check_begin(run, TINY, "songs")

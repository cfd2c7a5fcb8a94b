"""Presets, and settings to and from YAML."""

import dataclasses

import pytest
import yaml

from p2p_dist.settings import presets, science


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_preset_survives_its_yaml(name, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(presets.to_yaml(presets.preset(name)))
    assert presets.from_yaml(path) == presets.preset(name)
    assert presets.preset(name).preset == name


def test_an_unknown_preset_lists_those_there_are():
    with pytest.raises(ValueError, match=r"default, plain, small, sketch, demo, tiny, thesis.*did you mean demo"):
        presets.preset("demoo")


@pytest.mark.parametrize(
    ("data", "sketch"),
    [
        ({}, True),
        ({"task": "drums", "copies": 0, "shards": None}, True),
        ({"task": "bass+other->drums", "copies": "0", "shards": "None"}, True),
        ({"task": "bass"}, False),
        ({"task": "vocals->drums+bass"}, False),
        ({"copies": "2"}, False),
        ({"representation": "thesis"}, False),
        ({"shards": "https://example.org/songs"}, False),
        ({"task": "no such"}, True),
    ],
)
def test_the_default_preset_has_a_sketch_where_there_can_be_one(data, sketch):
    found = presets.for_data("default", data)
    wanted = presets.preset("default") if sketch else dataclasses.replace(presets.preset("plain"), preset="default")
    assert found == wanted and found.model.sketch == sketch
    assert presets.for_data("sketch", data) == presets.preset("sketch"), "who names it hears why it can't be"


def test_a_file_of_another_task_has_no_sketch_by_default(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("data: {task: bass}\n")
    assert not presets.from_yaml(path).model.sketch
    assert not presets.from_yaml(path, typed={"task": "drums"}).model.sketch, "what is typed is read later"
    path.write_text("preset: default\n")
    assert presets.from_yaml(path, "tiny").model.sketch
    assert not presets.from_yaml(path, "tiny", {"task": "bass"}).model.sketch


def test_part_of_a_file_leaves_the_rest(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train:\n  learning_rate: 1e-4\n  l1_weight: 5\n")
    read = presets.from_yaml(path, "small")
    assert read.train.learning_rate == 1e-4  # YAML itself reads 1e-4 as text
    assert read.train.l1_weight == 5.0 and isinstance(read.train.l1_weight, float)
    assert read.model == presets.preset("small").model


def test_a_file_that_names_steps_unsets_the_epochs_of_its_preset(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train: {steps: 3}")
    assert (presets.from_yaml(path).train.epochs, presets.from_yaml(path).train.steps) == (None, 3)
    path.write_text("preset: tiny\ntrain: {epochs: 3}")
    assert (presets.from_yaml(path).train.epochs, presets.from_yaml(path).train.steps) == (3, None)


def test_settings_like_those_of_an_earlier_version_have_none_that_it_refuses(tmp_path):
    """Neither a name nor a group that it does not know, even an empty one."""
    like = tmp_path / "old.yaml"
    like.write_text("preset: tiny\ntrain: {seed: 1}\nresources: {nodes: 1}\n")
    tiny = presets.preset("tiny")
    assert presets.to_yaml(tiny, like) == "preset: tiny\nresources:\n  nodes: 1\ntrain:\n  seed: 0\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train:\n  learning_rat: 1", r"mine\.yaml: unknown setting train\.learning_rat; did you mean learning_rate"),
        ("tran: {}", r"unknown setting tran; did you mean train"),
        ("train: 3", r"train must be a list of names and values"),
        ("train:\n  keep_last: two", r"train\.keep_last must be a whole number"),
        ("train:\n  keep_last: true", r"train\.keep_last must be a whole number"),
        ("model:\n  norm: layer", r"model\.norm must be one of group, batch"),
        ("train:\n  keep_last: 1", r"mine\.yaml: train\.keep_last must be at least 2"),
        ("a: [", r"mine\.yaml is not readable as YAML"),
        ("\x00", r"mine\.yaml"),
        ("", r"mine\.yaml: it must be a list"),
        ("train:\n  seed: 1\n  seed: 2", r"mine\.yaml is not readable as YAML: line 3: seed is set more than once"),
        ("train: {seed: 1}\ntrain: {seed: 1}", r"line 2: train is set more than once"),
        ("train:\n  keep_last: 010", r"train\.keep_last must be a whole number, not 010"),
        ("train:\n  keep_last: 1_0", r"train\.keep_last must be a whole number, not 1_0"),
        ("train:\n  tensorboard: maybe", r"train\.tensorboard must be true or false, not maybe"),
        ("train: !!python/object/apply:os.system [ls]", r"mine\.yaml is not readable as YAML: line 1: "),
        ("train: !!int ten", r"mine\.yaml is not readable as YAML"),
        ("[" * 3000, r"mine\.yaml is not readable as YAML"),
        ("preset: smaller", r"mine\.yaml: unknown preset 'smaller'"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(text, said, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        presets.from_yaml(path)


OF_THE_FIRST_SKETCH = {"model.sketch", "model.beat_phase", "model.residual", "train.flux_weight"}


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_run_of_an_earlier_version_goes_on_by_the_same_command(name, tmp_path):
    """Its file lacks what was added since. If it failed: a setting whose default is new is missing in `presets.EARLIER`."""
    now, path = presets.preset(name), tmp_path / "config.yaml"
    tree = yaml.safe_load(presets.to_yaml(now))
    known = {*science.FROZEN, *(OF_THE_FIRST_SKETCH if name == "sketch" else ())}
    for entry, _, _ in science.rows(now):
        group, _, short = entry.partition(".")
        if entry not in known:
            del tree[group][short]
    path.write_text(yaml.safe_dump(tree))
    began = presets.from_saved(path)
    assert began != now and began.train.predicted_strokes and not began.train.ema_warmup and not began.train.loud_strokes
    assert presets.with_earlier(began, now) == began
    assert presets.with_earlier(now, now) == now, "one of today keeps what it began with"

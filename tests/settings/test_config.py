"""Settings: presets, YAML, precedence, what is science."""

import dataclasses

import pytest

from p2p_dist.settings import config, presets, science
from p2p_dist.settings.config import Config, Data, Evaluate, Model, Resources, Train


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_preset_survives_its_yaml(name, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(presets.to_yaml(presets.preset(name)))
    assert presets.from_yaml(path) == presets.preset(name)
    assert presets.preset(name).preset == name


def test_every_field_has_a_help_text():
    import tyro

    for part in (Data, Model, Train, Evaluate, Resources):
        for field in dataclasses.fields(part):
            assert tyro._docstrings.get_field_docstring(part, field.name, ()), f"{part.__name__}.{field.name}"


def test_an_unknown_preset_lists_those_there_are():
    with pytest.raises(ValueError, match=r"default, small, demo, tiny, thesis.*did you mean demo"):
        presets.preset("demoo")


def test_part_of_a_file_leaves_the_rest(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train:\n  learning_rate: 1e-4\n  l1_weight: 5\n")
    read = presets.from_yaml(path, "small")
    assert read.train.learning_rate == 1e-4  # YAML itself reads 1e-4 as text
    assert read.train.l1_weight == 5.0 and isinstance(read.train.l1_weight, float)
    assert read.model == presets.preset("small").model


def test_what_is_written_without_quotes_is_what_the_setting_takes(tmp_path):
    """YAML 1.1 reads 12:30:00 as the number 45000, `no` as false, 2026-11-26 as a day, 0123 as 83."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "resources: {time: 12:30:00, account: 0123, partition: no, site: 2026-11-26, nodes: +3, container: ~}\n"
        "train: {tensorboard: on, compile: No, learning_rate: .5, ema: 0, log_every: 7}\ndata: {root: '12:30'}\n"
    )
    read = presets.from_yaml(path)
    where = read.resources
    assert (where.time, where.account, where.partition, where.site) == ("12:30:00", "0123", "no", "2026-11-26")
    assert (where.nodes, where.container, read.data.root) == (3, None, "12:30")
    assert (read.train.tensorboard, read.train.compile) == (True, False)
    assert (read.train.learning_rate, read.train.ema, read.train.log_every) == (0.5, 0.0, 7)
    path.write_text(presets.to_yaml(read))
    assert presets.from_yaml(path) == read
    assert all(type(value) is str for value in (where.time, read.data.root, read.model.norm))
    path.write_text("resources: {time: 90}")
    assert config.seconds_of(presets.from_yaml(path).resources.time) == 5400


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train:\n  learning_rat: 1", r"mine\.yaml: unknown setting train\.learning_rat; did you mean learning_rate"),
        ("tran: {}", r"unknown setting tran; did you mean train"),
        ("train: 3", r"train must be a list of names and values"),
        ("train:\n  keep_last: two", r"train\.keep_last must be a whole number"),
        ("train:\n  keep_last: true", r"train\.keep_last must be a whole number"),
        ("model:\n  norm: layer", r"model\.norm must be one of group, batch"),
        ("train:\n  keep_last: 1", r"keep-last must be at least 2"),
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


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Resources(nodes=0), "nodes must be greater than 0"),
        (lambda: Resources(time="soon"), "time must be greater than zero, and written as 90 .* not .soon."),
        (lambda: Data(task="drums+->bass"), "unknown stem ''"),
        (lambda: Data(task="->drums"), "no stem heard before '->'"),
        (lambda: Data(task="drums-> "), "no stem to be made after '->'"),
        (lambda: Data(sample_rate=6000, copies=1), "data.copies change frequencies over 4 kHz"),
        (lambda: Data(sample_rate=22050, n_fft=1024, mels=512), "data.mels 512 is too many for data.n-fft 1024.*at most 308"),
        (lambda: Data(task="drums->drums"), "both input and target"),
        (lambda: Data(task="guitar->drums"), "unknown stem 'guitar'"),
        (lambda: Data(window_hop=257), "some audio would be skipped"),
        (lambda: Data(hop_length=300), "must divide"),
        (lambda: Train(epochs=3, steps=4), "either"),
        (lambda: Train(seed=-1), "train.seed"),
        (lambda: Config(data=Data(mels=100)), "multiple of 32"),
    ],
)
def test_a_bad_value_says_what_and_how(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_tasks():
    assert config.parse_task("drums") == (("bass", "other", "vocals"), ("drums",))
    assert config.parse_task("accompaniment") == (("vocals",), ("drums", "bass", "other"))
    assert config.parse_task(" drums ") == config.parse_task("drums")
    assert config.parse_task("vocals + other->bass+drums") == (("other", "vocals"), ("drums", "bass"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("1:30", 90), ("1:30:00", 5400), ("2-0", 172800), ("2-00:30", 174600), ("2-00:00:01", 172801)],
)
def test_times_as_slurm_writes_them(text, seconds):
    assert config.seconds_of(text) == seconds


def test_resources_may_change_and_science_is_named():
    saved = presets.preset("small")
    moved = dataclasses.replace(saved, resources=Resources(nodes=8), data=dataclasses.replace(saved.data, root="/elsewhere"))
    assert presets.differences(saved, moved) == []
    assert presets.with_resources(saved, moved) == moved
    other = dataclasses.replace(moved, train=dataclasses.replace(saved.train, seed=3, log_every=1))
    assert presets.differences(saved, other) == ["train.seed: 0 -> 3"]
    assert presets.with_resources(saved, other).train.seed == 0
    assert presets.with_resources(saved, other).train.log_every == 1


def test_an_epoch_is_one_pass_over_the_windows():
    train = Train(epochs=3, global_batch_size=4, keep_every=1)
    assert train.total_steps(10) == 8  # 30 windows in fours
    assert [step for step in range(1, 9) if train.is_kept(step, 10)] == [3, 5, 8]
    assert Train(epochs=None, steps=7).total_steps(10) == 7


def test_a_setting_that_came_later_leaves_what_was_made_before_as_it_is(tmp_path, monkeypatch):
    """It changes no name at the value that old records imply, and a run saved without it has that value, not the default."""
    later = dataclasses.make_dataclass("Later", [("pitch", int, config.added(5, implied=0))], bases=(Data,), frozen=True)
    old = Config(preset="small")
    assert science.recorded(later(pitch=0)) == science.recorded(Data()) != science.recorded(later())
    assert science.changed(later(pitch=0)) == science.changed(Data()) == {} != science.changed(later())
    assert science.recorded(dataclasses.replace(old, data=later(pitch=0))) == science.recorded(old)
    path = tmp_path / "config.yaml"
    path.write_text(presets.to_yaml(old))
    monkeypatch.setitem(presets.PRESETS, "small", dataclasses.replace(old, data=later()))
    assert presets.from_saved(path).data.pitch == 0
    assert presets.from_yaml(path).data.pitch == 5
    assert presets.differences(presets.from_saved(path), presets.PRESETS["small"]) == ["data.pitch: 0 -> 5"]

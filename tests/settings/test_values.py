"""Which values a setting takes."""

import dataclasses
import typing

import hypothesis
import pytest
import yaml
from hypothesis import strategies

from p2p_dist.jobs.site import Site
from p2p_dist.settings import config, presets, values
from p2p_dist.settings.config import Config, Data, Evaluate, Model, Resources, Train


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
        ("train: {seed: 2.5}", "train.seed must be a whole number, not 2.5"),
        ("train: {seed: 1.0}", "train.seed must be a whole number, not 1.0"),
        ("train: {seed: '1'}", "train.seed must be a whole number without quotes, not '1'"),
        ("train: {seed: null}", "train.seed must be a whole number, not null"),
        ("train: {seed: [1, 2]}", "train.seed must be a whole number, not [1, 2]"),
        ("train: {epochs: true}", "train.epochs must be a number, not true"),
        ("train: {epochs: '3'}", "train.epochs must be a number without quotes, not '3'"),
        ("train: {epochs: 1_000}", "train.epochs must be a number, not 1_000"),
        ("train: {epochs: .NaN}", "train.epochs must be greater than 0 and at most 1e9, not nan"),
        ("train: {epochs: 1e308}", "train.epochs must be greater than 0 and at most 1e9, not 1e+308"),
        ("train: {keep_every: 1e-308}", "train.keep_every must be greater than 0 and at most 1e9, not 1e-308"),
        ("train: {hang_after: 1e10}", "train.hang_after must be greater than 0 and at most 1e9, not 10000000000.0"),
        ("evaluate: {seconds: 1e308}", "evaluate.seconds must be from 0 to 1e9, not 1e+308"),
        ("train: {global_batch_size: 99999999999}", "train.global_batch_size must be from 1 to 1000000, not 99999999999"),
        ("model: {leaky_slope: -.inf}", "model.leaky_slope must be from -10 to 10, not -inf"),
        ("model: {depth: 999999999999999999}", "model.depth must be from 1 to 16, not 999999999999999999"),
        ("train: {precision: fp16}", "train.precision must be one of auto, fp32, bf16, not 'fp16'"),
        ("data: {silent_share: 1.1}", "data.silent_share must be from 0 to 1, not 1.1"),
        ("resources: {nodes: 0}", "resources.nodes must be greater than 0, not 0"),
        ("resources: {nodes: true}", "resources.nodes must be a whole number, not true"),
        ("resources: {nodes: 4-1}", "nodes must be a number, or the fewest and the most, as 1-4, not '4-1'"),
        ("resources: {nodes: 2, least_nodes: 3}", "least-nodes 3 is more than nodes 2: give both ends as nodes, such as 1-4"),
        ("resources: {partition: [a]}", "resources.partition must be text, not [a]"),
        ("preset: null", "preset must be text, not null"),
        ("preset: [tiny]", "preset must be text, not [tiny]"),
        ('"": 3', "unknown setting ''; there are preset, resources, data, model, train, evaluate"),
        ('"a\\nb": 3', "unknown setting 'a\\nb'; there are preset, resources, data, model, train, evaluate"),
        ("train: {seed: " + "x" * 500 + "}", "train.seed must be a whole number, not " + "x" * 77 + "..."),
        (
            "null",
            "it must be a list of names and values, or {} for none, not null; "
            "the names are preset, resources, data, model, train, evaluate",
        ),
    ],
)
def test_a_bad_value_in_a_file_is_named_with_what_is_right(tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as refused:
        presets.from_yaml(path)
    assert str(refused.value) == f"{path}: {said}"


PARTS = (Data, Model, Train, Evaluate, Resources)
SETTINGS = [(part.__name__.lower(), field.name) for part in PARTS for field in dataclasses.fields(part)]


@hypothesis.given(
    setting=strategies.sampled_from(SETTINGS),
    value=strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.floats()
    | strategies.text("0123456789.-:eE_ aé\n\0", max_size=9)
    | strategies.lists(strategies.integers(), max_size=2),
)
@hypothesis.settings(max_examples=60, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_any_value_in_a_file_is_refused_in_one_line_or_saved_as_it_was(tmp_path, setting, value):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({setting[0]: {setting[1]: value}}), encoding="utf-8")
    try:
        read = presets.from_yaml(path)
    except ValueError as refused:
        assert str(refused).startswith(f"{path}: ") and "\n" not in str(refused)
        return
    path.write_text(presets.to_yaml(read), encoding="utf-8")
    assert presets.from_yaml(path) == read


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Resources(nodes=0), "nodes must be greater than 0"),
        (lambda: Resources(time="soon"), "time must be greater than zero, and written as 90 .* not .soon."),
        (lambda: Data(task="drums+->bass"), "unknown stem ''"),
        (lambda: Data(task="->drums"), "no stem before '->'"),
        (lambda: Data(task="drums-> "), "no stem after '->'"),
        (lambda: Data(sample_rate=6000, copies=1), "data.copies change frequencies over 4 kHz"),
        (lambda: Data(sample_rate=22050, n_fft=1024, mels=512), "data.mels 512 is too many for data.n-fft 1024.*at most 308"),
        (lambda: Data(task="drums->drums"), "both input and target"),
        (lambda: Data(task="guitar->drums"), "unknown stem 'guitar'"),
        (lambda: Data(window_hop=257), "some audio would be skipped"),
        (lambda: Data(hop_length=300), "must divide"),
        (lambda: Resources(nodes="2"), "^nodes must be a whole number, not '2'$"),
        (lambda: Resources(nodes=10**18), "^nodes must be a whole number of at most 18 digits, not 1000000000000000000$"),
        (lambda: Resources(time="٣"), "^time must be greater than zero"),
        (lambda: Resources(time="9999999-0"), "^time must be greater than zero"),
        (lambda: Resources(evaluate=[1]), r"^evaluate must be one of after, during, never, not \[1\]$"),
        (lambda: Model(leaky_slope=float("nan")), "^model.leaky-slope must be from -10 to 10, not nan$"),
        (lambda: Config(data=3), "^data must be a list of names and values"),
        (lambda: Site(whole_nodes="small-g"), r"^whole_nodes must be a list, as \[one, two\]"),
        (lambda: Site(whole_nodes=["small-g", 1]), "^whole_nodes must be text, not 1$"),
        (lambda: Site(limits={"small-g": 3}), "^limits must be a list of names and values, or {} for none, not 3$"),
        (lambda: Train(epochs=3, steps=4), "either"),
        (lambda: Train(seed=-1), "train.seed"),
        (lambda: Config(data=Data(mels=100)), "multiple of 32"),
    ],
)
def test_a_bad_value_says_what_and_how(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize("section", [Data, Model, Train, Evaluate, Resources, Site], ids=lambda section: section.__name__)
def test_a_value_of_another_type_is_refused_whatever_the_setting(section):
    """True is no number, 2.5 no whole number, and a number is no text."""
    numbers = 0
    for name, kind in typing.get_type_hints(section).items():
        wrong = {int: (True, 2.5, "2"), float: (True, "2"), bool: (1, "yes"), str: (3, True)}.get(values.bare(kind), ())
        for value in (*wrong, [None], object()):
            numbers += 1
            with pytest.raises(ValueError, match=f"{name.replace('_', '.')} must be .*, not "):
                section(**{name: value})
    assert numbers > 10
    if section is Train:
        assert Train(epochs=3) == Train(epochs=3.0)

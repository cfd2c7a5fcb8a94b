"""Small files that others may have written or damaged: one reader, one error that names the file, never a traceback."""

from __future__ import annotations

import json
import os
import re
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2p_dist.common import files, records, schemas
from p2p_dist.common.files import DamagedError
from p2p_dist.common.records import COUNT, KEY, Maybe
from p2p_dist.data import manifest, song_record
from p2p_dist.evaluate.baselines import results
from p2p_dist.jobs import site, status, status_tables
from p2p_dist.run import lock, rundir, starts
from p2p_dist.settings import config, presets

ROW = {"lock8": 0.5, "mmd": None}
AVERAGE = {"mean": ROW, "interval": {"lock8": [0.1, 0.9]}, "absent": {"mmd": "too short"}}
SONG = {"name": "A", "key": "a", "output": ROW, "absent": {}}
SHARD = {"name": "train-00000-a.tar", "bytes": 4, "sha256": "0" * 64, "samples": 1}
SAMPLE = ["00000-a-00000", "train-00000-a.tar", 5, 6, 7]
PART = {"songs": [{"name": "A", "key": "00000-a", "seconds": 6.5}], "shards": [SHARD], "audio": [], "samples": [SAMPLE]}
COUNTS = dict.fromkeys(("clipped", "silent_windows", "silent_dropped", "padded_windows", "copies"), 0)
FILE = {"bytes": 3, "sha256": "0" * 64}
RUN = {
    "config.yaml": presets.to_yaml(config.Config(train=config.Train(epochs=None, steps=9))),
    "dataset.json": {"name": "shards"},
    "outcome.json": {"attempt": "a.1", "stage": "train", "outcome": "failed", "step": 5, "message": "bad \x1b[2J [/x]"},
    "status.json": {"what": "train", "done": 5, "total": 9, "rate": 0.5, "seconds_left": None, "note": "l1 0.5"},
    "metrics.jsonl": {"step": 5, "l1": 0.5, "images_per_second": 8.0, "digests": "abc"},
    "checkpoints/best.json": {"step": 5, "score": 0.5, "chosen_on": "test", "note": ""},
    "checkpoints/step-00000005/meta.json": {"step": 5, "settings": "abc", "files": {"state.pt": FILE}},
    "evaluations/step-00000005/metrics.json": {"step": 5, "songs": [SONG], "splits": {"test": AVERAGE}},
    "logs/train.attempts": "launch a.1\nstart a.1 0 10 1\nend a.1 5 20 1 failed 15\n",
    ".owner": {"process": 5, "host": "here", "since": "now"},
    "../../shards/shards/manifest.json": {
        "schema": manifest.SCHEMA,
        "settings": {},
        "settings_digest": "a",
        "dtype": "<f2",
        "shape": [1, 8, 8],
        "left_out": [],
        "splits": {"train": PART},
    },
}
OTHERS = {
    "baselines.json": {
        "songs": {"a": {"name": "A", "split": "test", "begins": 0.0, "seconds": 6.5, "rows": {"silence": ROW}}},
        "splits": {"test": {"songs": 1, "rows": {"silence": AVERAGE}, "missing": {"loop": "none"}}},
    },
    "reference.json": {  # with its gain: else the sound is asked for it
        "name": "A",
        "measured": {"silence": {"row": ROW, "absent": {}, "parts": [ROW], "described": [None, [0.5] * 41]}},
        "missing": {},
        "real": [[0.5] * 41],
        "gain_db": 0.0,
    },
    "record.json": {
        "song": "A",
        "split": "train",
        "key": "00000-a",
        "source": "b",
        "settings": "c",
        "seconds": 6.5,
        **COUNTS,
        "levels": {"input": -9.0, "target": None},
        "dtype": "<f2",
        "shape": [1, 8, 8],
        "shard": SHARD,
        "audio": None,
        "samples": [SAMPLE],
    },
    "site.yaml": {
        "tiers": [{"partition": "small", "time": "1:00:00", "nodes": 4}, {"kind": "cpu", "qos": "thin"}],
        "sbatch": {"gpu": {"gres": "gpu:{gpus}", "mem": None}},
        "accounts": {"cpu": "{account}@cpu"},
        "variables": {"NCCL_SOCKET_IFNAME": "ib0"},
        "srun": ["--gpu-bind=none"],
        "limits": {},
        "gpus_per_node": 8,
    },
}
for name in OTHERS["baselines.json"]["songs"].values():
    name |= {"absent": {"silence": {}}, "missing": {}}
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, "../../x", "\x1b]0;", -1]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


def text_of(name, content):
    if isinstance(content, str):
        return content
    sealed = name.endswith(("manifest.json", "record.json"))
    return json.dumps(files.sealed(content) if sealed else content) + "\n"


def harmed(draw, name, content):
    """The bytes of a record after one harm: to a value, or to the text."""
    if not isinstance(content, str) and draw(st.booleans()):
        content = json.loads(json.dumps(content))
        place = content
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and draw(st.integers(0, 3)):
                place = place[key]
            elif draw(st.booleans()):
                del place[key]
                break
            else:
                place[key] = draw(values)
                break
        return text_of(name, content).encode(errors="surrogatepass")
    data = text_of(name, content).encode()
    at = draw(st.integers(0, len(data)))
    put = st.sampled_from(
        [b"", b"\x00", b"\xff", b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"NaN", b"-", b"1e999", b"null", b"\n"]
    )
    return data[:at] + draw(put) + draw(st.sampled_from([b"", data[at:], data[at + 1 :]]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run as the program writes it, with its shards."""
    folder = tmp_path_factory.mktemp("records")
    run = rundir.RunDir(folder / "runs" / "mine")
    for name, content in RUN.items():
        files.write_text((run.path / name).resolve(), text_of(name, content))
    for name, content in OTHERS.items():
        files.write_text(folder / name, text_of(name, content))
    return run


def readers(run):
    """Of each file outside a run's status, who reads it."""
    folder = run.path.parents[1]
    return {
        "baselines.json": lambda: records.read(folder / "baselines.json", schemas.BASELINES),
        "reference.json": lambda: results.read_reference(folder / "reference.json", SimpleNamespace(peak=1.0)),
        "record.json": lambda: song_record.read_record(folder / "record.json"),
        "site.yaml": lambda: site.load_site("mine", str(folder / "site.yaml")),
    }


def test_whole_records_are_read(whole):
    found = status.gather_each([whole])[0]
    assert re.fullmatch(r"failed .* at step 5: bad .*", found["stages"]["train"]) and found["total"] is not None
    assert found["step"] == 5
    assert found["best"] == {**RUN["checkpoints/best.json"], "schema": 0} and found["wrong"] is None
    for reader in readers(whole).values():
        assert reader() is not None


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_is_damaged_status_goes_on(whole, data, capsys):
    """And shows what is wrong, without a control character or markup of what was read."""
    name = data.draw(st.sampled_from(sorted(RUN)))
    path = (whole.path / name).resolve()
    path.write_bytes(harmed(data.draw, name, RUN[name]))
    try:
        found = status.gather_each([whole, whole])
        assert len(found) == 2 and all(one["run"] == "mine" for one in found)
        status_tables.show_all(found)
        if "stages" in found[0]:
            status_tables.show(found[0])
        elif name != "../../shards/shards/manifest.json":
            assert path.name in found[0]["wrong"], found[0]["wrong"]
        rundir.is_evaluation(whole.evaluations / "step-00000005")
        starts.count(whole.attempts("train"))
        lock.parse_owner((whole.path / ".owner").read_bytes())
        shown = capsys.readouterr().out
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown), shown
    finally:
        path.write_text(text_of(name, RUN[name]))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_every_reader_has_one_error(whole, data):
    """It names the file."""
    name = data.draw(st.sampled_from(sorted(OTHERS)))
    path = whole.path.parents[1] / name
    path.write_bytes(harmed(data.draw, name, OTHERS[name]))
    try:
        readers(whole)[name]()
    except ValueError as error:
        assert name in str(error)
    finally:
        path.write_text(text_of(name, OTHERS[name]))


@pytest.mark.parametrize(
    ("text", "shape", "said"),
    [
        ("[]", {"a": str}, "it is a list, not names and values"),
        ('{"b": 1}', {"a": str}, "it has no 'a'"),
        ('{"a": {"b": [1, true]}}', {"a": {"b": [COUNT]}}, "a.b.1 is true, not a whole number of 0 or more"),
        ('{"a": -1}', {"a": COUNT}, "a is -1"),
        ('{"a": 1.5}', {"a": int}, "a is 1.5, not a whole number"),
        ('{"a": null}', {"a": float}, "a is null, not a number"),
        ('{"a": "../x"}', {"a": KEY}, 'a is "../x", not text like'),
        ('{"../x": 1}', {KEY: COUNT}, 'has the name "../x"'),
        ('{"a": [1]}', {"a": (int, int)}, "a has 1 values, not 2"),
        ("[1, 2", None, "not readable as JSON"),
        ("[NaN]", None, "NaN is not a number"),
        ("[1e999]", None, "a number that is too large"),
        ("9" * 5000, None, "not readable as JSON"),
        ('{"a": ' + "9" * 4000 + "}", {"a": COUNT}, "a is a number with too many digits"),
        ("[" * 40 + "]" * 40, None, "nested more than 32 deep"),
        ("[" * 100_000, None, "nested too deep"),
        ('["\\ud800"]', None, "unpaired surrogate"),
        ('["\\uD800"]', None, "unpaired surrogate"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, shape, said):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DamagedError, match=re.escape(said)) as caught:
        records.read(tmp_path / "a.json", shape, "do this")
    assert str(caught.value).startswith(str(tmp_path / "a.json")) and str(caught.value).endswith("; do this")


def test_what_may_be_there_may_be_missing_or_null_and_more_is_left_alone(tmp_path):
    shape = {"a?": str, "b": Maybe([float]), str: None}
    for text in ('{"b": null}', '{"a": "x", "b": [1, 2.5], "c": {}}'):
        assert records.parse(text, shape, where="here") == json.loads(text)


def test_neither_a_pipe_nor_a_folder_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "b.json").mkdir()
    for name in ("a.json", "b.json"):
        with pytest.raises(DamagedError, match="is not a regular file"):
            records.read(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        records.read(tmp_path / "c.json")


def test_bytes_that_are_not_utf_8_are_damaged():
    with pytest.raises(DamagedError, match="x is damaged: it is not UTF-8 text"):
        records.parse('{"a": 1}'.encode("utf-16"), where="x")

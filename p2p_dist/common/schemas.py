"""The table of all records that other versions of this program read: schema, shape, and implied values of old records.

A field that is new gets its place in `shape` and, in `implied`, the value that the code before it implied; the schema goes up
where older code must not read the record any more, or where a field means something else.

Beside these, read elsewhere: config.yaml (settings/presets.py; a setting that it lacks has the value of `science.implied`), the
record of starts (run/starts.py; words at the end of a line and lines of unknown kinds are skipped), metrics.jsonl
(run/metrics_file.py; a line is numbers by name).
"""

from __future__ import annotations

import re
from typing import Any

from p2p_dist.common.records import COUNT, FILE, KEY, Either, Kind, Maybe

_SPLITS = ("train", "valid", "test")
_SHA256 = re.compile("[0-9a-f]{64}")
_SETTINGS = Either({str: None}, str)
"""By value; records of version 0.1 hold a digest of them, see settings/science.py."""

# A run.

OUTCOME = Kind(
    1,
    {
        "attempt": str,
        "stage": str,
        "outcome": re.compile("done|stopped|failed"),
        "step": Maybe(COUNT),
        "message": str,
    },
)
"""outcome*.json: how a stage's last attempt ended."""

DATASET = Kind(
    1,
    {"name": FILE, "training": Maybe(str), "trained_on": Maybe(FILE), "manifest": Maybe(_SHA256)},
    {"training": None, "trained_on": None, "manifest": None},
)
"""dataset.json: the shards of a run. Of schema 0 the names and digests tell songs apart by path and size alone.

manifest: which dataset of its address the run uses, see `manifest.identity`; None: made here, or not fetched yet.
"""

NEWEST = Kind(1, {"name": re.compile("from-[0-9a-f]{12}(-[0-9a-f]{12})?")})
"""from-*.json among the folders of shards: which of them has what was fetched last from an address."""

STATUS = Kind(
    1,
    {"what": str, "done": COUNT, "total": COUNT, "rate": float, "seconds_left": Maybe(float), "note": str},
    {"done": 0, "total": 0, "rate": 0.0, "seconds_left": None, "note": ""},
)
"""status.json: the progress of a stage."""

ENERGY = Kind(1, {"attempt": str, "step": COUNT, "joules": float})
"""A line of energy.jsonl: what the GPUs of a start had used up to a step."""

CHECKPOINT = Kind(
    1,
    {"step": COUNT, "settings": Maybe(_SETTINGS), "files": {str: {"bytes": COUNT, "sha256": str}}},
    {"settings": None},
)
"""meta.json of a checkpoint."""

BEST = Kind(1, {"step": COUNT, "score": float, "chosen_on": str, "note": str})
"""checkpoints/best.json: the checkpoint that the evaluations chose."""

PROVENANCE = Kind(
    1,
    {
        "command": [str],
        "begun": str,
        "version": str,
        "commit": Maybe(str),
        "changes": Maybe(str),
        "packages": {str: Maybe(str)},
    },
    {"command": [], "begun": "", "version": "0.1.0", "commit": None, "changes": None, "packages": {}},
)
"""provenance.json: how a run was created."""

OWNER = Kind(
    1,
    {"process": COUNT, "host": str, "since": str, "start": Maybe(COUNT), "job": Maybe(str), "attempt": Maybe(str)},
    {"start": None, "job": None, "attempt": None},
)
""".owner: the process that has locked a folder."""

# A dataset.

_SOUND = {"name": FILE, "bytes": COUNT, "sha256": _SHA256}
_SHARD = {**_SOUND, "samples": COUNT}
_DTYPE = re.compile("[<>=|]f[0-9]{1,2}")
_INDEX = {"name": FILE, "bytes": COUNT, "sha256": _SHA256, "samples": COUNT}
_PACKED = [(KEY, COUNT, COUNT, _SHA256)]
"""Of each song in a shard: its key, the byte at which it begins, its bytes, their sha256."""

_SONGS = [{"name": str, "key": KEY, "seconds": float, "level?": Maybe(float), "same_as?": [str]}]
_PART_OF_ROWS = {"songs": _SONGS, "shards": [_SHARD], "audio": [_SOUND], "samples": [None]}
_PART = {
    "songs": _SONGS,
    "shards": [{**_SHARD, "songs": _PACKED}],
    "audio": [{**_SOUND, "songs": _PACKED}],
    "index": _INDEX,
}

MANIFEST = Kind(
    4,
    {
        "order": re.compile("feistel|sorted"),
        "settings": {str: None},
        "dtype": _DTYPE,
        "shape": (COUNT, COUNT, COUNT),
        "left_out": [{"song": str, "reason": str}],
        "splits": {f"{split}?": Either(_PART_OF_ROWS, _PART) for split in _SPLITS},
        "digest": _SHA256,
    },
    {"order": "sorted"},
)
"""manifest.json of a dataset. To schema 3 it had a row for each sample, and a song was a shard; see also data/order.py."""

SHARD = Kind(1, {**_SOUND, "samples?": COUNT, "songs": _PACKED})
"""A shard into which songs were packed: parts/shard-NAME.json."""

SONG = Kind(
    3,
    {
        "song": str,
        "split": re.compile("|".join(_SPLITS)),
        "key": KEY,
        "source": str,
        "settings": _SETTINGS,
        "seconds": float,
        "clipped": COUNT,
        "levels": {"input": Maybe(float), "target": Maybe(float)},
        **dict.fromkeys(("silent_windows", "silent_dropped", "padded_windows", "copies"), COUNT),
        "filled": float,
        "by_position": bool,
        "fingerprint": Maybe(str),
        "dtype": Maybe(_DTYPE),
        "shape": Maybe([COUNT]),
        "shard": Maybe(_SHARD),
        "audio": Maybe(_SOUND),
        "samples": None,
    },
    {"filled": 0.0, "by_position": False, "fingerprint": None},
    before=1,
)
"""A finished song: parts/SPLIT-KEY.json. `source`: its stamp; in schema 1 by the times of its files, since by their content.
To schema 2 `shard` and `audio` named shards that held this song alone."""

UNCHANGED = Kind(1, {"songs": _SHA256, "dataset": _SHA256, "named": bool, "version": str, "settings": {str: None}})
"""parts/unchanged.json, see data/unchanged.py."""

CHECKED = Kind(1, {"files": {str: _SHA256}})
"""checked.json in a copy on a node, see data/staging.py."""

COMPOSED = Kind(
    1,
    {
        "seed": COUNT,
        "number": COUNT,
        "style": str,
        "bpm": float,
        "beats_per_bar": COUNT,
        "swing": float,
        "seconds": float,
        "beats": [float],
        "sections": [{"name": str, "begin": float}],
        "drums": [{"seconds": float, "note": COUNT, "velocity": COUNT, "class": re.compile("kick|snare|hat|other")}],
        "sound_font": {"name": str, "sha256": _SHA256},
    },
)
"""song.json beside the stems of a composed song: its beats and drum strokes, in seconds."""

# What the stage `pattern` makes for runs with sketches.

GUIDES = Kind(
    1,
    {
        "variants": range(1, 1 << 8),
        "width": range(3, 1 << 16),
        "songs": {KEY: {"frames": COUNT, "bytes": COUNT, "sha256": _SHA256}},
        "training": Maybe(str),
    },
    {"training": None},
)
"""guides.json, see data/guides.py. training: that of dataset.json when it was made."""

_OF_DRUMMER = {"bytes": COUNT, "sha256": _SHA256}

DRUMMER = Kind(1, {"files": {"pattern.safetensors": _OF_DRUMMER, "strokes.safetensors": _OF_DRUMMER}})
"""drummer.json, see generate/drummer.py."""

_BY_CLASS = {str: Maybe(float)}

PATTERN_MEASURES = Kind(1, {"songs": [str], "true": _BY_CLASS, "heard": _BY_CLASS})
"""pattern/measures.json, see generate/pattern_measures.py: correlations by class, with either beats."""

# Evaluations.

_ROW = {str: Maybe(float)}
_DISTANCE = {"songs": COUNT, "windows": COUNT, "real": COUNT, "floor?": Maybe(float), "others?": Maybe(float)}
_AVERAGE = {"mean": _ROW, "interval": {str: (float, float)}, "absent": {str: str}}
_LEVEL = {"gain_db?": float, "unrecorded_gain_db?": float}
_PLACE = {"begins": float, "seconds": float}
_OF_SONG = {"name": str, "split": str, "begins": float, "seconds": float, "measured?": _PLACE, **_LEVEL, "rows": {str: _ROW}}
_MEASURED = {"row": _ROW, "absent": {str: str}, "parts": [_ROW], "described": [Maybe((float,) * 41)]}

METRICS = Kind(
    3,
    {
        "step": COUNT,
        "songs": [{"name": str, "key": KEY, "begins?": float, **_LEVEL, "output": _ROW, "absent": {str: str}}],
        "splits": {str: {**_AVERAGE, "songs?": [{"output": _ROW}]}},
    },
    before=1,
)
"""An evaluation's metrics.json. A measure that a row lacks came later: it is None, as one that can't be measured. Of schema 1
intervals were quantiles of a bootstrap, which need not hold the distance, and no gain is told: the same of the next two.
Before schema 3 a song's row was the mean over generations; in this and the next record the level error was the mean over songs,
and the distance compared stems with the true stems of the excerpts alone."""

BASELINES = Kind(
    3,
    {
        "songs": {KEY: {**_OF_SONG, "absent": {str: {str: str}}, "missing": {str: str}}},
        "splits": {str: {"songs": COUNT, "rows": {str: _AVERAGE}, "missing": {str: str}, "distance?": Maybe(_DISTANCE)}},
    },
    before=1,
)
"""baselines.json."""

REFERENCE = Kind(
    2,
    {
        "name": str,
        "measured": {str: _MEASURED},
        "missing": {str: str},
        "real": [(float,) * 41],
        "gain_db?": Maybe(float),
    },
    before=1,
)
"""One song's baselines: references/KEY.json."""

RANKING = Kind(1, {"rule": str, "checkpoints": [{"step": COUNT, "score": Maybe(float)}]})
"""ranking.json."""

# A song that a stem was made for.

GENERATED = Kind(
    1,
    {
        "song": {
            "file": str,
            "stamp": _SHA256,
            "sample_rate": COUNT,
            "channels": [str],
            "samples": COUNT,
            "begin_sample": COUNT,
        },
        "model": {"name": str, "task": str, "step": COUNT, "sha256": _SHA256, "drummer?": _SHA256},
        "settings": {str: None},
        "tempo": Maybe(
            {
                "bpm": float,
                "first_beat": float,
                "range?": (float, float),
                "beats?": [float],
                "others?": [{"option": str, "bpm": float, "first_beat": float}],
            }
        ),
        "takes": [{"seed": COUNT, "gain_db": float, "files": {str: {"name": str, "bytes": COUNT}}}],
        "notes": [str],
        "seconds": {str: float},
        "versions": {str: Maybe(str)},
    },
)
"""SONG.json: the result of launch/generate.py for a song. Of a tempo that drifts, `bpm` is the mean, `range` has the slowest
and the fastest, and `beats` the times of all beats, in seconds."""

SONGS = Kind(
    1,
    {
        "songs": [{"source": str, "folder": str, "name": str}],
        "model": str,
        "sha256": _SHA256,
        "drummer?": Maybe(_SHA256),
        "options": {str: None},
        "overwrite": bool,
    },
)
"""Songs that the jobs of a run are to make stems for: songs.json. Paths are absolute; sha256 is that of the model's weights,
drummer see `drummer_record.sha256`."""

SENT = Kind(1, {"id": re.compile(r"[A-Za-z0-9._-]{0,200}"), "step": COUNT})
"""sent.json: the run of an experiment tracker that receives the metrics of a run, and the last step that was sent."""

_LOUDNESS = (Maybe(float), float)

TRACK = Kind(
    1,
    {
        "stamp": str,
        "format": re.compile("flac|opus"),
        "rate": COUNT,
        "samples": COUNT,
        "bytes": {FILE: COUNT},
        "alone": _LOUDNESS,
        "mixed": Maybe(_LOUDNESS),
    },
)
"""A sound of a listening page: track.json. Loudness in LUFS, and peak."""

# An exported model. The sizes are far over any that is trained, and keep what others write from asking for all memory.

_SIZE = range(1, 1 << 14)

PLAYING = ("on_steps", "even_classes", "repeat_pattern", "soft_hats")
"""Optional settings of a drummer: config.json contains only those that are on."""

EXPORTED = Kind(
    1,
    {
        "format": str,
        "name": FILE,
        "step": COUNT,
        "task": {"name": str},
        "weights": {"dtype": re.compile("float32|float16"), "bytes": COUNT, "sha256": _SHA256},
        "spectrogram": {
            "representation": re.compile("default|thesis"),
            "sample_rate": range(1, 1 << 20),
            "n_fft": range(2, (1 << 16) + 1),
            "hop_length": range(1, (1 << 16) + 1),
            "mels": range(1, 2049),
            "frames": _SIZE,
            "window_hop": _SIZE,
            "channels": re.compile("mono|mid-side"),
        },
        "scaling": {str: None},
        "network": {
            "channels": _SIZE,
            "max_channels": _SIZE,
            "depth": range(1, 17),
            "upsample": re.compile("folded|nearest|transposed"),
            "norm": re.compile("group|batch"),
            "dropout": float,
            "noise_channels": range(1 << 8),
            "leaky_slope": float,
            **{f"{name}?": bool for name in ("sketch", "beat_phase", "residual", "keep_level", *PLAYING)},
        },
        "inversion": {"iterations": COUNT},
        "versions": {str: Maybe(str)},
    },
)
"""config.json of a folder that launch/export.py wrote, see generate/exported.py."""

EXPORTED_DRUMMER = Kind(
    1,
    {
        "format": str,
        "name": FILE,
        "step": COUNT,
        "task": {"name": re.compile("drums")},
        "stem": {
            "made_of": re.compile("strokes"),
            "sample_rate": range(8000, 1 << 18),
            **{f"{name}?": bool for name in PLAYING},
        },
        "drummer": {"bytes": range(1 << 20), "sha256": _SHA256},
        "trained_on": [{"name": str, "author": str, "licence": str, "sha256": str}],
        "recipe": {str: float},
        "versions": {str: Maybe(str)},
    },
)
"""config.json of a model without a generator, whose drummer plays the stem itself, see generate/exported_drummer.py. drummer:
the file drummer.json, which has the digests of the others."""

TABLE: dict[str, Any] = {name: kind for name, kind in list(globals().items()) if isinstance(kind, Kind)}

"""Write DATASET.md, the description of a dataset, and README.md, by which Hugging Face's `datasets` finds its splits."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import yaml

from p2p_dist.audio.stems import UNEQUAL
from p2p_dist.common.console import one_line
from p2p_dist.data import manifest as manifests
from p2p_dist.data.pairs import CEILING, FLOOR, LOUDEST_SHARE, LOWEST_REFERENCE
from p2p_dist.settings.config import STEMS

LICENCE = "The licence of the songs applies to everything derived from them. MUSDB18 is for non-commercial, educational use."

_SPLITS = {"valid": "validation"}
"""Where Hugging Face has another name for a split."""

_COUNTS = {
    "silent_windows": "silent target",
    "silent_dropped": "of them dropped",
    "padded_windows": "padded",
    "copies": "copies",
    "clipped": "clipped samples",
}


def card(manifest: dict[str, Any], records: list[dict[str, Any]]) -> str:
    """Return the text of DATASET.md.

    Args:
        manifest: the content of manifest.json. records: the records of all finished songs.
    """
    settings = manifest["settings"]
    lines = [f"# Pairs of spectrograms for the task `{settings['task']}`", ""]
    lines += [f"{' x '.join(map(str, manifest['shape']))} (channels, mels, frames), {np.dtype(manifest['dtype'])}, in dB.", ""]
    lines += ["| split | songs | hours | windows | " + " | ".join(_COUNTS.values()) + " |", "| --- " * (4 + len(_COUNTS)) + "|"]
    for split, part in manifest["splits"].items():
        of = [record for record in records if record["split"] == split]
        counts = " | ".join(str(sum(record[name] for record in of)) for name in _COUNTS)
        hours = sum(record["seconds"] for record in of) / 3600
        lines.append(f"| {split} | {len(of)} | {hours:.2f} | {manifests.windows(part)} | {counts} |")
    lines += ["", "Each song belongs to one split. Audio samples at or over full scale in input or target count as clipped."]
    lines += ["", "| split | level of | lowest, dBFS | median | highest | silent songs |", "| --- " * 6 + "|"]
    for split in manifest["splits"]:
        for side in ("input", "target"):
            levels = [record["levels"][side] for record in records if record["split"] == split]
            found = [level for level in levels if level is not None]
            if found:
                low, middle, high = np.quantile(found, [0, 0.5, 1])
                lines.append(f"| {split} | {side} | {low:.1f} | {middle:.1f} | {high:.1f} | {len(levels) - len(found)} |")
    lines += ["", "Settings: " + ", ".join(f"{name} {value}" for name, value in settings.items()) + "."]
    lines += [text for told in _of_the_files(records) for text in ("", told)]
    if same := overlapping(manifest):
        lines += [
            "",
            "Held-out songs with the same audio as training songs; they are not evaluated unless --allow-overlap is given:",
            "",
        ]
        lines += [f"- {one_line(line)}" for line in same]
    titles = Counter(record["song"] for record in records)
    if twice := sorted(title for title, count in titles.items() if count > 1):
        lines += ["", f"Titles that occur more than once and count as different songs: {', '.join(map(one_line, twice))}."]
    if manifest["left_out"]:
        count = len(manifest["left_out"])
        lines += ["", f"Left out: {count} song{'s' if count > 1 else ''}.", ""]
        lines += [one_line(f"- {item['song']}: {item['reason']}") for item in manifest["left_out"]]
    lines += ["", *_numbers(manifest, ready_made=all(record["fingerprint"] is None for record in records))]
    lines += ["", LICENCE]
    return "\n".join(lines) + "\n"


def readme(manifest: dict[str, Any]) -> str:
    """The text of README.md: what `datasets.load_dataset(FOLDER)` reads."""
    configs: list[dict[str, Any]] = []
    for name, kind in (("pairs", "shards"), ("audio", "audio")):
        splits = [split for split, part in manifest["splits"].items() if part[kind]]
        # By name: where a dataset was uploaded again, files of the earlier one may lie beside them.
        names = {split: [*manifests.files_of_part(manifest["splits"][split], kind)] for split in splits}
        data_files = [{"split": _SPLITS.get(split, split), "path": names[split]} for split in splits]
        if splits:
            configs.append({"config_name": name, "default": name == "pairs", "data_files": data_files})
    head = yaml.safe_dump({"configs": configs}, sort_keys=False)
    return f"""---
{head}---

# Pairs of pictures for the task `{manifest["settings"]["task"]}`

DATASET.md describes them and says what a number means; manifest.json names every file with its size and sha256.

- `datasets.load_dataset(FOLDER)` gives the pairs, `datasets.load_dataset(FOLDER, "audio")` the held-out songs as sound; the
  latter needs the package torchcodec.
- `webdataset.WebDataset([FILE, ...]).decode()` reads the shards of a split from disk, `http://` or a `pipe:`.

{LICENCE}
"""


def _numbers(manifest: dict[str, Any], *, ready_made: bool) -> list[str]:
    """What a number in a picture means, in words that need no other document, and code that needs nothing of ours."""
    settings, first = manifest["settings"], next(iter(manifest["splits"].values()))["shards"][0]["name"]
    lines = ["## What a number means", ""]
    lines += ["A sample is `KEY.npz` with the arrays `input` and `target` (channels, mels, frames), and `KEY.json`:", ""]
    lines += ["| field | meaning |", "| --- | --- |", "| song, split | title of the song, and the split that it belongs to |"]
    of_song = "index of the pair in its song, ordered by file name" if ready_made else "number of the window in its song"
    lines += [f"| window | {of_song} |"]
    lines += ["| copy | 0 for the window itself, 1 and more for its augmented copies |"]
    if ready_made:
        lines += ["| file | the npz file that the pair was in |", ""]
        return [*lines, "The pictures came ready-made: whoever made them knows what their numbers mean."]
    thesis = settings["representation"] == "thesis"
    lines += ["| task | the stems that are heard, and those to make |"]
    lines += ["| first_frame | first frame of the window in its song; a frame is `hop_length / sample_rate` seconds |"]
    lines += ["| reference | the power that is 0 dB, see below |", ""]
    of = {
        "mono": "the mean of the channels of the sound",
        "mid-side": "the mean of the channels, and half their difference",
    }[settings["channels"]]
    lines += [
        f"A value is 10 log10(power / reference) in dB, from {FLOOR:g} to {CEILING[settings['representation']]:g}; what is "
        f"lower or higher has that value, and {FLOOR:g} is silence, or padding after the end of a song.",
        "",
        f"`power` is that of librosa.feature.melspectrogram: sound of full scale 1 at {settings['sample_rate']} Hz, Hann "
        f"window of {settings['n_fft']} samples every {settings['hop_length']}, frames centred and padded with zeros, squared "
        f"magnitudes, {settings['mels']} bands on Slaney's mel scale from 0 Hz to half the rate, of equal area. The channels "
        f"are {of}.",
        "",
    ]
    side = "input" if thesis else "target"
    if thesis:
        lines += ["`reference` is the largest power in the input of the window. The target shows the sum of both, relative to"]
        lines += ["its own largest power, which is not stored."]
    else:
        lines += [
            f"`reference` is one for input and target of a whole song: the power under which {100 * LOUDEST_SHARE:g} % of the "
            f"values of its input lie (of the first channel), at least {LOWEST_REFERENCE:g}."
        ]
    if any(part["audio"] for part in manifest["splits"].values()):
        lines += [
            "",
            f"The songs in {manifests.AUDIO}/ are held out, each with `KEY.input.flac` and `KEY.target.flac` at the rate of "
            "the song. Samples times `gain` in `KEY.json` are of full scale 1 again: a sum of stems can exceed it.",
        ]
    rate, n_fft, hop = settings["sample_rate"], settings["n_fft"], settings["hop_length"]
    return [
        *lines,
        "",
        "From a picture to power, and to sound of which the phase is guessed:",
        "",
        "```python",
        "import librosa, numpy, soundfile, webdataset",
        "",
        f'sample = next(iter(webdataset.WebDataset("{first}", shardshuffle=False).decode()))',
        f'db = sample["npz"]["{side}"][0].astype("float32")',
        'power = sample["json"]["reference"] * 10 ** (db / 10)',
        f"power[db <= {FLOOR + 0.5:g}] = 0",
        f"bands = librosa.filters.mel(sr={rate}, n_fft={n_fft}, n_mels={settings['mels']})",
        "magnitude = numpy.sqrt(numpy.maximum(numpy.linalg.pinv(bands) @ power, 0))",
        f'sound = librosa.griffinlim(magnitude, n_fft={n_fft}, hop_length={hop}, pad_mode="constant")',
        f'soundfile.write("{side}.wav", sound, {rate})',
        "```",
    ]


def overlapping(manifest: dict[str, Any]) -> list[str]:
    """Return a line for each held-out song that is also a training song."""
    return [
        f"{song['name']} ({split}) has the audio of {', '.join(song['same_as'])} (train)"
        for split, part in manifest["splits"].items()
        for song in part["songs"]
        if song.get("same_as")
    ]


def _of_the_files(records: list[dict[str, Any]]) -> list[str]:
    """Notes on songs with ambiguous files. Records of earlier versions do not have them."""
    found = []
    if filled := [record["filled"] for record in records if record.get("filled")]:
        found.append(
            f"Songs with stems of unequal length; the shorter stems are padded with silence: {len(filled)} "
            f"(by at most {max(filled):.3f} s; over {UNEQUAL:g} s a song is left out)."
        )
    if positions := sum(record.get("by_position", False) for record in records):
        found.append(
            f"Stem files without stream titles; their streams are read in MUSDB18's order (mixture, {', '.join(STEMS)}): "
            f"{positions}."
        )
    return found

"""What the launcher works out of the settings, beside the networks, files and processes themselves."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from p2p_dist.audio import layouts, musdb18
from p2p_dist.data import guides
from p2p_dist.data.index import Index
from p2p_dist.jobs import estimate
from p2p_dist.model.discriminator import Discriminator
from p2p_dist.model.generator import Generator
from p2p_dist.run import rundir
from p2p_dist.settings import presets
from p2p_dist.train.speed import flops_per_image


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        *((name, {}) for name in ("default", "thesis", "tiny")),
        ("tiny", {"depth": 1}),
        ("tiny", {"sketch": True, "beat_phase": True, "residual": True}),
        ("tiny", {"upsample": "nearest"}),
        ("tiny", {"upsample": "transposed", "discriminator_norm": "batch", "noise_channels": 0}),
    ],
)
def test_parameters_and_arithmetic_are_those_of_the_networks(name, changed):
    base = presets.PRESETS[name]
    settings = dataclasses.replace(base, model=dataclasses.replace(base.model, **changed))
    with torch.device("meta"):
        made = Generator(settings.model), Discriminator(settings.model)
    counts = tuple(sum(parameter.numel() for parameter in module.parameters()) for module in made)
    assert estimate.parameters(settings.model, settings.data) == counts
    assert estimate.flops_per_image(settings) == flops_per_image(settings)


def test_two_channels_and_no_feature_matching_count_too():
    base = presets.PRESETS["tiny"]
    settings = dataclasses.replace(base, data=dataclasses.replace(base.data, channels="mid-side"))
    assert estimate.flops_per_image(settings) == flops_per_image(settings)
    settings = dataclasses.replace(base, train=dataclasses.replace(base.train, feature_weight=0.0))
    assert estimate.flops_per_image(settings) == flops_per_image(settings)


def test_memory_is_enough_and_not_twice_as_much():
    cases = [("demo", 4), ("tiny", 32)]
    words = [str(word) for case in cases for word in case]
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("peak_memory.py"), *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    for (name, batch), taken in zip(cases, map(int, done.stdout.split()), strict=True):
        base = presets.PRESETS[name]
        settings = dataclasses.replace(base, train=dataclasses.replace(base.train, global_batch_size=batch))
        assert 0.5 * estimate.memory(settings, 1) < taken < estimate.memory(settings, 1), (name, batch)
        assert estimate.memory(settings, 2) < estimate.memory(settings, 1)
        assert estimate.memory(estimate.with_micro_batch(settings, 1), 1) < estimate.memory(settings, 1)


def test_windows_and_bytes_are_those_of_the_shards(tiny_songs, tiny_shards):
    """By the headers of the files; the last window of a song may be one more or less."""
    base = presets.PRESETS["tiny"]
    counts = estimate.windows(base.data, tiny_songs)
    made = {split: len(Index(tiny_shards, split)) for split in counts}
    assert all(abs(counts[split] - made[split]) <= len(layouts.list_songs(tiny_songs)) for split in made), (counts, made)
    written = {split: sum(p.stat().st_size for p in tiny_shards.rglob(f"*{split}-*.tar")) for split in counts}
    assert estimate.shard_bytes(base.data, {"train": made["train"]}) == pytest.approx(written["train"], rel=0.3)
    assert written["test"] < estimate.shard_bytes(base.data, {"test": made["test"]}) < 10 * written["test"], "of a stereo song"


def test_checkpoints_are_as_large_as_said(new_run):
    from p2p_dist.train import checkpoint
    from p2p_dist.train.distributed import Ranks
    from p2p_dist.train.networks import build

    run, settings = new_run("a")
    networks = build(settings, Ranks(0, 1, 0, torch.device("cpu"), None))
    checkpoint.save(run.checkpoints, 5, networks.state(), networks.to_evaluate(), {})
    (state, generator) = (
        (run.checkpoints / rundir.step_name(5) / name).stat().st_size for name in ("state.pt", checkpoint.GENERATOR)
    )
    kept, whole = estimate.checkpoint_bytes(settings, 40)  # 20 steps of 4: 2 epochs, each of which is kept
    assert kept == pytest.approx(2 * generator, rel=0.1)
    assert whole == pytest.approx((settings.train.keep_last + 1) * (state + generator), rel=0.1)


@pytest.mark.parametrize(("suffix", "subtype"), [(".wav", "FLOAT"), (".wav", "PCM_16"), (".flac", "PCM_16")])
def test_the_length_of_a_song_is_read_from_its_header(suffix, subtype, tmp_path):
    (tmp_path / "a").mkdir()
    soundfile.write(tmp_path / "a" / f"drums{suffix}", np.zeros((33075, 2)), 22050, subtype=subtype)
    assert estimate.seconds(layouts.source_at(tmp_path / "a", "train")) == pytest.approx(1.5, rel=0.01)


def test_the_length_of_an_mp4_is_read_from_its_movie_header(tmp_path):
    import av

    with av.open(str(musdb18.excerpt_file())) as file:
        length = max(float(stream.duration * stream.time_base) for stream in file.streams.audio)
    assert estimate.seconds(layouts.source_at(musdb18.excerpt_file(), "train")) == pytest.approx(length, rel=0.02)
    for damaged in (b"", b"x", musdb18.excerpt_file().read_bytes()[:40], b"\0\0\0\x20ftyp" + b"\0" * 100):
        (tmp_path / "b.stem.mp4").write_bytes(damaged)
        assert estimate.seconds(layouts.source_at(tmp_path / "b.stem.mp4", "train")) is None


def test_free_memory_is_some_of_this_machines():
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < estimate.free_memory() <= total
    assert estimate.free_disk(Path(sys.prefix) / "not" / "there") > 0


def test_sketches_networks_and_strokes_take_the_room_that_is_said():
    """tests/generate/test_pattern_stage.py compares it with what the stage leaves."""
    from p2p_dist.audio import pattern_features
    from p2p_dist.generate import pattern_stage
    from p2p_dist.model.pattern import Pattern

    assert (estimate.SKETCHES, 1) == (guides.TRUE, guides.PREDICTED) and estimate.KITS == pattern_stage.KITS
    of_second = 2 * (pattern_features.CHANNELS + 2 * len(pattern_features.BEATS)) / pattern_features.FRAME
    assert of_second < estimate.FEATURES < 1.1 * of_second
    assert 1 <= estimate.PATTERN_NETWORK / (4 * sum(one.numel() for one in Pattern().parameters())) < 2
    base = presets.PRESETS["tiny"]
    guided = dataclasses.replace(base, model=dataclasses.replace(base.model, sketch=True))
    assert estimate.pattern_bytes(base, 10, 1) == estimate.pattern_bytes(guided, 10, 0) == 0
    # 100 000 windows of 16 frames, hop 256 at 22 050 Hz; rows of 32 bands, sine and cosine, two bytes each.
    frames, seconds = 1_600_000, 1_600_000 * 256 / 22050
    networks, sketches = 5 * estimate.PATTERN_NETWORK, 3 * frames * 2 * 34
    for songs, kits in ((20, 40), (100, 132)):
        strokes = kits * estimate.STROKES_OF_SONG
        said = estimate.pattern_bytes(guided, 100_000, songs)
        assert said == pytest.approx(sketches + estimate.FEATURES * seconds + strokes + networks, rel=1e-6)
    predicted = dataclasses.replace(guided, train=dataclasses.replace(guided.train, predicted_strokes=True))
    more = 2 * estimate.PATTERN_NETWORK + frames * 2 * 34
    assert estimate.pattern_bytes(predicted, 100_000, 100) == pytest.approx(said + more, rel=1e-6)
    short = estimate.pattern_bytes(guided, 100_000, 10_000)
    assert short - said < estimate.STROKES * seconds, "no more strokes than sound"

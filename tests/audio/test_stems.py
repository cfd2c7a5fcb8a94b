"""Songs are decoded: alignment to the sample, and every kind of damaged file."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from p2p_dist.audio import musdb18, stems
from p2p_dist.settings.config import STEMS
from tests import decode
from tests.song_files import clicks, source, write_stem_file, write_stems

FFMPEG = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="compares with ffmpeg, which is not installed")


@pytest.mark.parametrize(("rate", "channels", "suffix"), [(44100, 2, ".wav"), (8000, 1, ".flac"), (48000, 3, ".wav")])
def test_folders_are_read_at_their_own_rate_and_channels(tmp_path: Path, rate: int, channels: int, suffix: str) -> None:
    song = decode.load(source(write_stems(tmp_path / "song", rate, channels, 900, suffix)))
    assert song.sample_rate == rate and list(song.stems) == list(STEMS)
    written = np.random.default_rng(1).uniform(-0.5, 0.5, (900, channels))
    for name in STEMS[:1]:
        assert song.stems[name].dtype == np.float32
        np.testing.assert_allclose(song.stems[name], written, atol=1 / 32767)


def test_only_the_stems_asked_for_are_decoded(tmp_path: Path) -> None:
    folder = write_stems(tmp_path / "song")
    (folder / "vocals.wav").unlink()
    assert list(decode.load(source(folder), ["bass", "drums"]).stems) == ["drums", "bass"]
    with pytest.raises(ValueError, match=r"song: no vocals\.wav"):
        decode.load(source(folder))


def test_the_mix_is_the_sum_of_the_stems() -> None:
    song = decode.load(source(musdb18.excerpt_file()))
    total = sum(song.stems[name].astype(np.float64) for name in ("bass", "vocals"))
    np.testing.assert_allclose(song.sum_of(["bass", "vocals"]), total, atol=1e-6)


def damage_length(folder: Path) -> None:
    samples, rate = soundfile.read(folder / "bass.wav")
    soundfile.write(folder / "drums.wav", np.concatenate([samples, np.zeros((44101, 2))]), rate)


def damage_rate(folder: Path) -> None:
    samples, _ = soundfile.read(folder / "other.wav")
    soundfile.write(folder / "other.wav", samples, 22050)


def damage_numbers(folder: Path) -> None:
    samples, rate = soundfile.read(folder / "drums.wav")
    samples[100] = np.nan
    soundfile.write(folder / "drums.wav", samples, rate, subtype="FLOAT")


def damage_range(folder: Path) -> None:
    soundfile.write(folder / "drums.wav", np.full((4410, 2), 1e36), 44100, subtype="FLOAT")


def damage_header(folder: Path) -> None:
    """What ffmpeg leaves when it can't go back: no length. A header may also claim any."""
    (folder / "drums.wav").rename(folder / "whole.wav")
    soundfile.write(folder / "drums.flac", *soundfile.read(folder / "whole.wav"))
    content = bytearray((folder / "drums.flac").read_bytes())
    content[21] &= 0xF0  # the length is 36 bits of the first block, which begins at 8
    content[22:26] = bytes(4)
    (folder / "drums.flac").write_bytes(content)


def damage_to_a_huge_header(folder: Path) -> None:
    damage_header(folder)
    content = bytearray((folder / "drums.flac").read_bytes())
    content[21] |= 0x0F
    content[22:26] = bytes([0xFF] * 4)
    (folder / "drums.flac").write_bytes(content)


def damage_link(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")


def damage_kind(folder: Path) -> None:
    (folder / "vocals.wav").write_text("this is no sound")


def damage_to_nothing(folder: Path) -> None:
    (folder / "vocals.wav").write_bytes(b"")


def damage_to_no_samples(folder: Path) -> None:
    for name in STEMS:
        soundfile.write(folder / f"{name}.wav", np.zeros((0, 2)), 44100)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            damage_length,
            r"the stems differ in length \(drums 1.100 s, 48511 samples, bass 0.100 s, 4410 samples.*by more than 1 s",
        ),
        (damage_rate, "the stems differ in rate"),
        (damage_numbers, r"drums\.wav: stem drums contains NaN or infinite samples"),
        (damage_range, r"drums\.wav: stem drums contains samples of 1e\+36, full scale is 1"),
        (damage_header, r"drums\.flac: a streamed flac without a length.*ffmpeg -i"),
        (damage_to_a_huge_header, r"drums\.flac: can't be read as audio"),
        (damage_link, r"song: broken link \(target nowhere\)"),
        (damage_kind, "vocals.wav: can't be read as audio"),
        (damage_to_nothing, "vocals.wav: it is empty: copy it again"),
        (damage_to_no_samples, "no samples"),
    ],
)
def test_damaged_folders_are_named(tmp_path: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    folder = write_stems(tmp_path / "song")
    damage(folder)
    with pytest.raises(ValueError, match=message) as error:
        decode.load(source(folder))
    assert "song" in str(error.value)


@pytest.mark.parametrize("shorter", [1, 4409, 44100 - 4410])
def test_stems_of_nearly_one_length_end_in_silence(tmp_path: Path, shorter: int) -> None:
    folder = write_stems(tmp_path / "song", samples=44100)
    samples, rate = soundfile.read(folder / "bass.wav", dtype="float32")
    soundfile.write(folder / "bass.wav", samples[: len(samples) - shorter], rate)
    song = decode.load(source(folder))
    assert {len(sound) for sound in song.stems.values()} == {44100}
    np.testing.assert_array_equal(song.stems["bass"][: 44100 - shorter], samples[: 44100 - shorter])
    assert not song.stems["bass"][44100 - shorter :].any()
    _, (drums, both) = stems.load_sums(source(folder), [("drums",), ("bass", "other")])
    assert (drums.filled, both.filled) == (0, shorter)


@pytest.mark.parametrize("size", [0, 100, 5000, 0.5, 0.98])
def test_a_stem_file_cut_anywhere_is_named(tmp_path: Path, size: float) -> None:
    whole = musdb18.excerpt_file().read_bytes()
    path = tmp_path / "cut.stem.mp4"
    path.write_bytes(whole[: int(size if size > 1 else size * len(whole))])
    with pytest.raises(
        ValueError, match=r"cut\.stem\.mp4: (it is empty|not decodable|cut short|[04] sound streams, a stem file has 5)"
    ):
        decode.load(source(path))


def test_a_text_file_with_the_name_of_a_stem_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "words.stem.mp4"
    path.write_text("words " * 1000)
    with pytest.raises(ValueError, match=r"words\.stem\.mp4: not decodable as a stem file"):
        decode.load(source(path))


def cut_by_edit_list(whole: Path, path: Path, samples: int, streams: Sequence[int] = range(5)) -> Path:
    """The same packets, of which an edit list leaves out the first samples; of fewer than none, they begin later."""
    with av.open(str(whole)) as old, av.open(str(path), "w", format="mp4") as new:
        if hasattr(new, "add_stream_from_template"):
            copies = {stream.index: new.add_stream_from_template(stream) for stream in old.streams.audio}
        else:  # PyAV 13
            copies = {stream.index: new.add_stream(template=stream) for stream in old.streams.audio}
        for packet in old.demux():
            if packet.dts is not None:
                if packet.stream.index in streams:
                    packet.pts, packet.dts = packet.pts - samples, packet.dts - samples
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    return path


# The encoder fills its last frame, and FFmpeg keeps that; from 9 on it writes, and follows, where the sound ends.
LENGTH = 30_000 if av.library_versions["libavformat"] >= (63,) else -(-30_000 // 1024) * 1024


@pytest.mark.parametrize("cut", [0, 2500])
def test_every_stream_begins_where_its_sound_begins(tmp_path: Path, cut: int) -> None:
    """What the encoder put before the sound, and what an edit list leaves out, is not there: needs no ffmpeg to compare."""
    path = write_stem_file(tmp_path / "whole.stem.mp4", clicks())
    if cut:
        path = cut_by_edit_list(path, tmp_path / "cut.stem.mp4", cut)
    song = decode.load(source(path))
    for number, name in enumerate(STEMS, 1):
        assert abs(int(np.abs(song.stems[name][:, 0]).argmax()) - (5000 + 1000 * number - cut)) <= 2
        assert len(song.stems[name]) == LENGTH - cut


@FFMPEG
@pytest.mark.parametrize("kind", ["MUSDB18", "encoder's delay", "edit list"])
def test_stem_files_decode_as_ffmpeg_decodes_them(tmp_path: Path, kind: str) -> None:
    """Offset (encoder delay, edit list) and length are ffmpeg's, samples to the rounding of 16 bits."""
    path = musdb18.excerpt_file()
    if kind != "MUSDB18":
        path = write_stem_file(tmp_path / "made.stem.mp4", clicks())
    if kind == "edit list":
        path = cut_by_edit_list(path, tmp_path / "cut.stem.mp4", 2500)
    song = decode.load(source(path))
    length = {"encoder's delay": LENGTH, "edit list": LENGTH - 2500}.get(kind)
    for number, name in enumerate(STEMS, 1):
        command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", f"0:a:{number}", "-f", "s16le", "-"]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
        expected = np.frombuffer(raw, "<i2").reshape(-1, 2) / 32768
        assert len(song.stems[name]) == (length or len(expected))
        # The command may be of another version, and keep the encoder's last frame where av does not, or the reverse.
        both = min(len(expected), len(song.stems[name]))
        assert both >= len(expected) - 1024 and (length or both == len(expected))
        assert np.abs(song.stems[name][:both].clip(-1, 32767 / 32768) - expected[:both]).max() <= 1 / 32768


def test_a_stem_file_that_lacks_a_stream_is_named(tmp_path: Path) -> None:
    path = write_stem_file(tmp_path / "four.stem.mp4", clicks()[:4])
    with pytest.raises(ValueError, match=r"four\.stem\.mp4: 4 sound streams, a stem file has 5"):
        decode.load(source(path))


def test_a_stem_file_with_a_damaged_header_is_named(tmp_path: Path) -> None:
    """One byte of it, so that a stream's table of codecs is not found."""
    path = write_stem_file(tmp_path / "flipped.stem.mp4", clicks())
    content = bytearray(path.read_bytes())
    second = content.index(b"mp4a", content.index(b"mp4a", content.index(b"moov")) + 1)
    content[content.rindex(b"stsd", 0, second)] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"flipped\.stem\.mp4: no decoder for drums: the header is damaged"):
        decode.load(source(path))


def test_a_stem_that_begins_later_than_the_others_is_named(tmp_path: Path) -> None:
    """What all of them wait for alike is no reason."""
    whole = write_stem_file(tmp_path / "whole.stem.mp4", clicks())
    later = cut_by_edit_list(whole, tmp_path / "later.stem.mp4", -22050, [1])
    with pytest.raises(ValueError, match=r"later\.stem\.mp4: the stems start at different times \(.*drums 0\.4"):
        decode.load(source(later))
    together = decode.load(source(cut_by_edit_list(whole, tmp_path / "together.stem.mp4", -4410)))
    begins = [int(np.abs(together.stems[name][:, 0]).argmax()) for name in STEMS]
    assert np.ptp(np.diff(begins)) <= 2 and abs(begins[1] - begins[0] - 1000) <= 2


def test_stem_files_whose_streams_differ_are_named(tmp_path: Path) -> None:
    shorter = [sound[: 80_000 - 15_000 * number] for number, sound in enumerate(clicks(80_000))]
    with pytest.raises(ValueError, match=r"short\.stem\.mp4: the stems differ in length \(drums 1\.4"):
        decode.load(source(write_stem_file(tmp_path / "short.stem.mp4", shorter)))
    with pytest.raises(ValueError, match=r"rate\.stem\.mp4: the stems differ in rate"):
        decode.load(source(write_stem_file(tmp_path / "rate.stem.mp4", clicks(), [44100, 44100, 44100, 44100, 48000])))


@pytest.mark.parametrize("held", [1, 3, 16])
def test_sums_are_those_of_the_stems_however_they_arrive(tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, also the mean of the channels alone; and level, peak and clipped samples are those of the whole sum."""
    monkeypatch.setattr(stems, "_HELD", held)
    path = cut_by_edit_list(write_stem_file(tmp_path / "a.stem.mp4", [3 * s for s in clicks()]), tmp_path / "b.stem.mp4", 700)
    song = decode.load(source(path))
    sides = [("bass", "other", "vocals"), ("drums",)]
    rate, sums = stems.load_sums(source(path), sides)
    _, means = stems.load_sums(source(path), sides, downmix=True)
    for side, found, mean in zip(sides, sums, means, strict=True):
        expected = song.sum_of(side)
        np.testing.assert_array_equal(found.sound, expected)
        np.testing.assert_array_equal(mean.sound[:, 0], stems.mono(expected, rate, rate))
        assert found.peak == mean.peak == np.abs(expected).max()
        assert found.clipped == mean.clipped == (np.abs(expected) >= stems.FULL_SCALE).sum() > 0
        assert found.power == pytest.approx((expected.astype(np.float64) ** 2).mean(), rel=1e-6)


def test_a_part_of_a_song_is_that_part_of_the_whole(tmp_path: Path) -> None:
    song = source(write_stems(tmp_path / "song", rate=8000, samples=30_000))
    _, (whole,) = stems.load_sums(song, [("bass", "other")])
    for begin, end in ((0, 1), (1, 3), (3, 9), (5, 6)):
        _, (part,) = stems.load_sums(song, [("bass", "other")], part=(begin, end))
        np.testing.assert_array_equal(part.sound, whole.sound[8000 * begin : 8000 * end])
        assert (part.peak, part.power) == (whole.peak, whole.power)


def test_headers_say_how_much_there_is_to_decode(tmp_path: Path) -> None:
    write_stems(tmp_path / "flac", 8000, 3, 900, ".flac")
    assert stems.header(source(tmp_path / "flac")) == (8000, 3, 900)
    rate, channels, samples = stems.header(source(musdb18.excerpt_file()))
    assert (rate, channels) == (44100, 2) and 0 <= samples - 262_000 < 10_000
    (tmp_path / "bad.stem.mp4").write_text("words")
    for bad in ("flac/drums.flac", "bad.stem.mp4", "nothing"):
        assert stems.header(source(tmp_path / bad))[2] in (0, 900)


def test_mono_is_what_librosa_loads(tmp_path: Path) -> None:
    from tests.uncompiled import librosa

    folder = write_stems(tmp_path / "song", samples=30000)
    song = decode.load(source(folder), ["bass"])
    expected, _ = librosa.load(folder / "bass.wav", sr=22050)
    np.testing.assert_array_equal(stems.mono(song.stems["bass"], 44100, 22050), expected)

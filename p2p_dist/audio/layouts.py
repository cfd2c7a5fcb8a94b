"""Find songs: MUSDB18 (`.stem.mp4`), MUSDB18-HQ (folders of wav), folders with the same layout, and npz pairs.

Only this module depends on these layouts. It does not decode songs, so it works on a login node without a decoder.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from p2p_dist.audio import held_out_titles, other_datasets
from p2p_dist.audio.musdb18 import SUFFIX
from p2p_dist.audio.other_datasets import listed
from p2p_dist.audio.stamps import stamps
from p2p_dist.common import console
from p2p_dist.common.file_names import check_utf8
from p2p_dist.common.files import digest
from p2p_dist.settings.config import STEMS

SPLITS = ("train", "valid", "test")
PAIRS_SUFFIX = ".npz"

LAYOUT = (
    f"train/ and test/ (and valid/, or some of train/ are taken) with SONG{SUFFIX} files, or SONG folders of "
    f"{', '.join(STEMS)} as wav or flac, or songs of MoisesDB or Slakh2100, or the {PAIRS_SUFFIX} pairs of the thesis"
)

_NAMED = 6  # files of a folder that messages name
_SOUNDS = (".wav", ".flac", ".mp3", ".mp4", ".m4a", ".aac", ".ogg", ".opus", ".wma", ".aif", ".aiff", ".npz")

_NEW_STEM = "for a new stem of a finished song use generate: python launch/generate.py SONG"

_LEFT_BY_MACHINES = re.compile(
    r"@eadir|@tmp|@sharebin|@recycle|@recently-snapshot|#recycle|#snapshot|~snapshot|__macosx|lost\+found|\$recycle\.bin"
    r"|system volume information|found\.\d{3}|thumbs\.db|desktop\.ini|network trash folder|temporary items|_gsdata_",
    re.IGNORECASE,
)
"""Synology (@eaDir, #recycle), QNAP (@Recycle), NetApp (~snapshot), macOS, Netatalk and Samba for it (Network Trash Folder,
Temporary Items), ext4, Windows, GoodSync (_gsdata_)."""


@dataclass(frozen=True)
class Source:
    """A song in any layout, not decoded yet.

    path: the file or folder, for messages. stems: stem -> its file, for the stems that were found; a `.stem.mp4` has all.
        Several files are added up, with silence after the shorter ones; of none it is silent.
    pairs: npz files, if the song is given as spectrograms without audio. table: the file that tells what the others are.
    wrong: why the song can't be read, which decoding reports.
    """

    name: str
    split: str
    path: Path
    stems: Mapping[str, Path | tuple[Path, ...]] = field(default_factory=dict)
    pairs: tuple[Path, ...] = ()
    table: Path | None = None
    wrong: str | None = None

    @property
    def stem_file(self) -> Path | None:
        """The file that holds all stems, if they are in one file."""
        (first, *others) = dict.fromkeys(self.stems.values()) or [None]
        return first if isinstance(first, Path) and len(self.stems) > 1 and not others else None

    def sounds(self) -> list[Path]:
        """List the files of all stems, whether they exist or not."""
        found = [(one,) if isinstance(one, Path) else one for one in self.stems.values()]
        return list(dict.fromkeys(path for paths in found for path in paths))

    def files(self) -> list[Path]:
        """All existing files of the song."""
        table = () if self.table is None else (self.table,)
        return [path for path in (*(self.pairs or self.sounds()), *table) if path.is_file()]

    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.stat().st_size for file in self.files())

    def stamp(self) -> str:
        """Digest of the song's title and of its files' names and content, see `stamps`: it changes when the song does."""
        found = self.files()
        return digest([self.name, [[file.name, stamp] for file, stamp in zip(found, stamps(found), strict=True)]])

    def stamp_of_version_0_1(self) -> str:
        """The stamp of version 0.1: name, size and modification time of its files."""
        states = [(file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in self.files()]
        return digest([self.name, states])


def stem_files(folder: Path) -> dict[str, Path]:
    """Find the sound file of each stem in a song's folder; none if the folder cannot be read.

    Letters may be large or small, as in Drums.WAV; a name as it is written in `STEMS` comes first, and wav before flac.
    """
    here = {path.name: path for path in listed(folder)}
    alike = {name.lower(): path for name, path in sorted(here.items(), reverse=True)}
    found: dict[str, Path] = {}
    for stem in STEMS:
        for name in (f"{stem}{suffix}" for suffix in (".wav", ".flac")):
            file = here.get(name) or alike.get(name)
            if stem not in found and file is not None and file.is_file():
                found[stem] = file
    return found


def contents(folder: Path, named: str | Path = "it") -> str:
    """Describe the content of a folder, for messages: `it has a.wav, b/`. named: what stands for the folder there."""
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        return f"{named} can't be read ({error.strerror})"
    names = [path.name + ("/" if path.is_dir() else "") for path in inside if not _is_left_by_a_machine(path)]
    if not names:
        return f"{named} is empty"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{named} has {', '.join(map(console.one_line, names[:_NAMED]))}{more}"


def is_passed_over(name: str) -> bool:
    """Whether a file or folder with this name is hidden, or is made by a file server or file manager.

    Whatever such a folder holds is a copy, as in @eaDir, or was deleted, as in #recycle. Titles may begin with three dots.
    """
    return (name.startswith(".") and not name.startswith("...")) or bool(_LEFT_BY_MACHINES.fullmatch(name))


def _is_left_by_a_machine(path: Path) -> bool:
    """Like `is_passed_over`, or a name that only may be one (@name, #name, ~name) of something without sound."""
    if is_passed_over(path.name) or path.name[0] not in "@#~":
        return is_passed_over(path.name)
    if not path.exists() or (path.is_dir() and not os.access(path, os.R_OK | os.X_OK)):
        return False  # it may be a song, on a disk that is missing or of another user
    inside = listed(path)
    deeper = (found for folder in inside for found in listed(folder))
    return not any(map(_is_sound, itertools.chain([path], inside, deeper)))


def _is_sound(path: Path) -> bool:
    return path.suffix.lower() in _SOUNDS and not is_passed_over(path.name) and not path.is_dir()


def _is_compressed(path: Path) -> bool:
    return _is_sound(path) and path.suffix.lower() not in (".wav", ".flac", PAIRS_SUFFIX)


def _is_download(path: Path) -> bool:
    """Whether a file may be an unfinished copy of a song in one file, as in Song.stem.mp4.part."""
    return f"{SUFFIX}." in path.name.lower() and not is_passed_over(path.name)


def list_songs(root: Path, split_by_title: bool = False) -> list[Source]:
    """List all songs under `root`/train, `root`/valid and `root`/test, in upper or lower case.

    A folder without stems is listed, too. Opening it reports the missing stems.

    Args:
        split_by_title: the songs lie in `root` itself; see `held_out_titles.testing_titles`.

    Raises:
        ValueError: no such folder, no song in it, or a name that is not UTF-8; the message says what is expected, and what
            was found.
    """
    check_utf8(root)
    if root.is_file():
        raise ValueError(f"{root} is a file: --data names a folder of songs to train on with their stems; {_NEW_STEM}")
    if not root.is_dir():
        raise ValueError(f"no folder {root}: --data names the folder of MUSDB18, or one laid out like it ({LAYOUT})")
    folders = split_folders(root)
    if split_by_title:
        if folders:
            names = ", ".join(f"{path.name}/" for path in folders.values())
            raise ValueError(f"{root} has {names}: its songs are already split, omit --data.split-by-title")
        songs = _songs_in(root, "train")
        testing = held_out_titles.testing_titles([song.name for song in songs])
        songs = [replace(song, split="test") if song.name in testing else song for song in songs]
    else:
        songs = [song for split, folder in folders.items() for song in _songs_in(folder, split)]
    if not any(song.files() for song in songs):
        raise ValueError(f"no song in {root}: expected {LAYOUT}; {_found_instead(root, folders, songs)}")
    return songs


def is_split(root: Path) -> bool:
    """Whether a folder has folders of splits, or does not exist, which `list_songs` reports."""
    return not root.is_dir() or bool(split_folders(root))


def split_folders(root: Path) -> dict[str, Path]:
    """Find the folders of the splits; `Train/` counts too.

    Raises:
        ValueError: a split has several folders, a broken link or a file. Else its songs would be passed over in silence.
    """
    found: dict[str, Path] = {}
    inside = [path for path in sorted(root.iterdir()) if split_of(path) is not None]
    for path in inside:
        if path.is_symlink() and not path.exists():
            raise ValueError(f"{path} is a broken link (target {path.readlink()}): is a disk missing? Restore or remove it")
        if not path.is_dir():
            raise ValueError(f"{path} is a file, where a folder of songs is expected: rename it or remove it")
    for split in ("train", "test", "valid"):
        there = [path for path in inside if split_of(path) == split]
        if len(there) > 1:
            raise ValueError(f"{there[0]} and {there[1]} are both folders of {split} songs: merge them into one folder")
        if there:
            found[split] = there[0]
    return found


def split_of(folder: Path) -> str | None:
    """Return the split that a folder's name stands for. validation/ counts for Slakh2100 only; elsewhere it is ignored."""
    if folder.name == "validation" and any(folder.glob("*/metadata.yaml")):
        return "valid"
    return folder.name.lower() if folder.name.lower() in SPLITS else None


def _songs_in(folder: Path, split: str) -> list[Source]:
    songs, loose = [], []
    for path in sorted(folder.iterdir()):
        if _is_left_by_a_machine(path):
            continue
        check_utf8(path)
        if (song := source_at(path, split)) is not None:
            for file in (*song.pairs, *song.sounds()):
                check_utf8(file)
            songs.append(song)
        elif path.name.lower().endswith(PAIRS_SUFFIX):
            loose.append(path)
    return songs + [Source(name, split, folder, pairs=pairs) for name, pairs in _by_song(loose).items()]


def source_at(path: Path, split: str) -> Source | None:
    """Return the song in a file or folder, in any layout; None if it is not a song. Add new layouts here.

    A folder with neither stems nor pairs is treated as a song, and a broken link. Decoding it reports what is missing.
    """
    if path.is_dir():
        stems = stem_files(path)
        if not stems and (known := other_datasets.moisesdb(path) or other_datasets.slakh(path)) is not None:
            return Source(known.title, split, path, known.stems, table=known.table, wrong=known.wrong)
        pairs = [] if stems else [p for p in listed(path) if p.name.lower().endswith(PAIRS_SUFFIX) and _is_sound(p)]
        return Source(path.name, split, path, stems, tuple(pairs))
    if path.name.lower().endswith(SUFFIX):
        return Source(path.name[: -len(SUFFIX)], split, path, dict.fromkeys(STEMS, path))
    if path.is_symlink() and not path.exists():  # a song on a disk that is missing, for all that is known
        return Source(path.name, split, path)
    return None


def _found_instead(root: Path, folders: dict[str, Path], songs: list[Source]) -> str:
    """Explain why no song was found."""
    if songs:
        compressed = [song.path for song in songs if any(map(_is_compressed, listed(song.path)))]
        if compressed:
            return f"{contents(compressed[0], compressed[0])}: convert compressed formats such as mp3 to wav or flac first"
        first = songs[0].path
        if first.is_symlink() and not first.exists():
            return f"{first} is a broken link (target {first.readlink()})"
        return contents(first, first)
    if folders:
        return "; ".join(contents(path, path) for path in folders.values())
    if root.name.lower() in SPLITS:
        return f"if {root} is the folder of one split, name the one above it, {root.parent}"
    if here := [song.name for song in _songs_in(root, "train") if song.files()]:
        some = ", ".join(map(console.one_line, here[:3])) + (" ..." if len(here) > 3 else "")
        offer = "--data.split-by-title takes about every fifth for test/ by a hash of its title"
        return f"{len(here)} songs lie in {root} itself ({some}): move them into these folders, or {offer}"
    if deeper := [path for path in listed(root) if {inside.name.lower() for inside in listed(path)} & set(SPLITS)]:
        return f"name {deeper[0]}, which has such folders"
    if any(_is_sound(path) for path in listed(root)):
        return f"{contents(root)}: songs to train on need their stems; {_NEW_STEM}"
    return contents(root)


def overlooked(root: Path, split_by_title: bool = False) -> list[Path]:
    """List files that look like songs but are not used, so that they can be reported."""
    folders = [root] if split_by_title else list(split_folders(root).values())
    inside = [path for folder in folders for path in listed(folder)]
    loose = [path for path in inside if path.is_file() and not path.name.lower().endswith((SUFFIX, PAIRS_SUFFIX))]
    found = [path for path in loose if _is_sound(path) or _is_download(path)]
    found += [path for path in inside if path.name.startswith(".") and is_passed_over(path.name) and bool(stem_files(path))]
    if not split_by_title:
        others = [path for path in listed(root) if path not in folders and not _is_left_by_a_machine(path)]
        found += [path for path in others if any(map(_has_stems, [path, *listed(path)]))]
    return found


def further_stems(songs: Iterable[Source]) -> list[Path]:
    """List the sound files beside the stems of songs that are no stem of ours, nor the mixture: nothing hears them."""
    found = []
    for song in songs:
        if song.table is None and song.stems and song.stem_file is None:
            known = {path.name for path in song.sounds()}
            found += [
                path
                for path in listed(song.path)
                if path.suffix.lower() in (".wav", ".flac")
                and _is_sound(path)
                and path.name not in known
                and path.stem.lower() not in (*STEMS, "mixture", "mix")
            ]
    return found


def _has_stems(path: Path) -> bool:
    song = source_at(path, "")
    return song is not None and bool(song.stems)


def find_songs(root: Path, split_by_title: bool = False) -> list[Source]:
    """All songs sorted by split and name, as `list_songs` finds them; without a folder valid/ part of train becomes valid.

    Raises:
        ValueError: see `list_songs`; or musdb, which knows the validation songs of MUSDB18, is not installed.
    """
    songs = list_songs(root, split_by_title)
    if not any(song.split == "valid" for song in songs):
        valid = held_out_titles.validation_titles([song.name for song in songs if song.split == "train"])
        songs = [replace(s, split="valid") if s.split == "train" and s.name in valid else s for s in songs]
    return sorted(songs, key=lambda song: (SPLITS.index(song.split), song.name, song.path))


def _by_song(pairs: list[Path]) -> dict[str, tuple[Path, ...]]:
    """Loose npz files of one folder by song: what stands before the number at the end of a name, else the folder's name."""
    songs: dict[str, list[Path]] = {}
    for path in pairs:
        name = path.name[: -len(PAIRS_SUFFIX)]
        songs.setdefault(re.sub(r"[\s._-]*\d+$", "", name) or path.parent.name, []).append(path)
    return {name: tuple(sorted(paths)) for name, paths in songs.items()}

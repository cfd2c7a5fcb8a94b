"""The example song."""

from p2p_dist.cli import submit
from tests.jobs.submit_command import place, songs

__all__ = ["place"]


def test_the_example_song_is_trained_and_tested_on_its_own_sound(place, monkeypatch):
    """It is the only one whose figures come without asking; of other songs, --allow-overlap asks for them."""
    monkeypatch.setenv("P2P_RUNS", str(place / "runs"))
    monkeypatch.delenv("MUSDB_PATH", raising=False)
    other = ["--data", str(songs(place / "songs"))]
    for arguments, allowed in ((["--preset", "tiny"], True), (other, False), ([*other, "--allow-overlap"], True)):
        assert submit.parse(arguments)[0].settings.evaluate.allow_overlap is allowed

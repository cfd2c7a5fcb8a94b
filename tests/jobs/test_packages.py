"""Packages that jobs import are looked for before anything is queued."""

import dataclasses

import pytest

from p2p_dist.jobs import packages, site
from p2p_dist.settings import config
from tests.jobs.submit_command import BASE_ONLY, launch, place

__all__ = ["place"]


def test_what_jobs_import_is_looked_for_in_their_environment(tmp_path, monkeypatch, capsys):
    def check(text, *needed):
        file = tmp_path / f"{len(needed)}{len(text)}.sh"
        file.write_text(text)
        monkeypatch.setattr(packages, "PACKAGES", needed)
        place = dataclasses.replace(site.load_site("slurm"), environment=str(file))
        packages.check_packages_anywhere(config.Resources(), place, "slurm")

    (tmp_path / "only_there.py").touch()
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)  # jobs import nothing from the folder that the launcher runs in
    check(f"export PYTHONPATH='{tmp_path}'\n", "yaml", "only_there")
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match=r"environment of .*\.sh, where these packages are missing: only_there, nowhere;"):
        check("true\n", "only_there", "yaml", "nowhere")
    check("echo 'no module of this name' >&2; exit 1\n", "yaml")
    told = capsys.readouterr().out
    assert "could not be checked here (no module of this name); python launch/check.py preflight checks them" in told


def test_tensorboard_is_looked_for_before_anything_is_queued_or_begun(place):
    absent = BASE_ONLY.replace(
        '("torch", "numpy", "scipy", "av", "soundfile", "webdataset", "musdb", "stempeg")', '("tensorboard",)'
    )
    for more in (("--dry-run",), ("--cluster", "local")):
        done = launch("--train.tensorboard", "--preset", "tiny", *more, code=absent)
        assert done.returncode == 2 and "--train.tensorboard needs the package tensorboard" in done.stderr, done.stderr
    assert not (place / "runs").exists()
    done = launch("--preset", "tiny", "--cluster", "local", code=BASE_ONLY)
    assert done.returncode == 2 and "these packages are missing: torch, numpy" in done.stderr and not (place / "runs").exists()


def test_missing_packages_are_said_before_anything_starts(place):
    hidden = (
        "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *a: None if n in ('torch', 'av') else f(n, *a)"
    )
    done = launch(code=hidden)
    assert done.returncode == 2 and "torch, av" in done.stderr and "[run]" in done.stderr
    assert not (place / "runs").exists()

"""`launch/check.py preflight --cluster lumi` where all is well, and where each thing that goes wrong on clusters has."""

import json
import os

import pytest
from standins import launch

from p2p_dist.jobs import site

TWO = ("--nodes", "2", "--processes-per-node", "1", "--partition", "small-g")


def table(shown):
    """check -> (state, what was found), of what was printed."""
    rows = [line.split(maxsplit=1) for line in shown.splitlines()]
    return {row[1].split("  ")[0]: (row[0], row[1]) for row in rows if len(row) == 2 and row[0] in ("ok", "FAILED", "-")}


def check(place, monkeypatch, *options, code, runs="preflight"):
    """Ask, with runs of its own so that several may ask at once."""
    monkeypatch.setenv("P2P_RUNS", str(place.folder / runs / "runs"))
    return launch("check", "preflight", *TWO, *options, code=code)


def test_all_is_well(place, monkeypatch):
    """A Python path of the caller's shell does not get in, and each signal is heard, by all of them."""
    monkeypatch.setenv("PYTHONPATH", "/nonexistent/of/the/host")
    monkeypatch.setenv("SINGULARITYENV_PYTHONPATH", "/nonexistent/of/the/host")
    shown = check(place, monkeypatch, *place.options(), code=0)
    found = table(shown)
    assert {name: state for name, (state, _) in found.items() if state != "ok"} == {"devices": "-", "network": "-"}, shown
    assert "2 processes on cpu: 16 MB in" in found["all-reduce"][1]
    assert "(2 times for one that was sent)" in found["signals"][1], "Slurm to all processes, and Singularity to its child"
    assert "/code" in found["python path"][1] and "miopen" in found["caches"][1]


LUMI = site.HPC / "env" / "lumi.sh"


def environment(place, *lines):
    """A site whose environment file ends in these lines."""
    path = place.folder / f"{abs(hash(lines))}.sh"
    path.write_text("\n".join([LUMI.read_text(), *lines, ""]))
    return path.name, place.site(f"{path.stem}.yaml", ("environment: env/lumi.sh", f"environment: {path}"))


def no_image(place):
    return ("--container", str(place.folder / "nowhere.sif")), "image", "no image"


def truncated(place):
    """All but the last tenth, as a copy that was interrupted leaves it."""
    image = place.images.image.result()
    path = place.folder / "truncated.sif"
    with image.open("rb") as whole, path.open("wb") as part:
        os.sendfile(part.fileno(), whole.fileno(), 0, image.stat().st_size * 9 // 10)
    return ("--container", str(path)), "image", "the image is not whole"


def no_bind(place):
    file = place.site("bind.yaml", (f'"{place.folder}/node/flash:/flash"', f'"{place.folder}/gone:/flash"'))
    return ("--site", str(file)), "binds", f"there is no {place.folder}/gone on this node"


def wrong_torch(place):
    """The image says no more that it stands in for LUMI's, so its torch must be for GPUs."""
    labels = place.folder / "labels.json"
    labels.write_text(json.dumps({"org.opencontainers.image.title": "p2p_dist"}))
    bind = f'"{place.folder}/node/flash:/flash"'
    file = place.site("torch.yaml", (bind, f'{bind}, "{labels}:/.singularity.d/labels.json"'))
    return ("--site", str(file)), "torch", "for CPUs only, and the site's nodes have 8 GPUs each"


def read_only_cache(place):
    _, file = environment(place, "export MIOPEN_USER_DB_PATH=/opt/venv")
    return ("--site", str(file)), "caches", "Read-only file system: /opt/venv"


def host_python(place):
    """What `module load cray-python` does."""
    _, file = environment(place, 'export PYTHONPATH="/opt/cray/python/site-packages:$PYTHONPATH"')
    return ("--site", str(file)), "python path", "PYTHONPATH brings the host's /opt/cray/python/site-packages in"


@pytest.mark.parametrize("fault", [no_image, truncated, no_bind, wrong_torch, read_only_cache, host_python])
def test_what_is_wrong_is_named(fault, place, monkeypatch):
    options, name, said = fault(place)
    shown = check(place, monkeypatch, *place.options(), *options, code=1, runs=fault.__name__)
    found = table(shown)
    assert found[name][0] == "FAILED" and said in shown, shown
    assert [other for other, (state, _) in found.items() if state == "FAILED"] == [name], shown
    assert "Traceback" not in shown

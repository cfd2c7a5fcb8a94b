"""`launch/check.py preflight --cluster lumi` where all is well, and where each thing that goes wrong on clusters has."""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from standins import launch

from p2p_dist.jobs import site

TWO = ("--nodes", "2", "--processes-per-node", "1", "--partition", "small-g")


def table(shown):
    """check -> (state, what was found), of what was printed."""
    rows = [line.split(maxsplit=1) for line in shown.splitlines()]
    return {row[1].split("  ")[0]: (row[0], row[1]) for row in rows if len(row) == 2 and row[0] in ("ok", "FAILED", "-")}


LUMI = site.HPC / "env" / "lumi.sh"


def environment(place, *lines):
    """A site whose environment file ends in these lines."""
    path = place.folder / f"{abs(hash(lines))}.sh"
    path.write_text("\n".join([LUMI.read_text(), *lines, ""]))
    return path.name, place.site(f"{path.stem}.yaml", ("environment: env/lumi.sh", f"environment: {path}"))


def no_image(place):
    return ("--container", str(place.folder / "nowhere.sif")), "image", "does not exist"


def truncated(place):
    """All but the last tenth, as a copy that was interrupted leaves it."""
    image = place.images.image.result()
    path = place.folder / "truncated.sif"
    with image.open("rb") as whole, path.open("wb") as part:
        os.sendfile(part.fileno(), whole.fileno(), 0, image.stat().st_size * 9 // 10)
    return ("--container", str(path)), "image", "the image is incomplete"


def no_bind(place):
    file = place.site("bind.yaml", (f'"{place.folder}/node/flash:/flash"', f'"{place.folder}/gone:/flash"'))
    return ("--site", str(file)), "binds", f"{place.folder}/gone does not exist on this node"


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
    return ("--site", str(file)), "python path", "PYTHONPATH adds the host's /opt/cray/python/site-packages in"


FAULTS = (no_image, truncated, no_bind, wrong_torch, read_only_cache, host_python)


@pytest.fixture(scope="module")
def asked(place):
    """All questions, some at once: name -> what was printed, once it is there."""

    def ask(name, *options, code=1, **environment):
        environment = {**os.environ, "P2P_RUNS": str(place.folder / name / "runs"), **environment}
        return launch("check", "preflight", *TWO, *place.options(), *options, code=code, env=environment)

    # A Python path of the caller's shell does not get in.
    leaks = {
        "PYTHONPATH": "/of/the/host",
        "SINGULARITYENV_PYTHONPATH": "/of/the/host",
        "APPTAINERENV_PYTHONPATH": "/of/the/host",
    }
    with ThreadPoolExecutor(3) as pool:
        answers = {"well": pool.submit(ask, "well", code=0, **leaks)}
        yield answers | {fault.__name__: pool.submit(ask, fault.__name__, *fault(place)[0]) for fault in FAULTS}


def test_all_is_well(asked):
    shown = asked["well"].result()
    found = table(shown)
    assert {name: state for name, (state, _) in found.items() if state != "ok"} == {"devices": "-", "network": "-"}, shown
    assert "2 processes on cpu: 16 MB in" in found["all-reduce"][1]
    assert re.search(r"USR2 reaches Python \([12] times", found["signals"][1]), shown
    assert "/code" in found["python path"][1] and "miopen" in found["caches"][1]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_named(fault, place, asked):
    _, name, said = fault(place)
    shown = asked[fault.__name__].result()
    found = table(shown)
    assert found[name][0] == "FAILED" and said in shown, shown
    assert [other for other, (state, _) in found.items() if state == "FAILED"] == [name], shown
    assert "Traceback" not in shown

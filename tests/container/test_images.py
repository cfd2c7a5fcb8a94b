"""The image and the overlay as the scripts build them."""

import json
import shutil
import subprocess

from standins import CHECKOUT, call

from p2p_dist import __version__


def versions(image, *options):
    """Packages of the Python inside, name -> version, as pip tells."""
    listed = call("singularity", "exec", *options, str(image), "python", "-m", "pip", "list", "--format", "json")
    return {one["name"].lower(): one["version"] for one in json.loads(listed.splitlines()[-1])}


def test_the_image_has_what_the_base_had_and_what_jobs_need(place):
    base, image = place.images.base.result(), place.images.image.result()
    before, after = versions(base), versions(image)
    assert "torch" in before and before.items() <= after.items(), "nothing of the base is another now"
    assert not {"webdataset", "av", "submitit"} & before.keys() and {"webdataset", "av", "submitit"} <= after.keys()
    said = place.images.said["image"]
    for line in (
        "torch: torch 2",
        f"versions: p2p_dist {__version__}, submitit",
        "sound: AAC and FLAC",
        "step: one update of both networks",
    ):
        assert line in said, said
    labels = json.loads(call("singularity", "inspect", "--json", "--labels", str(image)))["data"]["attributes"]["labels"]
    known = {name.rsplit(".", 1)[-1]: value for name, value in labels.items() if name.startswith("org.opencontainers.image")}
    assert known["version"] == __version__ and known["digest"] == f"sha256:{call('sha256sum', str(base)).split()[0]}"
    commit = call("git", "rev-parse", "HEAD").strip()
    assert known["revision"].removesuffix("-dirty") == commit


def test_an_image_without_rocm_fails_its_test(place):
    """The same image, once it no longer says that it only stands in for LUMI's."""
    labels = place.folder / "no-labels.json"
    labels.write_text("{}")
    inside = ("python", "/opt/p2p_dist/check.py", "--version", "0.0.0")
    bind = f"{labels}:/.singularity.d/labels.json"
    said = call("singularity", "exec", "--bind", bind, str(place.images.image.result()), *inside, code=1)
    assert "torch: FAILED: ValueError: torch 2" in said and "is not built for ROCm" in said
    assert f"versions: FAILED: ValueError: p2p_dist {__version__} is here, 0.0.0 there" in said and "sound: AAC" in said


def test_a_base_that_is_not_there_leaves_nothing(place):
    said = call("containers/build.sh", str(place.folder / "none.sif"), "/appl/nowhere.sif", code=2)
    assert "no base image /appl/nowhere.sif" in said and not list(place.folder.glob("none*"))
    text = (CHECKOUT / "containers" / "p2p_dist.def").read_text()
    assert "    BASE=/appl/local/laifs/containers/lumi-multitorch-" in text, "LUMI's is the default"


def test_without_singularity_that_is_said(tmp_path):
    for program in ("bash", "dirname"):
        (tmp_path / program).symlink_to(shutil.which(program))
    for script in ("build.sh", "build_overlay.sh"):
        said = call("bash", f"containers/{script}", str(tmp_path / "new"), "base", code=2, env={"PATH": str(tmp_path)})
        assert said == "error: the command singularity was not found, see containers/README.md\n"


def test_a_folder_as_base_is_found_from_where_the_script_was_called(place):
    """An empty one, which Singularity refuses: what it is told is the folder's whole path."""
    (place.folder / "empty base").mkdir()
    command = ["bash", str(CHECKOUT / "containers" / "build.sh"), "from-folder.sif", "empty base"]
    done = subprocess.run(command, cwd=place.folder, capture_output=True, text=True, timeout=300)
    assert done.returncode and "no base image" not in done.stderr, done.stderr
    assert not list(place.folder.glob("from-folder*"))


def test_the_overlay_brings_the_rest_to_the_unchanged_base(place):
    base, overlay = place.images.base.result(), place.images.overlay.result()
    before = versions(base)
    options = ("--bind", f"{overlay}:/user-software:image-src=/", "--env", "PREPEND_PATH=/user-software/bin")
    after = versions(base, *options)
    assert before.items() <= after.items() and "webdataset" in after
    assert overlay.stat().st_size < base.stat().st_size, "torch is not in it a second time"
    assert "step: one update of both networks" in place.images.said["overlay"]

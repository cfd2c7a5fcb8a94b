"""Images, built by the real scripts from what this machine has, and a site like LUMI that uses them."""

import os
import subprocess
import sys
from pathlib import Path

from lab import ACCOUNT

from p2p_dist.jobs import site

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
QUICK = ("--mksquashfs-args", "-comp lz4")
TRAINING = (
    "--preset",
    "tiny",
    "--train.steps",
    "110",
    "--train.keep-every",
    "100",
    "--nodes",
    "2",
    "--processes-per-node",
    "1",
)


def call(*command, code=0, **options):
    """Run a command from the checkout; its output. An unexpected exit code shows it."""
    done = subprocess.run(
        command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900, **options
    )
    assert done.returncode == code, f"{command}: exit code {done.returncode}\n{done.stdout}"
    return done.stdout


def launch(command, *arguments, code=0, **options):
    """Type a command of launch/."""
    return call(sys.executable, f"launch/{command}.py", *arguments, code=code, **options)


class Images:
    """What is built: base, image, overlay; each awaited where it is first used. said: what building each printed."""

    def __init__(self, folder, pool):
        self.folder, self.said = folder, {}
        self.wheels = pool.submit(self._wheels)
        self.base = pool.submit(self._base)
        self.image = pool.submit(self._image)
        self.overlay = pool.submit(self._overlay)

    def _wheels(self):
        """What pip fetches inside a container on LUMI is fetched here, where it may be known already."""
        import tomllib

        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
        more = project["optional-dependencies"]
        needed = [*project["dependencies"], *more["run"], *more["tensorboard"]]
        needed = [name for name in needed if not name.startswith("torch>")]
        wheels = self.folder / "wheels"
        call(sys.executable, "-m", "pip", "wheel", "--quiet", "-w", str(wheels), "-c", "constraints.txt", *needed)
        return wheels

    def _base(self):
        call(sys.executable, str(HERE / "standin.py"), str(self.folder / "root"))
        path = self.folder / "base.sif"
        self.said["base"] = call(
            "singularity", "build", *QUICK, "--build-arg", f"ROOT={self.folder / 'root'}", str(path), str(HERE / "standin.def")
        )
        return path

    def _pip(self):
        """Options that have pip inside look for packages in the folder of wheels only."""
        os.environ |= {"SINGULARITYENV_PIP_NO_INDEX": "1", "SINGULARITYENV_PIP_FIND_LINKS": "/mnt"}
        return "--bind", f"{self.wheels.result()}:/mnt:ro"

    def _image(self):
        path = self.folder / "p2p_dist.sif"
        self.said["image"] = call("containers/build.sh", str(path), str(self.base.result()), *self._pip(), *QUICK)
        return path

    def _overlay(self):
        path = self.folder / "p2p_dist.sqsh"
        self.said["overlay"] = call("containers/build_overlay.sh", str(self.base.result()), str(path), *self._pip())
        return path


class Place:
    """A site like LUMI on this machine: its file, and the options of a launch there."""

    def __init__(self, folder, images):
        self.folder, self.images = folder, images
        self.file = self.site("lumi.yaml", ("evaluate_processes: 4", "evaluate_processes: 2"))  # of 2 cores

    def site(self, name, *changes):
        """A copy of hpc/sites/lumi.yaml in which what LUMI's nodes bind lies in a folder of its own."""
        lumi = (site.HPC / "sites" / "lumi.yaml").read_text()
        binds = site.load_site("lumi").container_binds
        for bind in binds:
            (self.folder / "node" / bind[1:]).mkdir(parents=True, exist_ok=True)
        ours = ", ".join(f'"{self.folder}/node{bind}:{bind}"' for bind in binds)
        lumi = lumi.replace(f"[{', '.join(binds)}]", f"[{ours}]")
        assert ours in lumi
        for old, new in changes:
            assert old in lumi
            lumi = lumi.replace(old, new)
        path = self.folder / name
        path.write_text(lumi)
        return path

    def options(self, file=None, image=None):
        """Of launch/submit.py and launch/check.py alike."""
        image = image or self.images.image.result()
        return ("--cluster", "lumi", "--account", ACCOUNT, "--site", str(file or self.file), "--container", str(image))

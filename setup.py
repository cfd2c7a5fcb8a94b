"""What pyproject.toml can't say: a wheel has the folder hpc/ inside the package, where snapshot.batch_scripts looks for it."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithBatchScripts(build_py):
    """build_py, and hpc/ as p2p_dist/hpc; an editable installation finds it in the checkout."""

    def run(self):
        super().run()
        if not self.editable_mode:
            shutil.copytree("hpc", Path(self.build_lib, "p2p_dist", "hpc"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithBatchScripts})

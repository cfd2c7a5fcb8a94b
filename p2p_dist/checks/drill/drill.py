"""The drill: stop small trainings in every supported way and compare each with one that was not stopped."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from p2p_dist.checks.drill import here, on_slurm
from p2p_dist.checks.folder import check_folder
from p2p_dist.jobs import example_song, fits, packages, site
from p2p_dist.settings import config, presets

STEPS, STEPS_ON_A_CLUSTER = 60, 400  # more on a cluster: GPUs may be fast, and Slurm answers slowly


def drill(resources: config.Resources, processes: int, steps: int | None, songs: Path | None, patience: float) -> int:
    """Run the drill on this machine or on a cluster, see `resources`. Its files are in `drill` in the folder of runs.

    Args:
        processes: number of training processes on this machine. steps: steps of a training; None for the default.
        songs: a folder of songs; None for the example. patience: maximum seconds to wait for a cluster, in total.

    Returns:
        exit code: 0 all came back exactly, 1 some did not.

    Raises:
        ValueError: a number of processes that has not a pair each, a package that jobs need is missing, Slurm would
            refuse the jobs, or another drill is queued or running.
    """
    resources = dataclasses.replace(resources, cluster=site.resolve_cluster(resources.cluster))
    if resources.cluster == "local" and not 1 <= processes <= 4:
        raise ValueError(f"--processes {processes}: the drill's global batch has 4 pairs: use 1 to 4 processes")
    if resources.cluster == "local":
        packages.check_packages()
    example = example_song.example_folder() if songs is None else None
    songs = songs or example_song.example_folder()
    if example is None:
        fits.check_training_songs(songs, split_by_title=False)
    if resources.cluster == "local":
        settings = settings_of(songs, steps or STEPS, dataclasses.replace(resources, nodes=processes), 4)
        with check_folder("drill", example):
            return here.drill_here(settings, songs)
    place = site.load_site(resources.cluster, resources.site)
    world_size = resources.nodes * place.processes_per_node(resources)
    settings = settings_of(songs, steps or STEPS_ON_A_CLUSTER, resources, world_size)
    with check_folder("drill", example):
        return on_slurm.drill_on_slurm(settings, songs, place, patience)


def settings_of(songs: Path, steps: int, resources: config.Resources, world_size: int) -> config.Config:
    """Return the settings of a drill's trainings: small enough to take seconds."""
    tiny = presets.preset("tiny")
    batch = max(tiny.train.global_batch_size, world_size)
    return dataclasses.replace(
        tiny,
        resources=resources,
        data=dataclasses.replace(tiny.data, root=str(songs)),
        evaluate=dataclasses.replace(tiny.evaluate, allow_overlap=True),  # of the example, which has one song
        train=dataclasses.replace(tiny.train, steps=steps, keep_every=1000, global_batch_size=batch),
    )

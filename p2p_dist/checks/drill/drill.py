"""The drill: stop small trainings in every supported way and compare each with one that was not stopped."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from p2p_dist.checks.drill import here, on_slurm
from p2p_dist.checks.folder import check_folder
from p2p_dist.jobs import example_song, fits, packages, site
from p2p_dist.settings import config, presets

STEPS, STEPS_ON_A_CLUSTER = 60, 400  # where GPUs may be quick, and Slurm takes a moment to answer


def drill(resources: config.Resources, processes: int, steps: int | None, songs: Path | None, patience: float) -> int:
    """Run the drill on this machine or on a cluster, as `resources` say. Its files are in `drill` in the folder of runs.

    Args:
        processes: that train together on this machine. steps: of a training; None: as many as it takes.
        songs: a folder of songs; None: an example. patience: seconds to wait for a cluster, in all.

    Returns:
        exit code: 0 all came back exactly, 1 some did not.

    Raises:
        ValueError: a number of processes that can't share the batch, a package that jobs need is missing, Slurm would
            refuse the jobs, or another drill is queued or running.
    """
    resources = dataclasses.replace(resources, cluster=site.resolve_cluster(resources.cluster))
    if resources.cluster == "local" and processes not in (1, 2, 4):
        raise ValueError(f"--processes {processes}: must divide the drill's global batch of 4: use 1, 2 or 4")
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

#!/usr/bin/env bash
# Runs beside an evaluation that waits for checkpoints: creates the file no-training when no job trains the run any more, because
# processes in the container cannot call Slurm: watch_training.sh RUN
set -euo pipefail
while sleep "${P2P_WATCH_EVERY:-60}"; do
    bash "${0%/*}/is_training_queued.sh" "$1" || { touch "$1/slurm/evaluate/no-training" && exit; }
done

#!/usr/bin/env bash
# Beside an evaluation that waits for checkpoints: say so when no job trains the run any more, whatever ended it, because
# nothing inside the job may ask Slurm: watch_training.sh RUN
set -euo pipefail
while sleep "${P2P_WATCH_EVERY:-60}"; do
    bash "${0%/*}/is_training_queued.sh" "$1" || { touch "$1/slurm/evaluate/no-training" && exit; }
done

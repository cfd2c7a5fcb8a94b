#!/usr/bin/env bash
# Last line of a training's batch script, outside any container: requeue.sh RUN CODE LIMIT
# Decides by the outcome that this attempt wrote; by srun's exit code only where it wrote none, because srun returns the
# highest code of its ranks and so hides a failure behind a stop.
set -euo pipefail
run=$1 code=$2 limit=$3
attempt="$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}"

outcome=none
if grep -qsF "\"attempt\": \"$attempt\"" "$run/outcome.json"; then
    outcome=$(sed -n 's/.*"outcome": "\([a-z]*\)".*/\1/p' "$run/outcome.json")
fi

case $outcome in
done) exit 0 ;;
failed) exit 1 ;;
stopped)
    if ((${SLURM_RESTART_COUNT:-0} >= limit)); then
        echo "stopped in order, but queued again $limit times already: type the same launch command to go on"
        exit 75
    fi
    echo "stopped in order: queued again"
    scontrol requeue "$SLURM_JOB_ID"
    sleep 60 # the requeue kills this shell; leaving before it would let waiting jobs start
    ;;
*) exit "$code" ;;
esac

#!/usr/bin/env bash
# Queue this job again: again.sh STAGE RUN. Where Slurm refuses to requeue, a successor goes on in its place.
set -euo pipefail
stage=$1 run=$2 restart=${SLURM_RESTART_COUNT:-0}
read -r _ restarts _ _ _ used _ < <(bash "${0%/*}/counts.sh")
not_again() { echo "$stage stopped, but $1: type the same launch command to go on" && exit 75; }
[ ! -e "$run/slurm/cancelled" ] || not_again "was cancelled"
((restarts < ${P2P_MAX_REQUEUES:-10})) || not_again "was begun again $restarts times already (--max-requeues)"
((used < ${P2P_MAX_SECONDS:-999999999} * ${SLURM_JOB_NUM_NODES:-1})) || {
    echo "$stage stopped, and the run's GPU-hours are used: to go on, type the launch command with more --max-gpu-hours"
    exit 75
}

for pause in 1 2 4 8 15 30 60 60 0; do # three minutes for a controller that is away
    # Meanwhile another job may have begun this stage, or Slurm this job again: what goes on there must not be stopped.
    read -r owner _ < <(bash "${0%/*}/counts.sh")
    [ "$owner" = "$SLURM_JOB_ID.$restart" ] || { echo "superseded by $owner: leaving" && exit 75; }
    state=RUNNING begun=$restart # of an array, P2P_JOB is this part: its number alone may be that of all parts
    read -r state begun < <(squeue --noheader --job "$P2P_JOB" --Format=State:20,RestartCnt:20 2>/dev/null) || true
    [ "${begun:-$restart}" = "$restart" ] || { echo "$stage ended: Slurm itself has queued it again" && exit 75; }
    # A job that scancel ends would come back to life.
    [ "${state:-RUNNING}" = RUNNING ] || not_again "is $state"
    if said=$(scontrol requeue "$P2P_JOB" 2>&1); then
        echo "$stage stopped: queued again"
        sleep 120 # the requeue kills this shell; leaving before it would let waiting jobs start
        exit 75
    fi
    echo "$said"
    case $said in
    *"pending execution"*) exit 75 ;; # queued again just now, by Slurm itself or by hand
    *contact* | *onnect* | *"imed out"* | *"Zero Bytes"*) sleep "$pause" ;;
    *) break ;;
    esac
done
[ -z "${SLURM_ARRAY_TASK_ID:-}" ] || not_again "Slurm does not requeue this part of an array"
exec bash "${0%/*}/successor.sh" "$stage" "$run"

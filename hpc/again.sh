#!/usr/bin/env bash
# Queue this job again: again.sh STAGE RUN. Where Slurm refuses to requeue, a successor goes on in its place.
set -euo pipefail
stage=$1 run=$2 log=$P2P_ATTEMPTS job=$SLURM_JOB_ID
restarts=$(awk '$1 == "launch" {n = 0} $1 == "start" {n++} END {print n - 1}' "$log")
used=$(awk '$1 == "launch" {s = 0} $1 == "start" {b = $4} $1 == "end" {s += $4 - b} END {print s + 0}' "$log")
not_again() { echo "$stage stopped, but $1: type the same launch command to go on" && exit 75; }
[ ! -e "$run/slurm/cancelled" ] || not_again "was cancelled"
((restarts < ${P2P_MAX_REQUEUES:-10})) || not_again "was begun again $restarts times already (--max-requeues)"
((used < ${P2P_MAX_SECONDS:-999999999})) || not_again "its GPU-hours are used (--max-gpu-hours)"

for pause in 1 2 4 8 15 30 60 60 0; do # three minutes for a controller that is away
    # A job that scancel ends would come back to life.
    state=$(squeue --noheader --job "$job" --format=%T 2>/dev/null || true)
    [ "$state" != PENDING ] || { echo "$stage ended: Slurm itself has queued it again" && exit 75; }
    [[ ${state:-RUNNING} == RUNNING ]] || not_again "is $state"
    if said=$(scontrol requeue "$job" 2>&1); then
        echo "$stage stopped: queued again"
        sleep 120 # the requeue kills this shell; leaving before it would let waiting jobs start
        exit 75
    fi
    echo "$said"
    case $said in *contact* | *onnect* | *"imed out"* | *"Zero Bytes"*) sleep "$pause" ;; *) break ;; esac
done
[ -z "${SLURM_ARRAY_TASK_ID:-}" ] || not_again "Slurm does not requeue this part of an array"
scontrol write batch_script "$job" "$run/slurm/$stage/$job.sh" >/dev/null || not_again "Slurm can't be asked"
options=("--dependency=afterany:$job" "--nodes=$SLURM_JOB_NUM_NODES" "--partition=$SLURM_JOB_PARTITION")
for name in $(compgen -e | grep -E '^(SLURM|SRUN|SBATCH)_'); do # what this job was given is not for the next
    [ "$name" = SLURM_CONF ] || unset "$name"
done
next=$(sbatch --parsable "${options[@]}" "$run/slurm/$stage/$job.sh" "$run") || not_again "Slurm takes no further job"
echo "successor $next" >>"$log"
# Jobs that wait for this one to end well would wait for ever.
squeue --me --noheader --format='%i %E' | { grep -wF "afterok:$job" || true; } | while read -r waiting _; do
    scontrol update "jobid=$waiting" "dependency=afterok:$next"
done
echo "$stage stopped; it can't be requeued here: job $next goes on in its place"
exit 75

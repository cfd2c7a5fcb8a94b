#!/usr/bin/env bash
# Last thing in a job, outside any container: requeue.sh STAGE RUN CODE. Decides by the outcome that this attempt wrote; by
# srun's exit code only where it wrote none, because srun returns the highest code of its tasks and so hides a failure
# behind a stop.
set -euo pipefail
stage=$1 run=$2 code=$3 log=$P2P_ATTEMPTS
attempt=$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}
# Where Slurm lost sight of this node, the job runs on elsewhere: to requeue it now would stop what goes on there.
owner=$(awk '$1 == "start" {last = $2} END {print last}' "$log")
[ "$owner" = "$attempt" ] || { echo "attempt $attempt was superseded by $owner: leaving without a trace" && exit 75; }
outcome=none file=$run/outcome-$stage${SLURM_ARRAY_TASK_ID:+.$SLURM_ARRAY_TASK_ID}.json
if [ "$stage" = train ]; then file=$run/outcome.json; fi
if grep -qsF "\"attempt\": \"$attempt\"" "$file"; then
    outcome=$(sed -n 's/.*"outcome": "\([a-z]*\)".*/\1/p' "$file")
    # Tasks that share a stage end each for itself: one may be done when another is asked to stop.
    if [[ $stage != train && $outcome == "done" && $code == 75 ]]; then outcome=stopped; fi
else
    case $code in
    0) outcome=killed ;; # srun's answer to a lost node; whoever was done has written so
    75 | 140 | 143) outcome=stopped ;; # 140, 143: asked (USR2, TERM) before it could listen
    1 | 2 | 130) outcome=failed ;;
    *) outcome=crash ;;
    esac
fi
read -r progress saved < <(bash "${0%/*}/progress.sh" "$stage" "$run")
echo "end $attempt $progress $(date +%s) $code $outcome $saved" >>"$log"
case $outcome in
done)
    if [ "$stage" = train ]; then exit 0; fi # its ranks agreed; tasks that share a stage end each for itself
    exit "$code"
    ;;
failed) exit 1 ;;
crash)
    read -r crashes began < <(awk '$1 == "launch" {n = 0} $6 == "crash" {n++} $1 == "start" {b = $3} END {print n, b}' "$log")
    # 255 before anything was done is a container that did not start: worth one more try.
    if ((crashes > ${P2P_MAX_CRASH_RESTARTS:-3})) || ((progress <= began && !(code == 255 && progress == 0 && crashes == 1))); then
        echo "$stage crashed with exit code $code: not begun again ($crashes crashes, progress from $began to $progress)"
        exit "$code"
    fi
    ;;
esac
exec bash "${0%/*}/again.sh" "$stage" "$run"

#!/usr/bin/env bash
# Last thing in a job, outside any container: requeue.sh STAGE RUN CODE. Decides by the outcome that this attempt wrote; by
# srun's exit code only where it wrote none, because srun returns the highest code of its tasks and so hides a failure
# behind a stop.
set -euo pipefail
stage=$1 run=$2 code=$3
attempt=$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}
read -r owner _ _ crashes began _ < <(bash "${0%/*}/counts.sh")
# Where Slurm lost sight of this node, the job runs on elsewhere: to requeue it now would stop what goes on there.
[ "$owner" = "$attempt" ] || { echo "attempt $attempt was superseded by $owner: leaving without a trace" && exit 75; }
read -r progress saved < <(bash "${0%/*}/progress.sh" "$stage" "$run")
outcome=none file=$run/outcome-$stage${SLURM_ARRAY_TASK_ID:+.$SLURM_ARRAY_TASK_ID}.json
if [ "$stage" = train ]; then file=$run/outcome.json; fi
if grep -qsF "\"attempt\": \"$attempt\"" "$file"; then
    outcome=$(sed -n 's/.*"outcome": "\([a-z]*\)".*/\1/p' "$file")
    # Tasks that share a stage end each for itself: one may be done when another is asked to stop.
    if [[ $stage != train && $outcome == "done" && $code == 75 ]]; then outcome=stopped; fi
else
    case $code in
    0) outcome=killed ;; # srun's answer to a lost node; whoever was done has written so
    75 | 140) outcome=stopped ;; # 140, 143: asked (USR2, TERM) before it could listen
    # What came further did listen, and would have said that it stopped: it was ended for another reason.
    143) if ((progress > began)); then outcome=crash; else outcome=stopped; fi ;;
    1 | 2 | 130) outcome=failed ;;
    *) outcome=crash ;;
    esac
fi
echo "end $attempt $progress $(date +%s) $code $outcome $saved" >>"$P2P_ATTEMPTS"
case $outcome in
done)
    if [ "$stage" = train ]; then exit 0; fi # its ranks agreed; tasks that share a stage end each for itself
    exit "$code"
    ;;
failed) exit 1 ;;
crash)
    crashes=$((crashes + 1))
    # 255 before anything was done is a container that did not start: worth one more try.
    once_more=$((code == 255 && progress == 0 && crashes == 1))
    if ((crashes > ${P2P_MAX_CRASH_RESTARTS:-3} || (progress <= began && !once_more))); then
        echo "$stage crashed with exit code $code: not begun again ($crashes crashes, progress from $began to $progress)"
        exit "$code"
    fi
    ;;
esac
exec bash "${0%/*}/again.sh" "$stage" "$run"

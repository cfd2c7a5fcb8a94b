#!/usr/bin/env bash
# Last thing in a job, outside any container: requeue.sh STAGE RUN CODE. Decides by the outcome that this attempt wrote; by
# srun's exit code only where it wrote none, because srun returns the highest code of its tasks and so hides a failure
# behind a stop. Job.sh reads it into its own shell.
set -euo pipefail
stage=$1 run=$2 code=$3 here=${BASH_SOURCE[0]%/*}
# shellcheck source=hpc/slurm.sh
. "$here/slurm.sh"
attempt=${P2P_ATTEMPT:-$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}}
file=$run/outcome-$stage${SLURM_ARRAY_TASK_ID:+.$SLURM_ARRAY_TASK_ID}.json
if [ "$stage" = train ]; then file=$run/outcome.json; fi
told() { grep -qsF "\"attempt\": \"$attempt\"" "$file"; }
# srun itself may be killed, or lose the controller, and its tasks live on: what comes of them is known when they have ended.
if ((code >= 128)) || ! told; then
    while await_controller && squeue --noheader --steps --job "$P2P_JOB" --format=%i 2>/dev/null | grep -qE '\.[0-9]+$'; do
        sleep 2
    done
fi
read -r owner _ _ crashes began _ < <(bash "$here/counts.sh")
# Where Slurm lost sight of this node, the job runs on elsewhere: to requeue it now would stop what goes on there.
[ "$owner" = "$attempt" ] || { echo "attempt $attempt was superseded by $owner: this process exits without writing" && exit 75; }
read -r progress saved < <(bash "$here/progress.sh" "$stage" "$run")
if told; then
    outcome=$(sed -n 's/.*"outcome": "\([a-z]*\)".*/\1/p' "$file")
    # Tasks that share a stage end each for itself: one may be done when another is asked to stop, or killed.
    if [[ $stage != train && $outcome == "done" ]]; then
        case $code in 75) outcome=stopped ;; 137) outcome=killed ;; esac
    fi
else
    case $code in
    0) outcome=killed ;; # srun's answer to a lost node; whoever was done has written so
    75 | 138 | 140) outcome=stopped ;; # 138, 140, 143: asked (USR1, USR2, TERM) before it could listen
    # What came further did listen, and would have said that it stopped: it was ended for another reason.
    143) if ((progress > began)); then outcome=crash; else outcome=stopped; fi ;;
    # Killed from outside: the program never does that to itself. Memory that runs out comes as 253 where Slurm confines it.
    137) if [ -n "${P2P_OUT_OF_MEMORY:-}" ]; then outcome=crash; else outcome=killed; fi ;;
    1 | 2 | 130) outcome=failed ;;
    *) outcome=crash ;;
    esac
fi
note "end $attempt $progress $(date +%s) $code $outcome $saved" || true
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
# shellcheck source=hpc/again.sh
. "$here/again.sh" "$stage" "$run"

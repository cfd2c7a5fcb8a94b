#!/usr/bin/env bash
# First thing in a job: begin.sh STAGE RUN. Counts starts and progress here, from a file, because a job
# that is preempted, requeued from outside or lost with its node never reaches its last line. One line each, in $P2P_ATTEMPTS:
#   launch JOB | successor JOB
#   start ATTEMPT PROGRESS SECONDS NODES [beside]   beside: an evaluation that begins while its training is queued or runs
#   end ATTEMPT PROGRESS SECONDS CODE WHY SAVED     SAVED: when PROGRESS was reached; WHY killed: not by the run's own doing
# The newest start owns the run: processes of an older one end before they change anything (rundir.check_still_ours).
# Exit code 10: the training is done, there is nothing to start.
set -euo pipefail
trap '' USR1 USR2 TERM # a request to stop is for job.sh, which hears it too: what is begun here is written down whole
stage=$1 run=$2 log=$P2P_ATTEMPTS here=${BASH_SOURCE[0]%/*}
# shellcheck source=hpc/slurm.sh
. "$here/slurm.sh"
attempt=${P2P_ATTEMPT:-$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}}
mkdir -p "${log%/*}"
touch "$log"

# A person's new launch starts the counts anew; a requeued job and a successor go on with them. The record tells, too: a
# controller that was killed may have lost count.
launched=""
if [ "${SLURM_RESTART_COUNT:-0}" = 0 ] && ! grep -qx "successor $SLURM_JOB_ID" "$log"; then
    if [ -n "${P2P_SUCCESSOR_OF:-}" ]; then
        note "successor $SLURM_JOB_ID" # whatever sbatch said to the job before it
    else
        grep -qx "launch $SLURM_JOB_ID" "$log" || launched=yes
        asked=$(squeue --noheader --job "$P2P_JOB" --format=%V 2>/dev/null || true)
        asked=$(date --date="${asked:-1970-01-01}" +%s 2>/dev/null || echo 0)
        # The launcher does so itself; a template that was queued after the run was cancelled is a new launch, too.
        cancelled=$(stat -c %Y "$run/slurm/cancelled" 2>/dev/null || echo 0)
        ((cancelled == 0 || asked < cancelled)) || { rm -f "$run/slurm/cancelled" && launched=yes; }
        [ -z "$launched" ] || note "launch $SLURM_JOB_ID"
    fi
fi
read -r progress saved < <(bash "$here/progress.sh" "$stage" "$run")
finished="" # what the training said last, and saved
if [ "$stage" = train ] && grep -qsF '"outcome": "done"' "$run/outcome.json"; then
    step=$(sed -n 's/.*"step": \([0-9]*\).*/\1/p' "$run/outcome.json")
    [ ! -d "$run/checkpoints/$(printf 'step-%08d' "$((10#${step:-0}))")" ] || finished=$(<"$run/outcome.json")
fi
case $stage in
train) [ -n "$finished" ] || rm -f "$run/outcome.json" ;; # of an earlier attempt: what waits for the end would take it for this
evaluate) rm -f "$run/slurm/evaluate/no-training" ;;
esac
read -r _ _ _ _ _ _ open at < <(bash "$here/counts.sh")
if [ "$open" != - ]; then # killed before its last line; status.json tells how long it lived
    seen=$(stat -c %Y "$run/status.json" 2>/dev/null || echo 0) how="- killed"
    [[ $finished != *"\"attempt\": \"$open\""* ]] || how="0 done"
    note "end $open $progress $((seen > at ? seen : at)) $how $saved"
fi
beside=""
[ "$stage ${P2P_EVALUATE:-}" != "evaluate during" ] || ! bash "$here/training.sh" "$run" || beside=" beside"
note "start $attempt $progress $(date +%s) ${SLURM_JOB_NUM_NODES:-1}$beside"

read -r _ restarts same _ _ used _ < <(bash "$here/counts.sh")
refuse() {
    note "end $attempt $progress $(date +%s) $1 $2 $saved" || true
    echo "$3"
    exit "$1"
}
# Slurm itself begins a job again whose node was lost, or that somebody requeued, just as it had come to its end.
if [ -n "$finished" ]; then
    if [ -z "$launched" ]; then note "end $attempt $progress $(date +%s) 0 done $saved" && echo "train: done already" && exit 10; fi
    rm -f "$run/outcome.json"
fi
[ ! -e "$run/slurm/cancelled" ] || refuse 75 stopped "$stage was cancelled: type the same launch command to go on"
place="from the same place ($stage: $progress) without progress"
((same < 3)) || refuse 1 failed "begun $((same + 1)) times $place: not begun again; look into the logs beside $log"
again="begun again $((restarts - 1)) times already (--max-requeues)"
((restarts <= ${P2P_MAX_REQUEUES:-10})) || refuse 1 failed "$again: type the same launch command to go on"
((used < ${P2P_MAX_SECONDS:-999999999} * ${SLURM_JOB_NUM_NODES:-1})) ||
    refuse 75 stopped "the run's GPU-hours are used: to go on, type the launch command with more --max-gpu-hours"

#!/usr/bin/env bash
# First thing in a job: begin.sh STAGE RUN. Counts starts and progress here, from a file, because a job
# that is preempted, requeued from outside or lost with its node never reaches its last line. One line each, in $P2P_ATTEMPTS:
#   launch JOB | successor JOB
#   start ATTEMPT PROGRESS SECONDS NODES [beside]   beside: an evaluation that begins while its training is queued or runs
#   end ATTEMPT PROGRESS SECONDS CODE WHY SAVED     SAVED: when PROGRESS was reached
# The newest start owns the run: processes of an older one end before they change anything (rundir.check_still_ours).
set -euo pipefail
stage=$1 run=$2 log=$P2P_ATTEMPTS
attempt=$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}
mkdir -p "${log%/*}"
touch "$log"
case $stage in
train) rm -f "$run/outcome.json" ;; # of an earlier attempt: an evaluation beside this one would think that it has ended
evaluate) rm -f "$run/slurm/evaluate/no-training" ;;
esac

# A person's new launch starts the counts anew; a requeued job and a successor go on with them.
if [ "${SLURM_RESTART_COUNT:-0}" = 0 ] && ! grep -qx "successor $SLURM_JOB_ID" "$log"; then
    echo "launch $SLURM_JOB_ID" >>"$log"
    asked=$(squeue --noheader --job "$P2P_JOB" --format=%V 2>/dev/null || true)
    asked=$(date --date="${asked:-1970-01-01}" +%s 2>/dev/null || echo 0)
    # The launcher does so itself; a template that was queued after the run was cancelled is a new launch, too.
    ((asked < $(stat -c %Y "$run/slurm/cancelled" 2>/dev/null || echo 0))) || rm -f "$run/slurm/cancelled"
fi
read -r progress saved < <(bash "${0%/*}/progress.sh" "$stage" "$run")
read -r _ _ _ _ _ _ open at < <(bash "${0%/*}/counts.sh")
if [ "$open" != - ]; then # killed before its last line; status.json tells how long it lived
    seen=$(stat -c %Y "$run/status.json" 2>/dev/null || echo 0)
    echo "end $open $progress $((seen > at ? seen : at)) - killed $saved" >>"$log"
fi
beside=""
[ "$stage ${P2P_EVALUATE:-}" != "evaluate during" ] || ! bash "${0%/*}/training.sh" "$run" || beside=" beside"
echo "start $attempt $progress $(date +%s) ${SLURM_JOB_NUM_NODES:-1}$beside" >>"$log"

read -r _ restarts same _ _ used _ < <(bash "${0%/*}/counts.sh")
refuse() {
    echo "end $attempt $progress $(date +%s) $1 $2 $saved" >>"$log"
    echo "$3"
    exit "$1"
}
[ ! -e "$run/slurm/cancelled" ] || refuse 75 stopped "$stage was cancelled: type the same launch command to go on"
place="from the same place ($stage: $progress) without progress"
((same < 3)) || refuse 1 failed "begun $((same + 1)) times $place: not begun again; look into the logs beside $log"
again="begun again $((restarts - 1)) times already (--max-requeues)"
((restarts <= ${P2P_MAX_REQUEUES:-10})) || refuse 1 failed "$again: type the same launch command to go on"
((used < ${P2P_MAX_SECONDS:-999999999} * ${SLURM_JOB_NUM_NODES:-1})) ||
    refuse 75 stopped "the run's GPU-hours are used: to go on, type the launch command with more --max-gpu-hours"

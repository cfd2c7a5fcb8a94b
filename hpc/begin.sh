#!/usr/bin/env bash
# First thing in a job: begin.sh STAGE RUN. Counts starts and progress here, from a file, because a job that is preempted,
# requeued from outside or lost with its node never reaches its last line. One line each, in $P2P_ATTEMPTS:
#   launch JOB | successor JOB
#   start ATTEMPT PROGRESS SECONDS NODES
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
fi
read -r progress saved < <(bash "${0%/*}/progress.sh" "$stage" "$run")
open=$(awk '$1 == "start" {open = $2; at = $4} $1 == "end" && $2 == open {open = ""} END {if (open) print open, at}' "$log")
if [ -n "$open" ]; then # killed before its last line; status.json tells how long it lived
    read -r before at <<<"$open"
    seen=$(stat -c %Y "$run/status.json" 2>/dev/null || echo 0)
    echo "end $before $progress $((seen > at ? seen : at)) - killed $saved" >>"$log"
fi
echo "start $attempt $progress $(date +%s) ${SLURM_JOB_NUM_NODES:-1}" >>"$log"

read -r restarts same < <(awk '$1 == "launch" {n = same = 0; last = ""}
    $1 == "start" {n++; same = $3 == last ? same + 1 : 0; last = $3} END {print n - 1, same}' "$log")
if ((same >= 3)); then
    echo "begun $((same + 1)) times from the same place ($stage: $progress) without progress: not begun again; look into the logs beside $log"
    exit 1
elif ((restarts > ${P2P_MAX_REQUEUES:-10})); then
    echo "begun again $((restarts - 1)) times already (--max-requeues): type the same launch command to go on"
    exit 1
fi

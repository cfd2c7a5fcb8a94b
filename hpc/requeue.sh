#!/usr/bin/env bash
# Requeue this job: requeue.sh STAGE RUN. If Slurm refuses, submit a successor job instead.
set -euo pipefail
stage=$1 run=$2 here=${BASH_SOURCE[0]%/*}
# shellcheck source=hpc/slurm.sh
. "$here/slurm.sh"
attempt=${P2P_ATTEMPT:-$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}} restart=${SLURM_RESTART_COUNT:-0}
not_requeued() { echo "$stage stopped, but $1: run the same launch command again to resume" && exit 75; }

for pause in 1 2 4 8 15 30 $(yes 60 | head -n 30) 0; do # wait up to half an hour for an unavailable controller
    # Meanwhile another job may have started this stage, or Slurm may have restarted this job; it must not be stopped.
    owner=$(batch owner) || owner=$attempt # it can't be read now
    [ "$owner" = "$attempt" ] || { echo "attempt $attempt was superseded by $owner: exiting without writing" && exit 75; }
    state="" begun=$restart reason="" # in an array, P2P_JOB is this task
    read -r state begun reason < <(squeue --noheader --job "$P2P_JOB" --Format=State:20,RestartCnt:20,Reason:40 2>/dev/null) || true
    [ "${begun:-$restart}" = "$restart" ] || { echo "$stage ended: Slurm has already requeued it" && exit 75; }
    # A job that scancel ends must not be requeued; one that its time limit ends must be.
    case "${state:-RUNNING} ${reason:-}" in
    "RUNNING "* | *" TimeLimit"*) ;;
    *) not_requeued "is $state" ;;
    esac
    if said=$(scontrol requeue "$P2P_JOB" 2>&1); then
        echo "$stage stopped: requeued"
        trap - USR1 USR2 TERM
        sleep 120 || true # the requeue kills this shell; if it exited before, dependent jobs would start
        exit 75
    fi
    echo "$said"
    case $said in
    *"pending execution"*) exit 75 ;; # already requeued, by Slurm or by the user
    "" | *contact* | *onnect* | *"imed out"* | *"Zero Bytes"*) sleep "$pause" || true ;; # "": scontrol was killed
    *) break ;;
    esac
done
[[ $P2P_JOB != *_* ]] || not_requeued "Slurm does not requeue this task of the array"
# shellcheck source=hpc/submit_successor.sh
. "$here/submit_successor.sh" "$stage" "$run"

#!/usr/bin/env bash
# The batch part of every job, outside any container: job.sh STAGE RUN. Counts this start, runs one task a process, decides
# what comes next. The launcher's scripts and the templates beside this file both end in it. From its environment:
# P2P_PYTHON, P2P_CONTAINER (in_container.sh), P2P_CPU_MASKS, P2P_SRUN, P2P_RENDEZVOUS (rendezvous.sh), P2P_ENVIRONMENT,
# P2P_MAX_REQUEUES, P2P_MAX_CRASH_RESTARTS, P2P_MAX_SECONDS, all optional.
set -euo pipefail
stage=$1 run=$(realpath "$2")
here=$run/code/hpc
# shellcheck source=hpc/slurm.sh
. "$here/slurm.sh"
# shellcheck source=hpc/run_step.sh
. "$here/run_step.sh"
# shellcheck source=hpc/batch.sh
. "$here/batch.sh"
member=${SLURM_ARRAY_TASK_ID:-}
export P2P_ATTEMPTS="$run/slurm/$stage/attempts${member:+.$member}" P2P_BEGUN="$run/slurm/$stage/begun${member:+.$member}"
# Slurm takes the number of the last part of an array for all of them.
export P2P_JOB="${member:+${SLURM_ARRAY_JOB_ID}_}${member:-$SLURM_JOB_ID}"
# Not the number of restarts alone: a controller that was killed may give one twice.
P2P_ATTEMPT=$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}-$(od -An -N3 -tx1 /dev/urandom | tr -d ' ')
export P2P_ATTEMPT

export PYTHONPATH="$run/code" PYTHONUNBUFFERED=1
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}" # srun does not take it over from the job
MASTER_ADDR=$(bash "$here/rendezvous.sh" "${P2P_RENDEZVOUS:-name:}")
# Other for each start, so that late processes of an earlier one are not met; below the ports that the kernel gives out.
MASTER_PORT=$((20000 + (SLURM_JOB_ID * 11 + ${SLURM_RESTART_COUNT:-0}) % 12000))
export MASTER_ADDR MASTER_PORT

# Ranks that save must outlive the first that ends: no kill on a bad exit, but a minute's patience.
srun=(srun --unbuffered --kill-on-bad-exit=0 --wait=60 "--output=${run//%/%%}/slurm/$stage/%j_%t_log.out")
read -r -a flags <<<"${P2P_SRUN:-}" # the site's
srun+=(${flags[@]+"${flags[@]}"})
if [ -n "${P2P_CPU_MASKS:-}" ]; then
    srun+=("--cpu-bind=mask_cpu:$P2P_CPU_MASKS")
fi
# -P: the run's own copy of the code, not what lies in the folder that the job was queued from.
rank=(bash "$here/rank.sh" "${P2P_PYTHON:-python3}" -P -m p2p_dist.jobs.stage_process "$stage" "$run")

begun=0
bash "$here/note_start.sh" "$stage" "$run" || begun=$? # as late as it can be: a cancel before it is seen there, one after it by the tasks
((begun == 0)) || exit $((begun == 10 ? 0 : begun))
if [ "$stage" = evaluate ]; then
    export P2P_CLAIMS="${P2P_CLAIMS:-${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}" # a successor goes on with these
    batch free-claims "$run/evaluations/claims/$P2P_CLAIMS"
fi
if [ "$stage ${P2P_EVALUATE:-}" = "evaluate during" ]; then
    bash "$here/watch_training.sh" "$run" & watching=$!
fi

step "${srun[@]}" "${rank[@]}"
[ -z "${watching:-}" ] || kill "$watching" 2>/dev/null || true
# In this shell, which no request to stop reaches any more, nor what it calls: it stops, and must requeue itself.
trap '' USR1 USR2 TERM
# shellcheck source=hpc/decide_next.sh
. "$here/decide_next.sh" "$stage" "$run" "$code"

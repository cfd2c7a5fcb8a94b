#!/usr/bin/env bash
# The batch part of every job, outside any container: job.sh STAGE RUN [ELEMENT]. Records this start, runs one task per process, and
# decides what to do next. The launcher's scripts and the templates beside this file end with it. Optional environment variables:
# P2P_PYTHON, P2P_CONTAINER (in_container.sh), P2P_CPU_MASKS, P2P_SRUN, P2P_RENDEZVOUS (rendezvous.sh), P2P_ENVIRONMENT,
# P2P_MAX_REQUEUES, P2P_MAX_CRASH_RESTARTS, P2P_MAX_SECONDS, P2P_MAX_NODE_SECONDS, P2P_RATE, P2P_NODES.
set -euo pipefail
# In POSIX mode, which a user's environment may ask for, a child can be waited for only once (run_step.sh).
set +o posix
unset POSIXLY_CORRECT
unset P2P_OUT_OF_MEMORY # of the job that this one succeeds (run_step.sh)
stage=$1 run=$(realpath "$2") element=${3:-}
# ELEMENT, as 7_2: of an array with a job for each run of a sweep. It has its stage for itself, unlike the tasks that share one.
[ -z "$element" ] || unset "${!SLURM_ARRAY_@}"
here=$run/code/hpc
# shellcheck source=hpc/slurm.sh
. "$here/slurm.sh"
# shellcheck source=hpc/run_step.sh
. "$here/run_step.sh"
# shellcheck source=hpc/batch.sh
. "$here/batch.sh"
member=${SLURM_ARRAY_TASK_ID:-}
export P2P_ATTEMPTS="$run/slurm/$stage/attempts${member:+.$member}" P2P_BEGUN="$run/slurm/$stage/begun${member:+.$member}"
# In an array, the number of the last task alone would mean the whole array.
export P2P_JOB="${element:-${member:+${SLURM_ARRAY_JOB_ID}_}${member:-$SLURM_JOB_ID}}"
# With random digits, because a controller that was killed may use a number of restarts twice.
P2P_ATTEMPT=$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}-$(od -An -N3 -tx1 /dev/urandom | tr -d ' ')
export P2P_ATTEMPT

export PYTHONPATH="$run/code" PYTHONUNBUFFERED=1
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}" # srun does not inherit it from the job
MASTER_ADDR=$(bash "$here/rendezvous.sh" "${P2P_RENDEZVOUS:-name:}")
# A different port for each start, so that processes of an earlier start cannot connect; below the kernel's ephemeral ports.
MASTER_PORT=$((20000 + (SLURM_JOB_ID * 11 + ${SLURM_RESTART_COUNT:-0}) % 12000))
export MASTER_ADDR MASTER_PORT

# If one rank exits with an error, the others still save: no kill on a bad exit, but wait at most one minute.
srun=(srun --unbuffered --kill-on-bad-exit=0 --wait=60 "--output=${run//%/%%}/slurm/$stage/%j_%t_log.out")
read -r -a flags <<<"${P2P_SRUN:-}" # the site's
srun+=(${flags[@]+"${flags[@]}"})
if [ -n "${P2P_CPU_MASKS:-}" ]; then
    srun+=("--cpu-bind=mask_cpu:$P2P_CPU_MASKS")
fi
# -P: import the run's own copy of the code, not files in the folder that the job was submitted from.
rank=(bash "$here/rank.sh" "${P2P_PYTHON:-python3}" -P -m p2p_dist.jobs.stage_process "$stage" "$run")

begun=0
# As late as possible: note_start.sh sees a cancel before it, the tasks see one after it.
bash "$here/note_start.sh" "$stage" "$run" || begun=$?
((begun == 0)) || exit $((begun == 10 ? 0 : begun))
if [ "$stage" = evaluate ]; then
    export P2P_CLAIMS="${P2P_CLAIMS:-${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}" # a successor job uses the same
    batch free-claims "$run/evaluations/claims/$P2P_CLAIMS" || true # then others evaluate these checkpoints
fi
if [ "$stage ${P2P_EVALUATE:-}" = "evaluate during" ]; then
    bash "$here/watch_training.sh" "$run" & watching=$!
fi

step "${srun[@]}" "${rank[@]}"
[ -z "${watching:-}" ] || kill "$watching" 2>/dev/null || true
# From here on this shell and its commands ignore requests to stop: the job ends anyway, and may have to requeue itself.
trap '' USR1 USR2 TERM
# shellcheck source=hpc/decide_next.sh
. "$here/decide_next.sh" "$stage" "$run" "$code"

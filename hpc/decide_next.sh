#!/usr/bin/env bash
# Last step of a job, outside any container: decide_next.sh STAGE RUN CODE. Records how this attempt ended (CODE: exit code of
# srun), then exits or requeues the job: see jobs/slurm/batch.py. Sourced by job.sh.
set -euo pipefail
stage=$1 run=$2 code=$3 here=${BASH_SOURCE[0]%/*}
# shellcheck source=hpc/slurm.sh
. "$here/slurm.sh"
# shellcheck source=hpc/batch.sh
. "$here/batch.sh"
# If srun was killed or lost the controller, its tasks may still run: wait until they have ended.
if ((code >= 128)) || ! batch told "$stage" "$run"; then
    while await_controller && squeue --noheader --steps --job "$P2P_JOB" --format=%i 2>/dev/null | grep -qE '\.[0-9]+$'; do
        sleep 2
    done
fi
decided=$(batch end "$stage" "$run" "$code") || decided="75 $stage ended: run the same launch command again to resume"
if [ "$decided" != requeue ]; then
    read -r leave because <<<"$decided"
    [ -z "$because" ] || echo "$because"
    exit "$leave"
fi
# shellcheck source=hpc/requeue.sh
. "$here/requeue.sh" "$stage" "$run"

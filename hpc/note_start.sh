#!/usr/bin/env bash
# First step of a job: note_start.sh STAGE RUN. Records this start of the stage, or prints why it must not start (exit code 10:
# the training is done). Slurm is queried here; the rest is in jobs/slurm/batch.py. The newest start owns the run: processes of
# an older one exit before they change anything (rundir.check_still_ours).
set -euo pipefail
trap '' USR1 USR2 TERM # job.sh handles requests to stop; the record must be written completely
stage=$1 run=$2 here=${BASH_SOURCE[0]%/*}
# shellcheck source=hpc/slurm.sh
. "$here/slurm.sh"
# shellcheck source=hpc/batch.sh
. "$here/batch.sh"
submitted="" beside=""
[ "${SLURM_RESTART_COUNT:-0}" != 0 ] || submitted=$(squeue --noheader --job "$P2P_JOB" --format=%V 2>/dev/null || true)
[ "$stage ${P2P_EVALUATE:-}" != "evaluate during" ] || ! bash "$here/is_training_queued.sh" "$run" || beside=beside
batch begin "$stage" "$run" "$submitted" "$beside"

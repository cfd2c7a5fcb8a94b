#!/usr/bin/env bash
# First thing in a job: note_start.sh STAGE RUN. Notes this start in the record of the stage, or says why there is to be none
# (exit code 10: the training is done). What Slurm has to say to that is asked here, the rest is in jobs/slurm/batch.py.
# The newest start owns the run: processes of an older one end before they change anything (rundir.check_still_ours).
set -euo pipefail
trap '' USR1 USR2 TERM # a request to stop is for job.sh, which hears it too: what is begun here is written down whole
stage=$1 run=$2 here=${BASH_SOURCE[0]%/*}
# shellcheck source=hpc/slurm.sh
. "$here/slurm.sh"
# shellcheck source=hpc/batch.sh
. "$here/batch.sh"
submitted="" beside=""
[ "${SLURM_RESTART_COUNT:-0}" != 0 ] || submitted=$(squeue --noheader --job "$P2P_JOB" --format=%V 2>/dev/null || true)
[ "$stage ${P2P_EVALUATE:-}" != "evaluate during" ] || ! bash "$here/is_training_queued.sh" "$run" || beside=beside
batch begin "$stage" "$run" "$submitted" "$beside"

#!/usr/bin/env bash
# Submit a job that continues this one, which cannot be requeued: submit_successor.sh STAGE RUN. It requests what this job was
# allocated, because the script does not contain options of the command line or of variables.
set -euo pipefail
stage=$1 run=$2 job=$SLURM_JOB_ID here=${BASH_SOURCE[0]%/*}
# shellcheck source=hpc/slurm.sh
. "$here/slurm.sh"
fail() { echo "$stage stopped, but $1: run the same launch command again to resume" && exit 75; }
scontrol write batch_script "$job" "$run/slurm/$stage/$job.sh" >/dev/null || fail "Slurm does not answer"
asked=$(squeue --noheader --job "$job" --format='%l|%f|%h|%b') || fail "Slurm does not answer"
IFS='|' read -r time features share gres <<<"$asked"
options=("--dependency=afterany:$job" "--comment=p2p_dist $stage $run" "--time=$time") # the launcher finds it by its comment
options+=("--output=${run//%/%%}/slurm/$stage/%j_0_log.out") # as in the launcher's scripts
[ "$share" != NO ] || options+=(--exclusive)
[[ $features == @(|"(null)") ]] || options+=("--constraint=$features")
case ${SLURM_GPUS:-}${SLURM_GPUS_PER_NODE:-}${SLURM_GPUS_PER_TASK:-}$gres in # only once: Slurm would add them up
gres[:/]*) options+=("--gres=${gres//gres[:\/]/}") ;;
esac
SLURM_JOB_NUM_NODES=${P2P_NODES:-${SLURM_JOB_NUM_NODES:-}} # a range, of which this job had what was free
for pair in JOB_NAME:job-name JOB_ACCOUNT:account JOB_QOS:qos JOB_PARTITION:partition JOB_RESERVATION:reservation \
    JOB_NUM_NODES:nodes NTASKS:ntasks NTASKS_PER_NODE:ntasks-per-node CPUS_PER_TASK:cpus-per-task \
    GPUS:gpus GPUS_PER_NODE:gpus-per-node GPUS_PER_TASK:gpus-per-task \
    MEM_PER_NODE:mem MEM_PER_CPU:mem-per-cpu MEM_PER_GPU:mem-per-gpu; do
    name=SLURM_${pair%:*}
    [ -z "${!name:-}" ] || options+=("--${pair#*:}=${!name}")
done
for name in $(compgen -e | grep -E '^(SLURM|SRUN|SBATCH)_'); do # else sbatch would read them as options
    [ "$name" = SLURM_CONF ] || unset "$name"
done
export P2P_SUCCESSOR_OF=$job # the successor continues this job's counts
said=$(sbatch --parsable "${options[@]}" "$run/slurm/$stage/$job.sh" "$run") || fail "Slurm refused a new job"
next=$(job_number <<<"$said")
# If sbatch printed no number: the newest job with the comment.
[ -n "$next" ] || next=$(squeue --me --noheader --format='%i %k' | awk -v own="$job" -v comment="p2p_dist $stage $run" \
    '{number = $1; sub(/^[^ ]+ /, "")} $0 == comment && number + 0 > own {own = number} END {print own}')
[ "$next" != "$job" ] || fail "sbatch printed no job number ($said)"
batch successor "$next" || true
# Jobs with the dependency afterok on this job would wait for ever: let them depend on the successor. One that was cancelled just
# now can't, which must not keep the others from it.
squeue --me --noheader --format='%i %E' | { grep -wF "afterok:$job" || true; } | while read -r waiting dependency; do
    dependency=$(sed -E "s/\([^)]*\)//g; s/\bafterok:$job\b/afterok:$next/g" <<<"$dependency")
    scontrol update "jobid=$waiting" "dependency=$dependency" ||
        echo "job $waiting does not wait for job $next: if it is still needed, run the launch command again"
done || echo "the jobs that wait for this one are not known: run the launch command again"
echo "$stage stopped; this job cannot be requeued: job $next continues it"
exit 75

# shellcheck shell=bash
# Sourced by each script here that calls Slurm. Unsets variables that change what Slurm's commands do or print and that a user may
# have set (SQUEUE_STATES hides jobs, SLURM_TIME_FORMAT changes times). The same list as in p2p_dist/jobs/slurm/commands.py.
for name in $(compgen -e | grep -xE "(SQUEUE|SCANCEL|SCONTROL|SACCT|SACCTMGR|SINFO|SSTAT|SPRIO|SSHARE)_.*\
|SLURM_(TIME_FORMAT|BITSTR_LEN|JSON|YAML|DEBUG|DEBUG_FLAGS|EXIT_ERROR|EXIT_IMMEDIATE|IMMEDIATE|EXPORT_ENV)\
|SLURM_(LABELIO|STDINMODE|STDOUTMODE|STDERRMODE|THREADS|DISABLE_STATUS|TEST_EXEC|NO_KILL)\
|SRUN_(EXPORT_ENV|LABELIO|INPUT|OUTPUT|ERROR|DEBUG)"); do
    unset "$name"
done

# Print the job number in the output of sbatch, which may contain other lines of a site's wrapper: job_number <<<OUTPUT
job_number() {
    sed -nE 's/.*Submitted batch job ([0-9]+).*/\1/p; s/^[[:space:]]*([0-9]+)(;[^[:space:]]*)?[[:space:]]*$/\1/p' | tail -n 1
}

# Wait for an unavailable controller (an update, a failover). The nodes stay allocated meanwhile, so waiting costs nothing extra.
await_controller() {
    local pause said
    for pause in 1 2 4 8 15 30 $(yes 60 | head -n 30); do
        said=$(squeue --noheader --job "$P2P_JOB" --format=%i 2>&1) && return 0
        [[ $said != *"nvalid job id"* ]] || return 0
        sleep "$pause"
    done
    return 1
}

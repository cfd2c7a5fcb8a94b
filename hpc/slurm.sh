# shellcheck shell=bash
# Read first by each script here that asks Slurm: takes out what a person's profile may have set to change what Slurm's commands
# do or print (SQUEUE_STATES hides jobs, SLURM_TIME_FORMAT writes times in another way). p2p_dist/jobs/slurm/commands.py: the same.
for name in $(compgen -e | grep -xE "(SQUEUE|SCANCEL|SCONTROL|SACCT|SACCTMGR|SINFO|SSTAT|SPRIO|SSHARE)_.*\
|SLURM_(TIME_FORMAT|BITSTR_LEN|JSON|YAML|DEBUG|DEBUG_FLAGS|EXIT_ERROR|EXIT_IMMEDIATE|IMMEDIATE|EXPORT_ENV)\
|SLURM_(LABELIO|STDINMODE|STDOUTMODE|STDERRMODE|THREADS|DISABLE_STATUS|TEST_EXEC|NO_KILL)"); do
    unset "$name"
done

# The job's number in what sbatch said, around which a site's wrapper may print lines of its own: job_number <<<SAID
job_number() {
    sed -nE 's/.*Submitted batch job ([0-9]+).*/\1/p; s/^[[:space:]]*([0-9]+)(;[^[:space:]]*)?[[:space:]]*$/\1/p' | tail -n 1
}

# Wait for a controller that is away: an update, a failover. No node is given back meanwhile, so waiting costs nothing more.
await_controller() {
    local pause said
    for pause in 1 2 4 8 15 30 $(yes 60 | head -n 30); do
        said=$(squeue --noheader --job "$P2P_JOB" --format=%i 2>&1) && return 0
        [[ $said != *"nvalid job id"* ]] || return 0
        sleep "$pause"
    done
    return 1
}

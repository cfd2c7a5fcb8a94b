#!/usr/bin/env bash
# Start one process of a job in the site's environment and container: rank.sh COMMAND... The environment is set here, inside
# the task, because folders on a node's local disk must be created on each node.
set -euo pipefail
# Record that srun started a task: before that, srun's exit code does not concern the run (run_step.sh).
[ -z "${P2P_BEGUN:-}" ] || echo "$P2P_ATTEMPT" 2>/dev/null >"$P2P_BEGUN" || true
set +u # environment files may use variables that are not set
if [ -n "${P2P_ENVIRONMENT:-}" ]; then
    trap 'echo "error: a command in $P2P_ENVIRONMENT failed, so this process is not started (its last line may be: true)" >&2' EXIT
    # shellcheck source=/dev/null
    . "$P2P_ENVIRONMENT"
    trap - EXIT
fi
set -u
[ -z "${P2P_CONTAINER:-}" ] || set -- bash "${0%/*}/in_container.sh" "$@"
exec "$@" # a shell between Slurm and the process would die of the signals that the process handles

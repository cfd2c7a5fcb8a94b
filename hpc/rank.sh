#!/usr/bin/env bash
# Start one process of a job in the site's environment and container: rank.sh COMMAND... The environment is set here, inside
# the task, because folders on a node's own disk must be made on each node.
set -euo pipefail
# Says that srun came so far: before that, its exit code tells nothing of the run (run_step.sh).
[ -z "${P2P_BEGUN:-}" ] || echo "$P2P_ATTEMPT" 2>/dev/null >"$P2P_BEGUN" || true
set +u # such files are written for shells that take what is not set for empty
# shellcheck source=/dev/null
[ -z "${P2P_ENVIRONMENT:-}" ] || . "$P2P_ENVIRONMENT"
set -u
[ -z "${P2P_CONTAINER:-}" ] || set -- bash "${0%/*}/in_container.sh" "$@"
exec "$@" # no shell may stay between Slurm and the process: it would die of the signals meant for it

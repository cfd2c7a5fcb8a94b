#!/usr/bin/env bash
# Exit code 0 if a job that trains the run is pending or running: is_training_queued.sh RUN. The path in its comment may differ.
set -euo pipefail
# shellcheck source=hpc/slurm.sh
. "${0%/*}/slurm.sh"
queued=$(squeue --me --noheader --format=%k 2>/dev/null) || exit 0 # not known while the controller is unavailable
while read -r comment; do
    [[ $comment != "p2p_dist train "* || ! "${comment#p2p_dist train }" -ef $1 ]] || exit 0
done <<<"$queued"
exit 1

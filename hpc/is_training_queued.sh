#!/usr/bin/env bash
# Exit code 0 if a job that trains the run is pending or running: is_training_queued.sh RUN. The path in its comment may differ.
set -euo pipefail
# shellcheck source=hpc/slurm.sh
. "${0%/*}/slurm.sh"
queued=$(squeue --me --array --noheader --format='%K %k' 2>/dev/null) || exit 0 # not known while the controller is unavailable
while read -r element comment; do
    [[ $comment == "p2p_dist train "* ]] || continue
    path=${comment#p2p_dist train }
    # Of a sweep, the comment names a file with the path of one run a line; lines are counted from 0.
    [[ $path != */.sweeps/* ]] || path=$(sed -n "$((element + 1))p" "$path" 2>/dev/null) || continue
    [[ ! $path -ef $1 ]] || exit 0
done <<<"$queued"
exit 1

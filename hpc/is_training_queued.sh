#!/usr/bin/env bash
# Whether a job that trains the run, by whatever name it calls it, is queued or runs, as far as Slurm tells: is_training_queued.sh RUN
set -euo pipefail
# shellcheck source=hpc/slurm.sh
. "${0%/*}/slurm.sh"
queued=$(squeue --me --noheader --format=%k 2>/dev/null) || exit 0 # a controller that is away has not said no
while read -r comment; do
    [[ $comment != "p2p_dist train "* || ! "${comment#p2p_dist train }" -ef $1 ]] || exit 0
done <<<"$queued"
exit 1

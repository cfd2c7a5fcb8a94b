# shellcheck shell=bash
# Read by each script here that needs the record of this stage's starts: `batch COMMAND...` reads it, writes it and decides by
# it, see jobs/slurm/batch.py. It runs with a Python of this node, outside any container: the system's, else the job's own where
# that needs no container. Only this copy of the code is imported, nothing is left beside it, and no request to stop ends it.
batch() (
    trap '' USR1 USR2 TERM
    exec "$batch_python" -I -B "${BASH_SOURCE[0]%/*}/../p2p_dist/jobs/slurm/batch.py" "$@"
)

for batch_python in python3 "$([ -n "${P2P_CONTAINER:-}" ] || echo "${P2P_PYTHON:-}")" ""; do
    [ -n "$batch_python" ] || continue
    ! (trap '' USR1 USR2 TERM && exec "$batch_python" -c 'import sys; sys.exit(sys.version_info < (3, 6))') 2>/dev/null || break
done
[ -n "$batch_python" ] || {
    echo "error: $(hostname): no Python 3.6 or newer outside the container: load a module that provides it (on LUMI:" \
        "module load cray-python), then submit this job again" >&2
    exit 2
}

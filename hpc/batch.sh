# shellcheck shell=bash
# Sourced by the scripts that use the record of this stage's starts: `batch COMMAND...` runs p2p_dist/jobs/slurm/batch.py, which
# reads and writes the record and decides what to do next. It runs outside any container, with the system's Python, or with the
# job's Python if there is no container. It imports only this copy of the code, writes no bytecode, and ignores requests to stop.
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

# shellcheck shell=bash
# Sourced by job.sh: `step COMMAND...` runs srun and sets $code to its exit code. A request to stop that reaches this shell
# (scancel --batch, --full; a lowered time limit) is passed on to srun. It must not end this shell, which requeues the job.
asked=${P2P_ASKED:-} child="" # P2P_ASKED: requested earlier, see check_code.sh
trap 'asked=yes; [ -z "$child" ] || kill -USR2 "$child" 2>/dev/null || true' USR1 USR2 TERM

oom_kills() { sed -n 's/^oom_kill //p' /proc/vmstat 2>/dev/null || true; }

step() {
    local try before
    before=$(oom_kills)
    for try in 1 2 3 4 5 6; do
        code=75
        [ -z "$asked" ] || return 0
        "$@" &
        child=$!
        while kill -0 "$child" 2>/dev/null; do wait "$child" || true; done # a signal only interrupts the waiting
        code=0
        wait "$child" || code=$?
        child=""
        # Exit code 1 of srun itself, before a task started: no controller, or no step yet. It does not concern the run.
        if ((code != 1 || try == 6)) || grep -qsxF "$P2P_ATTEMPT" "$P2P_BEGUN"; then break; fi
        echo "srun started no task: retrying"
        await_controller || break
        [ ! -e "${P2P_ATTEMPTS%/*/*}/cancelled" ] || break
        sleep $((5 * try))
    done
    # A killed process (137) is an error of the run only if the node ran out of memory.
    [ "$code" != 137 ] || [ "$(oom_kills)" = "$before" ] || export P2P_OUT_OF_MEMORY=1
}

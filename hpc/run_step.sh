# shellcheck shell=bash
# Read by job.sh: `step COMMAND...` runs srun with it, and puts how that ended into $code. A request to stop that reaches this
# shell (scancel --batch, --full; a time limit that was lowered) is passed on, and must not end it: it requeues the job.
asked=${P2P_ASKED:-} child="" # asked before this shell could hear it: check_code.sh
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
        # srun's own 1, before any task ran: no controller, or no step yet, which says nothing of the run.
        if ((code != 1 || try == 6)) || grep -qsxF "$P2P_ATTEMPT" "$P2P_BEGUN"; then break; fi
        echo "srun started no task: retrying"
        await_controller || break
        [ ! -e "${P2P_ATTEMPTS%/*/*}/cancelled" ] || break
        sleep $((5 * try))
    done
    # A process that was killed (137) counts against the run only where it ran out of memory.
    [ "$code" != 137 ] || [ "$(oom_kills)" = "$before" ] || export P2P_OUT_OF_MEMORY=1
}

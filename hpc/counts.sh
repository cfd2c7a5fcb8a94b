#!/usr/bin/env bash
# What the record of a stage's starts says (its lines: begin.sh): counts.sh prints
#   OWNER RESTARTS SAME CRASHES BEGAN NODE_SECONDS OPEN SINCE
# OWNER: the newest attempt, that the run belongs to. RESTARTS, CRASHES: since a person launched it. SAME: so many starts
# from where the newest began have ended by the run's own doing. BEGAN: progress at the newest. NODE_SECONDS: of the whole run, all
# launches. OPEN: an attempt without an end, or "-". An evaluation beside a training may begin anew as often as it has to wait.
# p2p_dist/run/starts.py counts the same.
set -euo pipefail
awk '
$1 == "launch" {starts = same = crashes = 0; place = "none"}
$1 == "start" {
    owner = open = $2; began = $3; since = $4; nodes = $5; beside = $6 == "beside"
    if (!beside) {starts++; if ($3 != place) same = 0; place = $3}
}
$1 == "end" {crashes += $6 == "crash"}
$1 == "end" && $2 "" == open "" { # as words: 7.1 and 7.10 are two
    # What Slurm or somebody else ended (killed; a signal before it listened) says nothing of the run, nor that it is done.
    if (!beside && ($6 ~ /^(crash|failed)$/ || $6 == "stopped" && $5 == 75)) same++
    used += ($4 - since) * nodes; open = ""
}
END {
    if (beside) starts = same = 0
    print (owner ? owner : "-"), starts - 1, same + 0, crashes + 0, began + 0, used + 0, (open ? open : "-"), since + 0
}' "$P2P_ATTEMPTS"

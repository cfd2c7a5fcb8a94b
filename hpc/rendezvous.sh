#!/usr/bin/env bash
# Print the address at which the processes of this job meet: rendezvous.sh RULE:SUFFIX. Rules: `name` is the name of the first
# node, with the suffix that some sites give to the names of their fast network; `ipv4` is the address of that name.
set -euo pipefail
node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p) # which reads to the end: head would break the pipe
name=$node${1#*:}
if [ "${1%%:*}" = ipv4 ]; then
    # A node may know its own name as 127.x, where no other node finds it; then Slurm's address of it.
    found=$({
        getent ahostsv4 "$name" | cut -d ' ' -f 1
        scontrol show node "$node" | sed -nE 's/.*NodeAddr=([^ ]+).*/\1/p'
    } | grep -v '^127\.' | head -n 1) || true
    name=${found:-$name}
fi
echo "$name"

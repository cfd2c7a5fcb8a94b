#!/usr/bin/env bash
# Part of every batch script, the launcher's and the templates. Checks that the run and its copy of the code belong to this user,
# that no other user can write to them, and that no file was changed, removed or added. Needs $run, the real path of the run.
: "${run:?}"
unset P2P_ASKED
trap 'export P2P_ASKED=yes' USR1 USR2 TERM # remember an early request to stop for job.sh, which requeues the job
umask go-w
[[ $run != *[[:cntrl:]]* ]] || { printf 'error: the path of the run contains a control character: %q\n' "$run" >&2 && exit 2; }
export PYTHONDONTWRITEBYTECODE=1 # bytecode files would count as added files
# A group with this user as its only member may write; many systems create one per user. The same rule as not_only_ours in
# p2p_dist/common/files.py.
alone=-1 user=$(id -un)
IFS=: read -r name _ number members <<<"$(trap "" USR1 USR2 TERM && getent group "$(getent passwd "$user" | cut -d : -f 4)")" || true
if [ "$name" = "$user" ] && [[ ${members:-} == @(|"$user") ]]; then alone=$number; fi
others=(! -user "$(id -u)" -o -perm /002 -o -perm /020 ! -gid "$alone")
replaced=$(find "${run%/*}/" -maxdepth 0 ! -perm -1000 \( -perm /002 -o -perm /020 ! -gid "$alone" \) 2>&1) || true
[ -z "$replaced" ] || {
    printf 'error: other users can write in %s, so they could replace the run and its code: nothing was run\n' "${run%/*}" >&2
    printf 'chmod +t %q, or use a folder of runs of your own\n' "${run%/*}" >&2
    exit 2
}
wrong=$(trap "" USR1 USR2 TERM
    find "$run" -maxdepth 0 ! -user "$(id -u)" 2>&1
    find "$run/config.yaml" -maxdepth 0 \( "${others[@]}" \) 2>&1
    find "$run/code" \( "${others[@]}" -o ! -type f ! -type d \) 2>&1) || true
[ -n "$wrong" ] || (trap "" USR1 USR2 TERM && find "$run/code" -name __pycache__ -prune -exec rm -rf {} +)
# Copies of earlier versions have no checksums; the launch command, run again, writes them.
[ -n "$wrong" ] || [ ! -e "$run/code/SHA256SUMS" ] || wrong=$(trap "" USR1 USR2 TERM && cd "$run/code" &&
    find . -type f ! -path ./SHA256SUMS -exec sha256sum {} + | LC_ALL=C sort -k 2 | diff - SHA256SUMS 2>&1) || true
[ -z "$wrong" ] || {
    printf 'error: %s differs from the code that this run started with, or other users can write to it: nothing was run\n%s\n' \
        "$run/code" "$wrong" >&2
    printf 'if you changed nothing in it: chmod -R go-w %q, then run the launch command again\n' "$run" >&2
    exit 2
}

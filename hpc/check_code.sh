#!/usr/bin/env bash
# Part of every batch script (the launcher's and the templates): only the copy of the code that the launcher took is run, in a
# run of this user's, writable by no other, with no file changed, missing or extra. Wants $run, the real path of the run.
: "${run:?}"
unset P2P_ASKED
trap 'export P2P_ASKED=yes' USR1 USR2 TERM # a request to stop that comes so early is kept for job.sh, which queues it again
umask go-w
[[ $run != *[[:cntrl:]]* ]] || { printf 'error: the path of the run contains a control character: %q\n' "$run" >&2 && exit 2; }
export PYTHONDONTWRITEBYTECODE=1 # what Python leaves beside the code would be extra files
# A group of this user alone may write, as many systems give one to each; p2p_dist/common/files.py (not_only_ours): the same.
alone=-1 user=$(id -un)
IFS=: read -r name _ number members <<<"$(trap "" USR1 USR2 TERM && getent group "$(getent passwd "$user" | cut -d : -f 4)")" || true
if [ "$name" = "$user" ] && [[ ${members:-} == @(|"$user") ]]; then alone=$number; fi
others=(! -user "$(id -u)" -o -perm /002 -o -perm /020 ! -gid "$alone")
wrong=$(trap "" USR1 USR2 TERM
    find "$run" -maxdepth 0 ! -user "$(id -u)" 2>&1
    find "$run/config.yaml" -maxdepth 0 \( "${others[@]}" \) 2>&1
    find "$run/code" \( "${others[@]}" -o ! -type f ! -type d \) 2>&1) || true
[ -n "$wrong" ] || (trap "" USR1 USR2 TERM && find "$run/code" -name __pycache__ -prune -exec rm -rf {} +)
# A copy that an earlier version made has no record; the launch command, run again, writes it.
[ -n "$wrong" ] || [ ! -e "$run/code/SHA256SUMS" ] || wrong=$(trap "" USR1 USR2 TERM && cd "$run/code" &&
    find . -type f ! -path ./SHA256SUMS -exec sha256sum {} + | LC_ALL=C sort -k 2 | diff - SHA256SUMS 2>&1) || true
[ -z "$wrong" ] || {
    printf 'error: %s differs from the code that this run started with, or other users can write to it: nothing was run\n%s\n' \
        "$run/code" "$wrong" >&2
    printf 'if you changed nothing in it: chmod -R go-w %q, then run the launch command again\n' "$run" >&2
    exit 2
}

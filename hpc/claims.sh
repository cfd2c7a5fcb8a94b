#!/usr/bin/env bash
# Before an evaluation begins again, free what earlier attempts of this job took and did not finish: claims.sh FOLDER
set -euo pipefail
folder=$1
[ -d "$folder" ] || exit 0
# Each claim holds its attempt's name; those of this job's own record have ended, other jobs that share have their own.
grep -lZxF -f <(awk '$1 == "start" {print $2}' "$P2P_ATTEMPTS") "$folder"/step-* 2>/dev/null | xargs -0 -r rm -f -- || true

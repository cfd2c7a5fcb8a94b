#!/usr/bin/env bash
# How far a stage is, as a number that grows, and when it last grew (seconds): progress.sh STAGE RUN
set -euo pipefail
stage=$1 run=$2
case $stage in
train) folder=$run/checkpoints pattern='step-*' ;;
preprocess)
    name=$(sed -n 's/.*"name": "\(.*\)".*/\1/p' "$run/dataset.json")
    folder=$run/../../shards/$name/parts pattern='*'
    ;;
*) folder=$run/evaluations pattern='step-*' ;;
esac
found=""
if [ -d "$folder" ]; then
    found=$(find "$folder" -mindepth 1 -maxdepth 1 -name "$pattern" ! -name '.*' -printf '%f %T@\n' | sort)
fi
if [ -z "$found" ]; then
    echo "0 0"
elif [ "$stage" = train ]; then
    tail -n 1 <<<"$found" | awk '{sub("step-", "", $1); printf "%d %d\n", $1, $2}'
else
    awk '$2 > last {last = $2} END {printf "%d %d\n", NR, last}' <<<"$found"
fi

#!/usr/bin/env bash
# Environment of one process on nodes with AMD GPUs, sourced inside the task.
# MIOpen's database must not be on a parallel file system, nor shared between processes ("database is locked").
# The check of packages, which runs on a login node, needs none.
if [ -n "${SLURM_JOB_ID:-}" ]; then
    MIOPEN_CUSTOM_CACHE_DIR=$(mktemp -d "/tmp/miopen-$SLURM_JOB_ID-$SLURM_PROCID-XXXXXX")
    export MIOPEN_CUSTOM_CACHE_DIR MIOPEN_USER_DB_PATH="$MIOPEN_CUSTOM_CACHE_DIR"
fi

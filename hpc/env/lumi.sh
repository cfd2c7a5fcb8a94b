#!/usr/bin/env bash
# The environment of one process on LUMI-G, sourced inside the task.
# MIOpen's database must not be on Lustre or shared by processes ("database is locked").
# The check of packages, which runs on a login node, needs none.
if [ -n "${SLURM_JOB_ID:-}" ]; then
    MIOPEN_CUSTOM_CACHE_DIR=$(mktemp -d "/tmp/miopen-$SLURM_JOB_ID-$SLURM_PROCID-XXXXXX")
    export MIOPEN_CUSTOM_CACHE_DIR MIOPEN_USER_DB_PATH="$MIOPEN_CUSTOM_CACHE_DIR"
fi
# The Slingshot network. Do not set NCCL_NET_GDR_LEVEL: the first collective between nodes hangs with the images of 2026.
export NCCL_SOCKET_IFNAME="${NCCL_SOCKET_IFNAME:-hsn0,hsn1,hsn2,hsn3}"
# Fast convolutions for the channels_last memory format; disabled by default before ROCm 7.
export PYTORCH_MIOPEN_SUGGEST_NHWC="${PYTORCH_MIOPEN_SUGGEST_NHWC:-1}"
# The kernel reports freed memory to libfabric's registration cache. With the other monitors, which intercept calls in the
# process, the first collectives between nodes hang with the PyTorch images of 2026 (13 of 17 starts on 4 nodes).
export FI_MR_CACHE_MONITOR="${FI_MR_CACHE_MONITOR:-userfaultfd}"

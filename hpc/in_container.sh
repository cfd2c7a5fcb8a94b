#!/usr/bin/env bash
# Start one process of a job in its container: in_container.sh COMMAND... Environment variables: P2P_CONTAINER, the image;
# P2P_OVERLAY, a file to mount at /user-software; P2P_BINDS, folders to bind, as SOURCE[:TARGET],...; P2P_RUNTIME, apptainer
# in place of singularity; P2P_RUNTIME_OPTIONS, its options, as --nv. Missing files are reported here, because Singularity's
# messages are misleading. Exit code 255, as Singularity's own: the process did not start.
set -euo pipefail
refuse() {
    echo "error: $(hostname): $*" >&2
    exit 255
}
runtime=${P2P_RUNTIME:-singularity}
command -v "$runtime" >/dev/null || refuse "runtime: the command $runtime was not found on this node; load its module before the launch"
head -c 4 "$P2P_CONTAINER" >/dev/null 2>&1 ||
    refuse "image: cannot read $P2P_CONTAINER; build it (containers/build.sh in the source code), or name another: --container"
binds=()
if [ -n "${P2P_OVERLAY:-}" ]; then
    [ -r "$P2P_OVERLAY" ] || refuse "overlay: cannot read $P2P_OVERLAY; build it (containers/build_overlay.sh in the source code)"
    binds=(--bind "$P2P_OVERLAY:/user-software:image-src=/")
    export SINGULARITYENV_PREPEND_PATH=/user-software/bin
fi
IFS=, read -r -a wanted <<<"${P2P_BINDS:-},${SINGULARITY_BIND:-},${SINGULARITY_BINDPATH:-}"
for bind in "${wanted[@]}"; do
    [ -z "$bind" ] || [ -e "${bind%%:*}" ] ||
        refuse "bind: ${bind%%:*} does not exist on this node; is its file system mounted?" \
            "(container_binds of the site, SINGULARITY_BIND)"
done
[ -z "${P2P_BINDS:-}" ] || binds+=(--bind "$P2P_BINDS")
# Variables of the image override those of the job unless they are passed as SINGULARITYENV_*. PYTHONPATH of the host is not
# passed, except that of the run's code.
unset APPTAINERENV_PYTHONPATH PYTHONHOME
for name in PYTHONPATH $(compgen -e | grep -E '^((MIOPEN|NCCL|RCCL|GLOO|FI|UCX|CXI|PYTORCH|TORCH_NCCL|OMP|MASTER)_|CUDA_VISIBLE_DEVICES$)'); do
    export "SINGULARITYENV_$name=${!name:-}"
done
export PYTHONNOUSERSITE=1
read -r -a options <<<"${P2P_RUNTIME_OPTIONS:-}"
exec "$runtime" --quiet run ${options[@]+"${options[@]}"} "${binds[@]}" "$P2P_CONTAINER" "$@" # run, not exec: the image's run script picks the GPU

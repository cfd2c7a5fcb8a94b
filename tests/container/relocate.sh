#!/usr/bin/env bash
# Make an unpacked Apptainer work where it lies: relocate.sh FOLDER, with its libraries in FOLDER/lib.
set -euo pipefail
folder=$1 drop=""
for binary in usr/bin/apptainer usr/lib/x86_64-linux-gnu/apptainer/bin/starter; do
    patchelf --set-interpreter "$folder/lib/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$folder/lib" "$folder/$binary"
done
for name in etc var; do # both look for these beside a prefix that they work out from their own path
    ln -sfn "../$name" "$folder/usr/$name"
    ln -sfn "../../$name" "$folder/usr/lib/$name"
done
# Root of a virtual machine may lack a capability, and Apptainer wants to keep all: tell it which there are.
mine=$(capsh --decode="$(awk '/^CapEff/ {print $2}' /proc/self/status)" | sed 's/.*=//')
all=$(capsh --decode="$(printf '%016x' $(((1 << ($(cat /proc/sys/kernel/cap_last_cap) + 1)) - 1)))" | sed 's/.*=//')
if [ "$mine" != "$all" ]; then
    drop=$(comm -13 <(tr , '\n' <<<"$mine" | sort) <(tr , '\n' <<<"$all" | sort) | paste -sd , | tr '[:lower:]' '[:upper:]')
    sed -i 's/^root default capabilities = .*/root default capabilities = file/' "$folder/etc/apptainer/apptainer.conf"
    known=$(tr , '\n' <<<"$mine" | grep -vE 'perfmon|bpf|checkpoint_restore' | tr '[:lower:]' '[:upper:]' | sed 's/.*/"&"/' | paste -sd ,)
    echo "{\"users\": {\"root\": [$known]}}" >"$folder/etc/apptainer/capability.json"
fi
for name in singularity apptainer; do
    {
        echo '#!/bin/sh'
        [ -z "$drop" ] || echo "export APPTAINER_DROP_CAPS=\${APPTAINER_DROP_CAPS-$drop}"
        echo "exec '$folder/usr/bin/apptainer' \"\$@\""
    } >"$folder/bin/$name"
    chmod 755 "$folder/bin/$name"
done

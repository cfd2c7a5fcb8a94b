#!/usr/bin/env bash
# Install Slurm, munge and MariaDB from Debian's own packages where they are missing, for the tests in this folder, which
# start and stop them themselves: the installation starts no daemon.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
packages=(munge slurmctld slurmd slurmdbd slurm-client slurm-wlm-basic-plugins mariadb-server iproute2)
missing=0
for command in ip munged slurmctld slurmd slurmdbd sbatch srun mariadbd mariadb-install-db; do
    command -v "$command" >/dev/null || missing=1
done
if ((!missing)); then
    exit 0
elif [ "$(id -u)" != 0 ]; then
    echo "the Slurm tests need root and these packages: sudo apt-get install --no-install-recommends ${packages[*]}" >&2
    exit 1
fi
echo "installing for the Slurm tests (no daemon is started): ${packages[*]}"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then # Debian's packages ask it before they start a service; 101 means no
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null

#!/usr/bin/env bash
# Install the browser that tests/browser opens, from Debian's own packages.
set -euo pipefail
if [ "$(id -u)" != 0 ]; then
    echo "the browser tests need chromium and chromium-driver: sudo apt-get install chromium chromium-driver" >&2
    exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive exec apt-get install -y -qq --no-install-recommends chromium chromium-driver

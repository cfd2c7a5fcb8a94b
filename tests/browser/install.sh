#!/usr/bin/env bash
# Install what tests/browser needs where it is missing: Debian's chromium, a Java runtime and npm; and by npm, into
# build/browser, the checker of HTML (vnu) and that of accessibility (axe-core).
set -euo pipefail
cd "$(dirname "$0")/../.."
declare -A packages=([chromium]=chromium [chromedriver]=chromium-driver [java]=default-jre-headless [npm]=npm)
missing=()
for program in "${!packages[@]}"; do
    command -v "$program" >/dev/null || missing+=("${packages[$program]}")
done
if ((${#missing[@]})); then
    if [ "$(id -u)" != 0 ]; then
        echo "the browser tests need Debian packages: sudo apt-get install ${missing[*]}" >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
npm=build/browser/node_modules
[ -f $npm/vnu-jar/build/dist/vnu.jar ] && [ -f $npm/axe-core/axe.min.js ] && exit
exec npm install --silent --no-audit --no-fund --no-save --prefix build/browser vnu-jar@26.9.27 axe-core@4.14.1

#!/usr/bin/env bash
# Train on several GPUs, or in several CPU processes where there is no GPU.
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$tools/_launch.sh"
[[ $# -ge 2 ]] || usage "$0 CONFIG PROCESSES [options of train.py]"
launch "$2" "$tools/train.py" "$1" "${@:3}"

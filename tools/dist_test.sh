#!/usr/bin/env bash
# Evaluate on several GPUs, or in several CPU processes where there is no GPU.
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$tools/_launch.sh"
[[ $# -ge 3 ]] || usage "$0 CONFIG CHECKPOINT PROCESSES [options of test.py]"
launch "$3" "$tools/test.py" "$1" "$2" "${@:4}"

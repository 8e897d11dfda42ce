#!/usr/bin/env bash
# Continues the prompts of a file on several devices of this node, each a whole model and a share of them. Usage: --help
#   bash run_scripts/run_distribute_predict.sh --nproc N --prompt-file FILE --output FILE --checkpoint DIR [...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"

launch predict.py "$@"

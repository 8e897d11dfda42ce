#!/usr/bin/env bash
# Evaluates a model on tasks on several devices of this node, each a whole model and a share of the items. Usage: --help
#   bash run_scripts/run_distribute_evaluate.sh --nproc N --checkpoint DIR --data DIR --tasks NAMES --output DIR [...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"

launch evaluate.py "$@"

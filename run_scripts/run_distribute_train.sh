#!/usr/bin/env bash
# Trains on all devices of one node or many; start it on every node. Usage: --help, docs/launching.md
#   bash run_scripts/run_distribute_train.sh --config FILE [--nnodes N --node-rank R --master-addr HOST] [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"

launch train.py "$@"

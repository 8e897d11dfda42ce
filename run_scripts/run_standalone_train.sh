#!/usr/bin/env bash
# Trains on one device of this node, with the logs, heartbeat and restarts of the launcher. Usage: --help
#   bash run_scripts/run_standalone_train.sh --config FILE [--restarts N] [key=value ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"

launch train.py --nproc 1 "$@"

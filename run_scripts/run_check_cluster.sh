#!/usr/bin/env bash
# Checks, measures and calibrates a cluster; start it on every node. Usage: --help, docs/first_hour.md
#   bash run_scripts/run_check_cluster.sh --out DIR [--nnodes N --node-rank R --master-addr HOST | --rank-table TABLE]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

help_uninstalled "$@"
prepare_environment
export GLOG_v=${GLOG_v:-3}
run exec python "$ROOT/src/check_cluster.py" "$@"

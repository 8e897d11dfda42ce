#!/usr/bin/env bash
# Continues prompts on one device; the options are those of src/predict.py, --interactive among them.
#   bash run_scripts/run_standalone_predict.sh --checkpoint DIR --prompt TEXT
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

help_uninstalled "$@"
prepare_environment
export GLOG_v=${GLOG_v:-3}
run exec python "$ROOT/src/predict.py" "$@"

#!/usr/bin/env bash
# Merges a checkpoint of any form, or cuts it for another plan; the options are those of src/merge_checkpoint.py.
#   bash run_scripts/run_merge.sh SRC [SRC ...] DST [--full | --plan YAML | --dp N --tp N --pp N] [--budget 2GB]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

help_uninstalled "$@"
prepare_environment
run exec python "$ROOT/src/merge_checkpoint.py" "$@"

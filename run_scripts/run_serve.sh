#!/usr/bin/env bash
# Serves a model over HTTP: for OpenAI's clients, and as a page in the browser.
#   bash run_scripts/run_serve.sh [--checkpoint DIR] [--port 8000] [--slots 8] [OPTION ...]
# Without --checkpoint it serves the quickstart's model, and trains that first if it is not there (about 10 minutes
# on a CPU). All other options are those of src/serve.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

help_uninstalled "$@"
prepare_environment serve
export GLOG_v=${GLOG_v:-3}
export PYTHONUNBUFFERED=1 # progress is seen at once, through a pipe as well

GIVEN=no
for word in "$@"; do
    case $word in
    --checkpoint | --checkpoint=* | -h | --help) GIVEN=yes ;;
    esac
done
if [[ $GIVEN == no ]]; then
    QUICKSTART=$ROOT/runs/quickstart
    if [[ ! -f $QUICKSTART/trained || ! -d $QUICKSTART/run/checkpoints ]]; then
        echo "no --checkpoint is given, and no trained model is in $QUICKSTART: training the quickstart's (about 10 minutes)"
        run bash "$ROOT/run_scripts/quickstart.sh" --work "$QUICKSTART"
    fi
    set -- --checkpoint "$QUICKSTART/run" --vocabulary "$QUICKSTART/data/vocab.model" "$@"
fi
run exec python "$ROOT/src/serve.py" "$@"

# shellcheck shell=bash
# Sourced by the run_*.sh beside it: starts a program of src/ on the devices of this node and watches over it.
# The options are those of pangu_alpha.cli.launch: --help lists them, docs/launching.md explains them.

source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

# launch PROGRAM [ARGUMENTS...]: never returns; the exit code is that of the first worker that failed.
launch() {
    help_uninstalled "${@:2}"
    prepare_environment
    export GLOG_v=${GLOG_v:-3} PANGU_SCRIPT=${0##*/} # the name that its help shows
    run exec python -m pangu_alpha.cli.launch "$ROOT/src/$1" "${@:2}"
}

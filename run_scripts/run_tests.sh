#!/usr/bin/env bash
# Sets everything up, checks the code and runs the tests on the CPU.
# Usage: bash run_scripts/run_tests.sh [--fast | --checks] [PATH[::TEST] ...] [options of pytest]
#   without words   the checks, and all tests but those marked long
#   --fast          the checks, and the tests marked neither slow nor long
#   --checks        only the checks: linter, formatter, spelling, scripts, types
#   PATH ...        only the tests of these files and folders, no checks
#   --long -m long  the checks, and the tests marked long, which take minutes each
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

# check_code: what can be known without running a test, the quickest first.
check_code() {
    local tool scripts=(run_scripts/*.sh .ci/run src/pangu_alpha/*/bin/*)
    for tool in ruff codespell shellcheck shfmt mypy; do
        type -P "$tool" >/dev/null || {
            echo "error: $tool is not installed beside $(type -P python); run: python -m pip install -e '.[dev]'" >&2
            exit 2
        }
    done
    run ruff check .
    run ruff format --check .
    run codespell
    run shellcheck "${scripts[@]}"
    run shfmt --diff --indent 4 "${scripts[@]}"
    run mypy
}

# processes WORD...: pytest's options for these words: one process for one file, else one for each core. A process
# takes whole files. It is not started again after it crashed: pytest-xdist 3.8 would wait for ever at the end.
processes() {
    local word files=0
    for word in "$@"; do
        if [[ -d $word ]]; then
            files=$((files + 2))
        elif [[ ${word%%::*} == *.py ]]; then
            files=$((files + 1))
        fi
    done
    PATHS=$files
    ((files == 1)) || PROCESSES=(--numprocesses auto --maxprocesses 4 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder)
}

case ${1:-} in
-h | --help)
    sed -n '/^# Usage/,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit
    ;;
--fast | --checks)
    ONLY=$1
    shift
    ;;
esac
prepare_environment dev
cd "$ROOT"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} GLOG_v=${GLOG_v:-3} # processes take the place of threads
PROCESSES=()
processes "$@"
((PATHS)) || check_code
[[ ${ONLY:-} != --checks ]] || exit 0
[[ ${ONLY:-} != --fast ]] || set -- -m "not slow" "$@"
run python -m pangu_alpha.cli.fetch vocab
run python -m pytest "${PROCESSES[@]}" "$@"

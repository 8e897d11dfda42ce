#!/usr/bin/env bash
# Sets everything up and runs the linter and all tests on the CPU. Arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

prepare_environment dev
cd "$ROOT"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} GLOG_v=${GLOG_v:-3}  # processes take the place of threads
run ruff check .
run ruff format --check .
run python -m pangu_alpha.cli.fetch vocab
# without restarts: after one, pytest-xdist 3.8 waits for ever at the end
run python -m pytest --numprocesses auto --maxprocesses 4 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder "$@"

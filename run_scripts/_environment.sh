# shellcheck shell=bash
# Sourced by the scripts beside it: makes the virtual environment once and puts it first on the PATH.
# Environment: PANGU_VENV, its folder (default: .venv in the checkout); PYTHON, the interpreter it is made with;
# PANGU_PYTHON, an interpreter that has everything already (a cluster's image): then nothing is made or installed.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${PANGU_VENV:-$ROOT/.venv}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3.10 python3 python}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no Python 3.10 or 3.11 found (MindSpore 2.9 needs one); install it or set PYTHON=/path/to/python" >&2
    return 1
}

# prepare_environment [EXTRA]: installs the package (with an extra such as "dev") unless setup.py's last install stands.
prepare_environment() {
    local extra=${1:-} python stamp wanted
    if [[ -n ${PANGU_PYTHON:-} ]]; then
        PATH=$(dirname "$PANGU_PYTHON"):$PATH
        return
    fi
    stamp=$VENV/.pangu_installed${extra:+_$extra}
    wanted=$(cksum <"$ROOT/setup.py")
    if [[ ! -f $stamp || $(<"$stamp") != "$wanted" ]]; then
        python=$(find_python)
        echo "+ installing into $VENV (once; about 2 minutes)"
        [[ -x $VENV/bin/python ]] || "$python" -m venv "$VENV"
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$ROOT${extra:+[$extra]}"
        echo "$wanted" >"$stamp"
    fi
    PATH=$VENV/bin:$PATH
}

# run COMMAND...: prints a command, then runs it.
run() {
    echo "+ $*"
    "$@"
}

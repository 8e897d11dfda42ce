# shellcheck shell=bash
# Sourced by the scripts beside it: makes the virtual environment once and puts it first on the PATH.
# Environment: PANGU_VENV, its folder (default: .venv in the checkout); PYTHON, the interpreter it is made with;
# PANGU_PYTHON, an interpreter that has everything already (a cluster's image): then nothing is made or installed.
# After prepare_environment, "python" and "msrun" are that interpreter's, whatever else lies on the PATH.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${PANGU_VENV:-$ROOT/.venv}

find_python() {
    local candidate candidates=(python3.11 python3.10 python3.12 python3 python)
    [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no Python 3.10, 3.11 or 3.12 found (MindSpore 2.9 needs one); install it or set PYTHON=/path/to/python" >&2
    return 2
}

# use_python VARIABLE PATH: makes an interpreter, which a variable names, the "python" of all that is started; exit
# code 2 if it cannot be run.
use_python() {
    local from=$1 given=$2 found version
    found=$(type -P -- "$given") || found=
    if [[ -z $found ]]; then
        if [[ -d $given ]]; then
            echo "error: $from: $given is a folder; give the path of the interpreter in it" >&2
        elif [[ -e $given ]]; then
            echo "error: $from: $given cannot be executed; give the path of an interpreter, or chmod +x it" >&2
        else
            echo "error: $from: there is no $given; give the path of an interpreter, or unset it" >&2
        fi
        exit 2
    fi
    [[ $found == /* ]] || found=$PWD/$found # the scripts change the folder
    version=$("$found" -c 'import sys; print(*sys.version_info[:2], sep=".")' 2>/dev/null) || version=
    case $version in
    3.10 | 3.11 | 3.12) ;;
    "")
        echo "error: $from: $found does not run as a Python interpreter" >&2
        exit 2
        ;;
    *)
        echo "error: $from: $found is Python $version; MindSpore 2.9 needs 3.10, 3.11 or 3.12" >&2
        exit 2
        ;;
    esac
    export PANGU_PYTHON=$found
    PATH=$ROOT/src/pangu_alpha/launcher/bin:$(dirname -- "$found"):$PATH
}

# prepare_environment [EXTRA]: installs the package (with an extra such as "dev") unless setup.py's last install stands.
prepare_environment() {
    local extra=${1:-} python stamp wanted
    if [[ -n ${PANGU_PYTHON:-} ]]; then
        use_python PANGU_PYTHON "$PANGU_PYTHON"
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
    use_python PANGU_VENV "$VENV/bin/python"
}

# help_uninstalled [ARGUMENTS...]: where nothing is installed yet, --help says what is known without it, and installs
# nothing; the program itself has the whole list of options.
help_uninstalled() {
    local word
    [[ -z ${PANGU_PYTHON:-} && ! -x $VENV/bin/python ]] || return 0
    for word in "$@"; do
        [[ $word == -h || $word == --help ]] || continue
        sed -n 's/^# \{0,1\}//p' "$0" | tail -n +2
        echo
        echo "All options: docs/launching.md#options, or --help again once $VENV is there (the first start makes it)."
        exit 0
    done
}

# run COMMAND...: prints a command, then runs it.
run() {
    echo "+ $*"
    "$@"
}

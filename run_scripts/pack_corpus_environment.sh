#!/usr/bin/env bash
# Packs what executors of a Spark cluster need to build a corpus into one archive. Usage: --help, docs/corpus.md
#   bash run_scripts/pack_corpus_environment.sh [--output corpus-env.tar.gz] [--python PYTHON]
# Options:
#   --output FILE    the archive (default: corpus-env.tar.gz); it must not exist
#   --python PYTHON  the interpreter that the environment is made with (default: as for all scripts)
# It holds pyarrow, numpy, xxhash and what the extra corpus names, and neither MindSpore nor this package, which
# run_corpus_spark.sh sends. The interpreter in it is a link: every node needs the same Python at the same path.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

refuse() {
    echo "error: $*" >&2
    exit 2
}

OUTPUT=corpus-env.tar.gz
while (($#)); do
    case $1 in
    -h | --help)
        sed -n 's/^# \{0,1\}//p' "$0" | tail -n +2
        exit 0
        ;;
    --output | --python)
        (($# > 1)) || refuse "$1: the value is missing"
        if [[ $1 == --output ]]; then OUTPUT=$2; else PYTHON=$2; fi
        shift 2
        ;;
    *) refuse "$1: unknown option, see --help" ;;
    esac
done
[[ ! -e $OUTPUT ]] || refuse "--output: $OUTPUT is there already; move it away, or give another name"
[[ -d $(dirname -- "$OUTPUT") ]] || refuse "--output: there is no folder $(dirname -- "$OUTPUT")"

BASE=$(find_python)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
run "$BASE" -m venv "$WORK/env"
# The extra's requirements from setup.py, and what the package needs of its own ones when it builds a corpus.
mapfile -t NEEDED < <(
    "$BASE" - "$ROOT/setup.py" <<'END'
import ast
import sys

tree = ast.parse(open(sys.argv[1], encoding="utf-8").read())
lists = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
print(*ast.literal_eval(lists["CORPUS"]), *ast.literal_eval(lists["SPARK"]), sep="\n")
(call,) = (node.value for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
(required,) = (word.value for word in call.keywords if word.arg == "install_requires")
wanted = ("numpy", "scipy", "pyyaml", "xxhash", "pyarrow", "tqdm", "sentencepiece", "jieba", "rjieba")
print(*(each for each in ast.literal_eval(required) if each.startswith(wanted)), sep="\n")
END
)
run "$WORK/env/bin/python" -m pip install --quiet --disable-pip-version-check "${NEEDED[@]}"
tar -czf "$OUTPUT.partial" -C "$WORK/env" .
mv "$OUTPUT.partial" "$OUTPUT"
echo "$OUTPUT: written, $(stat -c %s "$OUTPUT") bytes"

#!/usr/bin/env bash
# Builds a corpus on a Spark cluster (standalone, YARN, Kubernetes). Usage: --help, docs/corpus.md
#   bash run_scripts/run_corpus_spark.sh --master URL [--archive corpus-env.tar.gz] [--conf KEY=VALUE]... -- --config YAML [KEY=VALUE]...
# Options:
#   --master URL        spark://host:7077, yarn, or k8s://https://host:port (default: $SPARK_MASTER)
#   --deploy-mode MODE  client or cluster: where the driver runs (default: client)
#   --archive FILE      what pack_corpus_environment.sh has packed; without it every node needs the environment itself
#   --conf KEY=VALUE    a setting of Spark's, such as spark.kubernetes.container.image=...; may be given again
#   --dry               print the command and do not run it
# Behind -- stand the words of `corpus.py run`; paths in the YAML must mean the same on all nodes (s3://, hdfs://, shared).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

usage() {
    sed -n 's/^# \{0,1\}//p' "$0" | tail -n +2
}

refuse() {
    echo "error: $*" >&2
    exit 2
}

MASTER=${SPARK_MASTER:-}
MODE=client
ARCHIVE=
DRY=
CONF=()
while (($#)); do
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    --master | --deploy-mode | --archive | --conf)
        (($# > 1)) || refuse "$1: the value is missing"
        case $1 in
        --master) MASTER=$2 ;;
        --deploy-mode) MODE=$2 ;;
        --archive) ARCHIVE=$2 ;;
        --conf) CONF+=(--conf "$2") ;;
        esac
        shift 2
        ;;
    --dry)
        DRY=yes
        shift
        ;;
    --)
        shift
        break
        ;;
    *) refuse "$1: unknown option; the words of corpus.py run stand behind --, see --help" ;;
    esac
done
[[ -n $MASTER ]] || refuse "--master: name the cluster, such as spark://host:7077, yarn or k8s://https://host:443"
[[ $MODE == client || $MODE == cluster ]] || refuse "--deploy-mode: $MODE is neither client nor cluster"
[[ -z $ARCHIVE || -f $ARCHIVE ]] || refuse "--archive: there is no $ARCHIVE; make it with pack_corpus_environment.sh"
(($#)) || refuse "give the words of corpus.py run behind --, at least --config YAML"

prepare_environment corpus,spark
SUBMIT=$(python -c 'import pathlib, pyspark; print(pathlib.Path(pyspark.__file__).parent / "bin/spark-submit")')

# Executors import the package from this archive: spark-submit sends it to them.
PACKAGE=$(mktemp -d)/pangu_alpha.zip
trap 'rm -rf "$(dirname "$PACKAGE")"' EXIT
python - "$ROOT/src" "$PACKAGE" <<'END'
import sys
import zipfile
from pathlib import Path

source, target = map(Path, sys.argv[1:])
with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
    for path in sorted((source / "pangu_alpha").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            archive.write(path, path.relative_to(source))
END

# Python's memory lies outside the executors' heap: hence the overhead.
WORDS=(--master "$MASTER" --deploy-mode "$MODE" --py-files "$PACKAGE" --conf spark.executor.memoryOverhead=2g
    --conf spark.task.cpus=1 --conf spark.speculation=true)
if [[ -n $ARCHIVE ]]; then
    WORDS+=(--archives "$ARCHIVE#env" --conf spark.executorEnv.PYSPARK_PYTHON=./env/bin/python)
    if [[ $MODE == cluster ]]; then
        WORDS+=(--conf spark.yarn.appMasterEnv.PYSPARK_PYTHON=./env/bin/python)
    fi
fi
if [[ $MODE == client ]]; then
    PYSPARK_DRIVER_PYTHON=$(type -P python)
    export PYSPARK_DRIVER_PYTHON
    if [[ -n $ARCHIVE ]]; then
        export PYSPARK_PYTHON=./env/bin/python
    else
        export PYSPARK_PYTHON=${PYSPARK_PYTHON:-$PYSPARK_DRIVER_PYTHON}
    fi
fi
WORDS+=("${CONF[@]}" "$ROOT/src/corpus.py" run --engine spark "$@")
if [[ -n $DRY ]]; then
    echo "$SUBMIT ${WORDS[*]}"
else
    run "$SUBMIT" "${WORDS[@]}"
fi

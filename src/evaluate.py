"""Evaluates a trained PanGu-alpha: `python src/evaluate.py --help`."""

import sys

sys.path.append(sys.path.pop(0))  # src/ goes last: this file must not hide Hugging Face's evaluate

from pangu_alpha.cli import run_main
from pangu_alpha.cli.evaluate import main

if __name__ == "__main__":
    run_main(main)

"""Inspects, compares, verifies and exports checkpoints: `python src/checkpoint.py --help`."""

import sys

sys.path.append(sys.path.pop(0))  # src/ goes last: its evaluate.py must not hide Hugging Face's evaluate

from pangu_alpha.cli import run_main
from pangu_alpha.cli.checkpoint import main

if __name__ == "__main__":
    run_main(main)

"""Serves a trained PanGu-alpha over HTTP: `python src/serve.py --help`."""

import sys

sys.path.append(sys.path.pop(0))  # src/ goes last: its evaluate.py must not hide Hugging Face's evaluate

from pangu_alpha.cli import run_main
from pangu_alpha.cli.serve import main

if __name__ == "__main__":
    run_main(main)

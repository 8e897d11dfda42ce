"""Checks, measures and calibrates a cluster: `python src/check_cluster.py --out DIR`."""

import sys

sys.path.append(sys.path.pop(0))  # src/ goes last: its evaluate.py must not hide Hugging Face's evaluate

from pangu_alpha.cli import run_main
from pangu_alpha.cli.check_cluster import main

if __name__ == "__main__":
    run_main(main)

"""`python -m pangu_alpha.cli.check_cluster`."""

from pangu_alpha.cli import run_main
from pangu_alpha.cli.check_cluster import main

if __name__ == "__main__":
    run_main(main)

"""`python -m pangu_alpha.cli.corpus`."""

from pangu_alpha.cli import run_main
from pangu_alpha.cli.corpus import main

if __name__ == "__main__":
    run_main(main)

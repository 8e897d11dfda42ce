"""`python -m pangu_alpha.cli.launch`."""

from pangu_alpha.cli import run_main
from pangu_alpha.cli.launch import main

if __name__ == "__main__":
    run_main(main)

"""Raw pages to clean text: python src/corpus.py --help"""

import sys

# Python puts this folder first on its path, where evaluate.py would hide Hugging Face's package of that name.
sys.path.append(sys.path.pop(0))

from pangu_alpha.cli import run_main
from pangu_alpha.cli.corpus import main

if __name__ == "__main__":
    run_main(main)

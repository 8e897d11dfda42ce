# Shortcuts for contributors; each makes the virtual environment on first use (PANGU_VENV, PYTHON, PANGU_PYTHON as
# in run_scripts/_environment.sh). "make help" lists them.
.DEFAULT_GOAL := help
TESTS := bash run_scripts/run_tests.sh
TOOLS := source run_scripts/_environment.sh; prepare_environment dev;
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help check lint format test test-long hooks wheel keys clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

check: ## the checks and the fast tests: run it before each commit
	$(TESTS) --fast

lint: ## only the checks: linter, formatter, spelling, scripts, types
	$(TESTS) --checks

format: ## formats the code and mends what the linter can mend
	$(TOOLS) ruff check --fix .; ruff format .; shfmt --write --indent 4 run_scripts/*.sh .ci/run src/pangu_alpha/*/bin/*

test: ## the checks and all tests but those marked long: what CI runs
	$(TESTS)

test-long: ## the tests that take minutes each
	$(TESTS) --long -m long

hooks: ## runs the checks at each git commit
	$(TOOLS) pre-commit install

wheel: ## dist/*.whl
	$(TOOLS) python -m pip wheel --no-deps --wheel-dir dist .

keys: ## writes the tables of docs/configuration.md from the declarations in config/
	$(TOOLS) python -m pangu_alpha.cli.keys --write docs/configuration.md

clean: ## removes what tools cached; never runs, data or environments
	rm -rf .mypy_cache .pytest_cache .ruff_cache build dist src/*.egg-info
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

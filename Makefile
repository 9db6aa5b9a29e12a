# `make help` lists what there is. PYTHON=python3.12 make test uses another interpreter.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help python venv dev test lint types bench quickstart zoo wheel clean

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "hwcost needs Python 3.11 or newer, but $(PYTHON) is $$( { $(PYTHON) --version; } 2>/dev/null || echo missing);" \
	       "name another one: make PYTHON=python3.12 ..." >&2; exit 1; }

# The stamps make each environment once, and again when what it holds has changed.
.venv/.installed: pyproject.toml constraints.txt | python
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all]'
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

.venv-zoo/.installed: pyproject.toml | python
	test -x .venv-zoo/bin/python || $(PYTHON) -m venv .venv-zoo
	.venv-zoo/bin/python -m pip install --quiet torch==2.14.1 torchvision==0.29.1 timm transformers pytest pytest-timeout \
	  hypothesis fvcore thop ptflops torchinfo calflops -e '.[all]'
	@touch $@

venv: .venv/.installed ## .venv with hwcost and every optional part

dev: .venv/.installed-dev ## .venv with the test tools besides

test: dev ## the tests, on all cores; make test ARGS='-k roofline' chooses
	$(BIN)/python -m pytest --numprocesses auto $(ARGS)

lint: dev ## style, format, and that imports point down
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

types: dev ## mypy --strict
	$(BIN)/mypy -p hwcost

bench: dev zoo ## speed and repeatability, each beside a peer or a limit; needs a quiet machine and takes a while
	.venv-zoo/bin/python tests/bench/bench_counting.py
	$(BIN)/python tests/bench/bench_table.py rows lookup load sums cells
	$(BIN)/python tests/bench/bench_clock.py throughput
	$(BIN)/python tests/bench/bench_clock.py additivity
	$(BIN)/python tests/bench/bench_model.py
	$(BIN)/python tests/bench/bench_gate.py

quickstart: venv ## the main job on this machine, start to finish
	$(BIN)/hwcost quickstart

zoo: .venv-zoo/.installed ## .venv-zoo: torchvision, timm, transformers and other counters, for the checks against them

wheel: dev ## dist/*.whl and dist/*.tar.gz
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	$(BIN)/python -c 'from setuptools.build_meta import build_sdist; build_sdist("dist")'

clean: ## remove what make made
	rm -rf .venv .venv-zoo build dist *.egg-info hwcost-report .mypy_cache .ruff_cache .pytest_cache .hypothesis

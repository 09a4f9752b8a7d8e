# make demo    simulate a stack, process it, compare with the truth, make a map and a report
# make test    everything that must hold before a change lands
# make lint    style, types, layers
# make bench   measured figures; ONLY=name for one of them
# make lock    resolve the dependencies anew
# make clean   remove what make made
#
# Variables: PYTHON (3.11 or newer), VENV, DEMO (folder of the demonstration).

SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV ?= .venv
DEMO ?= bperp-demo
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# One thread per process: workers are the parallelism. Nothing phones home.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS := 300
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export MPLBACKEND := Agg

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test pytest lint bench lock clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -8

# The lock is complete: older pip stumbles over extras (sqlalchemy[asyncio]) when it resolves.
$(INSTALLED): requirements-dev.lock pyproject.toml
	bash deploy/create-venv.sh "$(PYTHON)" "$(VENV)"
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check
	@touch $@

install: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/bperp demo "$(DEMO)"

test: lint pytest

pytest: $(INSTALLED)
	$(BIN)/python -m pytest -m "not benchmark"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config pyproject.toml

bench: $(INSTALLED)
	$(BIN)/python tests/benchmarks/bench.py $(ONLY)

# uv resolves for all platforms and Python versions at once; the locks name no index.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url
lock: $(INSTALLED)
	$(BIN)/python -m pip install --quiet uv
	echo editables | $(COMPILE) --extra dev -o requirements-dev.tmp pyproject.toml -
	$(COMPILE) -c requirements-dev.tmp -o requirements.tmp pyproject.toml
	{ echo "# What bperp runs with. Made by 'make lock'; do not edit."; cat requirements.tmp; } > requirements.lock
	{ echo "# What bperp runs with and is developed with. Made by 'make lock'; do not edit."; \
	  cat requirements-dev.tmp; } > requirements-dev.lock
	rm -f requirements.tmp requirements-dev.tmp

clean:
	rm -rf "$(VENV)" build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis \
	  .import_linter_cache .benchmarks
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# Everyday commands. `make` alone lists them.
.DEFAULT_GOAL := help
PYTHON ?= python
export OPENBLAS_NUM_THREADS ?= 1

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

install:  ## install the checkout with everything for development
	$(PYTHON) -m pip install ".[dev]"

build:  ## compile the kernels beside their sources (then PYTHONPATH=src runs the checkout)
	bash tools/build_inplace.sh

check: lint types test  ## what CI asks for

fmt:  ## format and sort imports
	ruff format .
	ruff check --fix .

lint:  ## style
	ruff check .
	ruff format --check .

types:  ## types
	mypy

test:  ## all tests, against the installed package
	$(PYTHON) -m pytest

test-fast:  ## tests without the slow ones
	$(PYTHON) -m pytest -m "not slow" -q

doctest:  ## the examples in the docstrings
	$(PYTHON) -m pytest -q tests/structure/test_docstrings.py

bench:  ## quick benchmark against the peers that are installed (python -m benchmarks --help for more)
	$(PYTHON) -m benchmarks --quick

references:  ## fit the reference models again with R and lme4, and compare
	cd tests/references && Rscript make_lmm.R

.PHONY: help install build check fmt lint types test test-fast doctest bench references

# make demo       from the spec to classes on an image, through the ARM artifact
# make test       lint, types, layers and all tests but the slow ones
# make test-all   the slow ones too: whole networks, every opset, emulators, fuzzing
# make quick      while editing: the compiler's rooms alone, or TESTS=tests/backends/arm
# make docs       all pages as a site in build/docs
# make generate   write anew what is made from other files: goldens, tables, pages, samples
# PYTHON=...      the Python, 3.11 or newer, to make the environment with

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
JOBS ?= 2
ROOMS := data figures frontend ir lower ops passes quant reference support
TESTS ?= tests/test_architecture.py $(ROOMS:%=tests/compiler/%)

.PHONY: help demo docs test test-all lint quick generate qemu constraints clean

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

demo: $(VENV)/demo.stamp qemu
	@PATH="$(abspath $(BIN)):$$PATH" tools/demo.sh

test: $(VENV)/test.stamp qemu lint
	$(BIN)/pytest -n $(JOBS) -m "not slow"

test-all: $(VENV)/test.stamp qemu lint
	$(BIN)/pytest -n $(JOBS)

quick: $(VENV)/test.stamp
	$(BIN)/pytest -n $(JOBS) -m "not slow" $(TESTS)

generate: $(VENV)/test.stamp
	$(BIN)/python tools/generate.py

lint: $(VENV)/test.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy tools
	$(BIN)/lint-imports

docs: $(VENV)/docs.stamp
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q -c docs . build/docs
	@echo build/docs/index.html

$(VENV)/bin/python:
	@$(PYTHON) tools/make_environment.py $(VENV)

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV), which takes a minute or so"
	$(PIP) install --constraint constraints.txt --editable '.[arm]'
	@touch $@

# torch on its own first: where a wheel for the processor alone is offered, it is taken
$(VENV)/test.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV), which takes some minutes"
	$(PIP) install --constraint constraints.txt torch==2.13.0
	$(PIP) install --constraint constraints.txt --editable '.[all,dev]'
	@touch $@ $(VENV)/demo.stamp $(VENV)/docs.stamp

$(VENV)/docs.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --constraint constraints.txt --editable '.[docs]'
	@touch $@

qemu:
	@tools/install_qemu.sh

constraints:
	$(PYTHON) -m venv --clear build/constraints
	build/constraints/bin/pip install torch==2.13.0
	build/constraints/bin/pip install '.[all,bench,dev]'
	{ head -n 1 constraints.txt
	  build/constraints/bin/pip freeze --all --exclude pip --exclude tcc-compiler | sed 's/+.*//'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

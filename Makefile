# make demo       build a trained network for a Cortex-A7 in int8, and classify images with it
# make test       lint, types, layers, words, and all tests except the slow ones
# make test-all   also the slow tests: complete networks, every opset, emulators
# make test-nightly  the longest tests, which test-all skips: the largest networks, the full fuzzer
# make quick      tests of the core packages, or of TESTS=tests/backends/arm: while you edit
# make docs       all pages as a site in build/docs
# make generate   regenerate derived files: goldens, tables, pages, samples
# make support    measure docs/support.md overnight, MINUTES=480
# PYTHON=...      the Python, 3.11 or newer, that creates the environment

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# An empty value means off. If Python could not store compiled modules, each process would compile torch again.
export PYTHONDONTWRITEBYTECODE :=

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
# Python compiles a file when it imports it, so the installation need not compile 15,000 files.
INSTALL := $(PIP) install --no-compile --constraint constraints.txt
JOBS ?= 2
# Each process has one thread, because there is a process for each processor. The tests of a file stay
# together, so that their fixtures are set up once. An idle process takes over half of another's tests.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist worksteal
PACKAGES := data figures frontend ir lower ops passes quant reference support
TESTS ?= tests/test_architecture.py $(PACKAGES:%=tests/compiler/%)

# Checks the links of a checkout that git or an archive may have omitted, and prints how to create them.
links:
	@$(PYTHON) src/tcc/source_links.py

.PHONY: links help demo docs test test-all test-nightly most-tests all-tests lint quick generate support qemu constraints clean

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

demo: $(VENV)/demo.stamp qemu
	@PATH="$(abspath $(BIN)):$$PATH" tools/demo.sh

test: lint most-tests
test-all: lint all-tests

most-tests: $(VENV)/test.stamp qemu
	$(PYTEST) -m "not slow and not nightly"

all-tests: $(VENV)/test.stamp qemu
	$(PYTEST) -m "not nightly"

test-nightly: $(VENV)/test.stamp qemu
	$(PYTEST) -m nightly

quick: $(VENV)/test.stamp
	$(PYTEST) -m "not slow and not nightly" $(TESTS)

generate: $(VENV)/test.stamp
	$(BIN)/python tools/generate.py

MINUTES ?= 480
support: $(VENV)/test.stamp qemu
	$(BIN)/python tools/support_matrix.py --again --minutes $(MINUTES)
	$(BIN)/python tools/make_support.py

lint: $(VENV)/test.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy src/tcc tools
	$(BIN)/lint-imports
	$(BIN)/python tools/check_words.py

docs: $(VENV)/docs.stamp
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q -c docs . build/docs
	@echo build/docs/index.html

$(VENV)/bin/python: | links
	@$(PYTHON) tools/make_environment.py $(VENV)

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV), which takes a minute or so"
	$(INSTALL) --editable '.[arm]'
	@touch $@

# torch first and by itself, so that pip uses a CPU-only wheel if an index has one
$(VENV)/test.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV), which takes some minutes"
	$(INSTALL) torch==2.13.0
	$(INSTALL) --editable '.[all,dev]'
	@touch $@ $(VENV)/demo.stamp $(VENV)/docs.stamp

$(VENV)/docs.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable '.[docs]'
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

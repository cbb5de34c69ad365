# `make demo` and `make test` do everything on a fresh machine; the rest is for daily work.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
LOCKS := src/stoker/locks
TEST_WORKERS ?= 2

.PHONY: help demo test test-all native-test sanitize bench bench-peers lint format docs lock lock-check clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/base.stamp: $(BIN)/python $(LOCKS)/base.lock pyproject.toml CMakeLists.txt $(wildcard native/*.txt native/*/*.cpp native/*/*.hpp native/include/stoker/*.hpp)
	$(PIP) install --require-hashes -r $(LOCKS)/base.lock
	$(PIP) install --no-deps -e .
	@touch $@

$(VENV)/full.stamp: $(VENV)/base.stamp $(LOCKS)/full.lock
	$(PIP) install --require-hashes -r $(LOCKS)/full.lock
	@touch $@

# The Azure tests run against Azurite, which comes from npm; without npm they are skipped and say so.
.tools/azurite/stamp:
	@mkdir -p .tools/azurite
	@if command -v npm >/dev/null; then npm install --silent --no-audit --no-fund --prefix .tools/azurite azurite@3.35.0 >/dev/null \
		&& touch $@; else echo "npm is not installed: the Azure tests will be skipped"; fi

demo: $(VENV)/base.stamp ## Install, feed emulated accelerators from this disk, print a verdict, leave an HTML report
	@scripts/demo.sh

test: $(VENV)/full.stamp .tools/azurite/stamp lint native-test ## Everything that decides whether a change may land (under 15 minutes on 2 cores)
	$(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist worksteal -m "not slow"

test-all: $(VENV)/full.stamp .tools/azurite/stamp lint lock-check native-test sanitize ## The slow suites too
	$(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist worksteal

native-test: ## The tests of the C++ kernels
	@scripts/native_tests.sh

sanitize: ## The tests of the C++ kernels under the address, undefined-behaviour and thread sanitizers
	@scripts/native_tests.sh address,undefined thread

lint: $(VENV)/full.stamp ## Style, types and the floors of the house
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/full.stamp ## Rewrite the code to the house style
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

bench: $(VENV)/full.stamp ## Measure our own code beside its ceiling and the peers a user would pick
	$(BIN)/python -m benchmarks $(BENCH)
	$(BIN)/python -m benchmarks.page

bench-peers: ## Install what `make bench` compares with into .tools/peers (3 GB)
	scripts/peers.sh

docs: $(VENV)/full.stamp ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lock: $(VENV)/full.stamp ## Resolve the lock files anew from pyproject.toml
	scripts/lock.sh

lock-check: $(VENV)/full.stamp ## Tell whether the lock files are what pyproject.toml resolves to
	scripts/lock.sh --check

clean: ## Remove what builds and tests leave, the virtual environment included
	rm -rf $(VENV) .tools build dist site .mypy_cache .ruff_cache .pytest_cache

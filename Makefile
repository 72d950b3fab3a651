# Every target sets itself up: `make demo` and `make test` work in a fresh clone.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The newest Python there is; override with `make PYTHON=python3.12 …`.
PYTHON ?= $(shell for v in 3.14 3.13 3.12 3.11; do python$$v -c '' 2>/dev/null && { echo python$$v; exit; }; done; echo python3)
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.setup
LOCK := deploy/locks/dev.txt
PORT ?= 8080
# Three files of tests at a time: they wait more than they compute. In the order of their
# names, which has the long ones (acceptance, conformance, faults) before the many short
# ones: by number of tests, as xdist has it, one long file would be left for the end.
PYTEST_ARGS ?= -n 3 --dist loadfile --no-loadscope-reorder
# Where a network has a certificate authority of its own, the system knows it.
export UV_SYSTEM_CERTS ?= true

.PHONY: help setup demo test lint format protos docs golden recordings site screenshots released lock images ui bench faults chaos soak clean

help: ## List the targets.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(SETUP) ## Make the virtual environment .venv with everything locked in it.

$(SETUP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'faas-mesh needs Python 3.11 or newer; say which with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)' >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'Installing the locked requirements into $(VENV) …'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r $(LOCK)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $(SETUP)

demo: setup ## Bring the whole mesh up on PORT (8080), run the example functions, shut it down.
	@$(BIN)/python docs/examples/demo.py --port $(PORT)

test: setup ## Run all tests. What needs Docker is skipped, visibly, where there is no engine.
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: setup ## Style, types and protos.
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@cd proto && ../$(BIN)/buf lint && ../$(BIN)/buf format --diff --exit-code
	@if [ -d services/gateway/ui/node_modules ]; then $(BIN)/python services/gateway/ui/build.py --lint; fi

format: setup ## Put the code in the house's form.
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .
	@cd proto && ../$(BIN)/buf format -w

protos: setup ## Generate stubs, descriptor set and OpenAPI document from proto/.
	@$(BIN)/python proto/generate.py

docs: setup ## Write the pages of docs/reference that are made from the code.
	@$(BIN)/python docs/reference/generate.py

golden: setup ## Write what tests expect of the command's output; look at what changed.
	@rm -rf tests/integration/golden
	@UPDATE_GOLDEN=1 $(BIN)/python -m pytest -q tests/integration/test_cli_golden.py

recordings: setup ## Record the terminal sessions that the documentation shows.
	@$(BIN)/python docs/recordings/record.py

site: setup ## Build the documentation's site into build/site.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet -f deploy/site/mkdocs.yml

screenshots: setup ## Take the pictures of docs/images anew, in Chromium.
	@$(BIN)/python -m tests.acceptance.screenshots

# Once a release is made: what it promises clients is what later protos are held to.
released: setup
	@cd proto && ../$(BIN)/buf build --exclude-source-info --path faas -o released.binpb

lock: setup ## Resolve pyproject.toml anew into hashed requirements.
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links --extra dev pyproject.toml -o $(LOCK)

images: setup ## Build the runtime images: from a registry's slim bases, or else from Debian packages.
	@$(BIN)/python runtimes/build.py

ui: setup ## Build the web UI, whose files are checked in.
	@$(BIN)/python services/gateway/ui/build.py

bench: setup ## Measure the whole path; see docs/performance.md.
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)

faults: setup ## Inject every fault of the matrix; see docs/reliability.md.
	@$(BIN)/python -m tests.faults $(FAULTS_ARGS)

chaos: setup ## Let faults fall on every part for 20 minutes; see docs/reliability.md.
	@$(BIN)/python -u -m tests.faults.chaos $(CHAOS_ARGS)

soak: setup ## Run everything for half an hour and look for leaks; see docs/performance.md.
	@$(BIN)/python -m tests.bench.soak $(SOAK_ARGS)

clean: ## Remove what the targets made.
	@rm -rf $(VENV) dist build .pytest_cache .ruff_cache .mypy_cache .hypothesis

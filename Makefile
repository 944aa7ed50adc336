# Everything that needs the project's tools runs in .venv, which `make` builds from hashed requirements.
PYTHON ?= python3
BIN := .venv/bin
PROTOS := $(wildcard protos/*.proto)
# Tests start processes by the hundred: what these import is compiled once, also where Python is told not to.
COMPILED := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(CURDIR)/.pytest_cache/bytecode

.PHONY: help demo runs test check format protos golden bench bench-decisions bench-better bench-real bench-tick fuzz requirements clean

help: ## Show the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.venv/ready: requirements.txt pyproject.toml
	@echo "== building .venv from requirements.txt (hashed)"
	@$(PYTHON) -c 'import sys; sys.exit("turnout needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: .venv/ready ## Run a release on real Envoys and show it live; options: make demo ARGS="--fault errors=10%".
	@echo "== turnout demo $(ARGS)"
	@$(BIN)/turnout demo $(ARGS)

test: .venv/ready ## Run all tests; some start real Envoys on loopback.
	@echo "== tests"
	@$(COMPILED) $(BIN)/python -m pytest -n 4 $(ARGS)

runs: .venv/ready ## Run the demo N times in a row and count how it ended: make runs N=20 END=promoted.
	@$(BIN)/python scripts/runs.py $(or $(END),promoted) $(or $(N),20) $(ARGS)

check: .venv/ready ## Lint, types, import contracts, generated code.
	@echo "== ruff";         $(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "== mypy";         $(BIN)/mypy
	@echo "== imports";      $(BIN)/lint-imports --no-cache
	@echo "== protos";       $(BIN)/python scripts/protos.py --check
	@echo "== documents";    $(BIN)/turnout validate policies

format: .venv/ready ## Format the code.
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

protos: .venv/ready ## Generate controlplane/_pb from protos.
	@$(BIN)/python scripts/protos.py

golden: .venv/ready ## Rewrite the golden files after a wanted change of resources.
	@$(BIN)/python -m pytest -q tests/resources --update-golden

.PHONY: chaos
chaos: .venv/ready ## Kill the server N times at each point of a decision, leave every prefix of every example: make chaos N=30.
	@TURNOUT_CHAOS=$(or $(N),30) $(BIN)/python -m pytest -m chaos -s tests/chaos tests/envoy tests/app $(ARGS)

bench: .venv/ready ## Measure the xDS server beside a bare grpc.aio echo, 4 minutes; options: make bench ARGS="--quick".
	@$(BIN)/python -m bench.xds $(ARGS)

bench-decisions: .venv/ready ## Measure the decision rule beside others; hours; options: make bench-decisions ARGS="--quick".
	@$(BIN)/python -m bench.decisions $(ARGS)

bench-better: .venv/ready ## Measure the error rates of A/B tests, an hour: make bench-better ARGS="-n 100 --windows 720".
	@$(BIN)/python -m bench.better $(ARGS)

bench-real: .venv/ready ## Run releases on real Envoys beside simulated ones, 40 minutes: make bench-real ARGS="--runs 1".
	@$(BIN)/python -m bench.real runs $(ARGS)

bench-tick: .venv/ready ## Measure what a tick and the intake of statistics cost; ARGS="--releases 20 --proxies 16".
	@$(BIN)/python -m bench.tick $(ARGS)

fuzz: .venv/ready ## Fuzz streams, decoders and the order of events; options: make fuzz MINUTES=10.
	@$(BIN)/python -m bench.fuzz --minutes $(or $(MINUTES),1) $(ARGS)

requirements: ## Pin all dependencies with hashes, without addresses.
	@$(BIN)/pip install --quiet uv && $(BIN)/uv pip compile pyproject.toml --extra dev --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --universal --python-version 3.11 --quiet -o requirements.txt

clean: ## Remove what was built.
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

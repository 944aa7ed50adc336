# Everything that needs the project's tools runs in .venv, which `make` builds from hashed requirements.
PYTHON ?= python3
BIN := .venv/bin
PROTOS := $(wildcard protos/*.proto)

.PHONY: help demo test check format protos golden bench requirements clean

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
	@$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

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

requirements: ## Pin all dependencies with hashes, without addresses.
	@$(BIN)/pip install --quiet uv && $(BIN)/uv pip compile pyproject.toml --extra dev --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --universal --python-version 3.11 --quiet -o requirements.txt

clean: ## Remove what was built.
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The commands of the README. Each does all the set-up that it needs.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
NPM := $(BIN)/python frontend/npm.py --silent
DASHBOARD := api/clipwise_api/dashboard/index.html
FRONTEND := $(shell find frontend -type f -not -path '*/node_modules/*' -not -path '*/dist/*' 2>/dev/null)
PYTEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 3 --dist loadfile --no-loadscope-reorder

export CLIPWISE_DATA_DIR ?= $(CURDIR)/.clipwise

.PHONY: help demo up test check format client faults bench bench-api bench-engine bench-workers clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(BIN)/.service $(DASHBOARD) ## train a private model on the bundled digits, and look at it
	@$(BIN)/clipwise demo

up: $(BIN)/.service $(DASHBOARD) ## serve: api, dashboard and one worker, on SQLite
	@$(BIN)/clipwise up

test: $(BIN)/.dev $(DASHBOARD) ## all tests, against real servers
	@$(NPM) run test
	@$(PYTEST) $(ARGS)

check: $(BIN)/.dev $(DASHBOARD) ## ruff, mypy, import contracts, ESLint, tsc, client drift
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m clipwise_api.openapi | diff -u frontend/openapi.json - \
		|| { echo "frontend/openapi.json is behind the api: run make client"; exit 1; }
	@$(NPM) run client:check
	@$(NPM) run lint
	@$(NPM) run typecheck
	@$(NPM) run budget

format: $(BIN)/.dev ## rewrite the code in the house's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

client: $(BIN)/.dev frontend/node_modules/.installed ## write openapi.json and the dashboard's client anew
	@$(BIN)/python -m clipwise_api.openapi > frontend/openapi.json
	@$(NPM) run client

faults: $(BIN)/.dev ## 200 jobs while processes are killed, frozen and cut off; ARGS="--seed N" repeats one
	@$(BIN)/python -m tests.faults $(ARGS)

bench: $(BIN)/.bench $(DASHBOARD) ## what the service and the engine cost, measured side by side
	@$(BIN)/python -m tests.benchmarks.service
	@$(BIN)/python -m tests.benchmarks.engine $(ARGS)

bench-api: $(BIN)/.dev $(VENV)/mlflow/.installed ## the api under load, metrics beside MLflow; ARGS=lists measures a part
	@$(BIN)/python -m tests.benchmarks.load $(ARGS)

bench-engine: $(BIN)/.bench ## the engine alone, beside PyTorch and peers
	@$(BIN)/python -m tests.benchmarks.engine $(ARGS)

bench-workers: $(BIN)/.dev ## four workers beside one
	@$(BIN)/python -m tests.benchmarks.workers $(ARGS)

clean: ## remove what make built; the data folder stays
	rm -rf $(VENV) frontend/node_modules api/clipwise_api/dashboard

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Clipwise needs Python 3.11 or newer on PATH"; exit 1; }
	@echo "Creating $(VENV) with $(PYTHON) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'

$(BIN)/.service: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing Clipwise ..."
	@$(PIP) install --constraint constraints.txt --editable '.[api,worker]'
	@touch $@

$(BIN)/.dev: $(BIN)/.service
	@echo "Installing what the tests need ..."
	@$(PIP) install --constraint constraints.txt --group dev
	@touch $@

$(BIN)/.bench: $(BIN)/.dev
	@echo "Installing what the engine is measured beside ..."
	@$(PIP) install --constraint constraints.txt --group bench
	@touch $@

$(VENV)/mlflow/.installed: $(BIN)/python pyproject.toml
	@echo "Installing MLflow, which metrics are measured beside, into an environment of its own ..."
	@$(BIN)/python -m venv $(VENV)/mlflow
	@$(VENV)/mlflow/bin/python -m pip --disable-pip-version-check --quiet install --upgrade 'pip>=25.1'
	@$(VENV)/mlflow/bin/python -m pip --disable-pip-version-check --quiet install --group mlflow
	@touch $@

frontend/node_modules/.installed: $(BIN)/python frontend/package.json frontend/package-lock.json
	@echo "Installing the dashboard's packages ..."
	@$(NPM) ci --no-audit --no-fund
	@touch $@

$(DASHBOARD): frontend/node_modules/.installed $(FRONTEND)
	@echo "Building the dashboard ..."
	@$(NPM) run build
	@touch $@

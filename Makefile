# `make help` lists what there is. A machine needs Python 3.11 or newer, git and make; everything else is installed below
# .venv and .farm. Variables: CONFIG, PORT, HOST, BROKER, FOLDER for run and demo; ARGS for test, upstream and bench.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh
MAKEFLAGS += --no-builtin-rules

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := agentfarm tenants workers tests benchmarks examples manage.py
# One more than CI has cores: half of the time tests wait, for processes that start and for workers that are found dead.
JOBS ?= 3

FOLDER ?= .farm
BROKER ?= redis
LOCAL := $(BIN)/python -m agentfarm.local
LOCAL_OPTIONS := --folder $(FOLDER) --broker $(BROKER) $(if $(CONFIG),--config $(CONFIG)) $(if $(PORT),--port $(PORT)) $(if $(HOST),--host $(HOST))

##@ Try it

.PHONY: demo run up stop status env
demo: setup ## An agent, a human in the loop, a killed worker, two tenants: shown by running it, in about a minute
	@$(LOCAL) demo --folder $(FOLDER) $(if $(CONFIG),--config $(CONFIG))

run: setup ## The farm, until Ctrl-C: API on 2024, admin, Flower. CONFIG=path/to/langgraph.json PORT=2024 HOST=0.0.0.0 BROKER=redis|rabbitmq
	@$(LOCAL) run $(LOCAL_OPTIONS)

up: setup ## PostgreSQL and Valkey alone
	@$(LOCAL) up $(LOCAL_OPTIONS)

env: setup ## How to reach them, for a shell: eval "$(make -s env)"
	@$(LOCAL) env $(LOCAL_OPTIONS)

status: setup ## What runs
	@$(LOCAL) status $(LOCAL_OPTIONS)

stop: setup ## End the farm and its servers; the data stays
	@$(LOCAL) stop $(LOCAL_OPTIONS)

##@ Set up

.PHONY: setup setup-dev lock
setup: $(VENV)/.installed ## .venv with what the product needs, from requirements.txt, every file checked by its hash

setup-dev: $(VENV)/.installed-dev ## … and what tests and checks need, from requirements-dev.txt and requirements-agents.txt

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed; {sys.executable} is {v[0]}.{v[1]}. Name another: make PYTHON=/path/to/python3.11")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(BIN)/python
	@echo "installing $$(grep -c '==' requirements.txt) packages into $(VENV) …"
	@$(PIP) install --quiet --require-hashes -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-agents.txt | $(BIN)/python
	@echo "installing $$(cat requirements-dev.txt requirements-agents.txt | grep -c '==') packages into $(VENV) …"
	@$(PIP) install --quiet --require-hashes -r requirements-dev.txt
	@$(PIP) install --quiet --require-hashes --no-deps -r requirements-agents.txt
	@touch $(VENV)/.installed $@

UV := $(or $(shell command -v uv),.farm/tools/bin/uv)
COMPILE := $(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --no-emit-index-url

lock: $(UV) ## Write the requirements*.txt from the .in files. ARGS="--upgrade" or "--upgrade-package NAME"
	$(COMPILE) $(ARGS) requirements.in -o requirements.txt
	$(COMPILE) $(ARGS) requirements-sqs.in -c requirements.txt -o requirements-sqs.txt
	$(COMPILE) $(ARGS) requirements-dev.in -c requirements.txt -o requirements-dev.txt
	$(COMPILE) $(ARGS) --no-deps requirements-agents.in -o requirements-agents.txt

.farm/tools/bin/uv:
	@$(PYTHON) -m venv .farm/tools
	@.farm/tools/bin/python -m pip --disable-pip-version-check install --quiet uv

##@ Check

.PHONY: check static format-check lint imports types test test-fast test-rest crash chaos soak mutants upstream differential bench format
check: static test-fast test-rest ## What CI runs, cheapest first (CI adds `make upstream`)

static: format-check lint imports types ## All that needs no test: format, lint, imports, types

format-check: setup-dev
	@$(BIN)/ruff format --check $(SOURCES)

lint: setup-dev ## ruff, every rule but those that pyproject.toml lists with their reason
	@$(BIN)/ruff check $(SOURCES)

imports: setup-dev ## import-linter: imports point down the page
	@$(BIN)/lint-imports

types: setup-dev ## mypy
	@$(BIN)/mypy

test-fast: setup-dev ## Unit and contract tests
	@$(BIN)/pytest -q -n $(JOBS) tests/unit tests/contract $(ARGS)

test-rest: setup-dev
	@$(BIN)/pytest -n $(JOBS) tests --ignore tests/unit --ignore tests/contract $(ARGS)

test: setup-dev ## Every test, on PostgreSQL, Valkey and RabbitMQ that it starts itself. ARGS="-k name"
	@$(BIN)/pytest -n $(JOBS) $(ARGS)

crash: setup-dev ## A death at every point of every message in every way (tests/integration/crash), where `test` tries a sample
	@AGENTFARM_CRASH=all $(BIN)/pytest -n $(JOBS) --dist=load --timeout 3600 -s tests/integration/crash $(ARGS)

chaos: setup-dev ## Every kind of fault over a whole farm, from a seed; ends by itself. SECONDS=90 BROKER=redis|rabbitmq|sqs SEED=7 SLACK=2
	@$(BIN)/python -m tests.chaos --seconds $(or $(SECONDS),90) --broker $(BROKER) $(if $(SEED),--seed $(SEED)) --slack $(or $(SLACK),1) $(ARGS)

soak: setup-dev ## A farm under steady load with faults, for hours: does anything grow? SECONDS=3600 BROKER=redis|rabbitmq SEED=7
	@$(BIN)/python -m tests.soak --seconds $(or $(SECONDS),3600) --broker $(BROKER) $(if $(SEED),--seed $(SEED)) $(ARGS)

mutants: setup-dev ## Farms broken on purpose, each of which a test or a storm must catch; a table. ARGS=no-fence SLACK=2
	@$(BIN)/python -m tests.chaos.mutants --slack $(or $(SLACK),1) $(ARGS)

upstream: setup-dev ## LangGraph's own tests, of exactly the locked release, through our engine, our saver and our store
	@PYTHONPATH=. $(BIN)/python tests/upstream/run.py $(ARGS)

differential: setup-dev ## Every graph of the corpus at the farm and at stock LangGraph, then again while workers are killed; a table by feature
	@DIFFERENTIAL_SAMPLE=$(or $(SAMPLE),all) $(BIN)/pytest -q -s tests/contract/differential $(ARGS)

bench: setup-dev ## Measure, beside named baselines in the same run. BROKER=redis|rabbitmq|both ARGS="--help"
	@$(BIN)/python -m benchmarks --broker $(BROKER) $(ARGS)

format: setup-dev ## Format, and mend what ruff can mend
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

##@ Clean up

.PHONY: clean reset help
clean: ## Caches of tools
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist *.egg-info
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

reset: setup ## End the farm and delete its data
	@$(LOCAL) reset $(LOCAL_OPTIONS)

help: ## This list
	@awk 'BEGIN { FS = ":.*## " } /^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

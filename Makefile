# Every chore has one name; `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BENCH := .venv-bench
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check --quiet
UV := $(VENV)/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header --quiet

.DEFAULT_GOAL := help
.PHONY: help install train serve test lint fmt lock wheel clean reset-counts storms exactness bench bench-short

help: ## list the chores
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/all.stamp ## set up .venv with everything that development needs

train: $(if $(DATASET),$(VENV)/all.stamp,$(VENV)/serve.stamp) ## train a model: the sample, or DATASET=my.csv (ARGS="--label y ...")
	$(RUN) -m training.train $(if $(DATASET),--dataset "$(DATASET)") $(ARGS)

serve: $(VENV)/serve.stamp $(if $(ISOSERVE_MODEL),,models/model.pickle) ## serve models/model.pickle on port 8000, training the sample first if it is missing
	@exec $(RUN) -m service

test: $(VENV)/all.stamp ## run the tests
	$(RUN) -m pytest -n 2

lint: $(VENV)/all.stamp ## check style (ruff) and types (mypy)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

fmt: $(VENV)/all.stamp ## format the code
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

lock: $(VENV)/all.stamp ## compile requirements/*.txt anew from pyproject.toml
	$(UV) --output-file requirements/serve.txt
	$(UV) --extra dev --constraint requirements/serve.txt --output-file requirements/all.txt
	$(UV) --extra bench --constraint requirements/serve.txt --output-file requirements/bench.txt

wheel: $(VENV)/all.stamp ## build the wheel into dist/
	$(PIP) wheel . --no-deps --no-build-isolation --wheel-dir dist

clean: ## remove .venv, caches and builds; models and state stay
	rm -rf $(VENV) $(BENCH) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

models/model.pickle: | $(VENV)/serve.stamp
	$(RUN) -m training.train

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit( \
	"isoserve needs Python 3.11, 3.12 or 3.13; name one, as in: make $(MAKECMDGOALS) PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/serve.stamp: requirements/serve.txt | $(VENV)/bin/python
	@echo "Installing what serving needs into $(VENV) ..."
	@$(PIP) install --require-hashes -r $<
	@touch $@

$(VENV)/all.stamp: requirements/all.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing what development needs into $(VENV) ..."
	@$(PIP) install --require-hashes -r $<
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $(VENV)/serve.stamp $@

reset-counts: $(VENV)/serve.stamp ## let all counts begin at 0; stop the service first
	@$(RUN) -m service counts reset

storms: $(VENV)/all.stamp ## kill, fill the disk and turn back the clock under load, and count (ARGS=--tenth)
	$(RUN) tests/storms.py $(ARGS)

exactness: $(VENV)/all.stamp ## search for minutes for a score that differs from scikit-learn's
	$(RUN) -m tests.exactness

bench: $(BENCH)/stamp ## measure against scikit-learn, shap and treelite; writes benchmarks/results.md
	$(BENCH)/bin/python -m benchmarks --output benchmarks/results.md

bench-short: $(VENV)/all.stamp ## half a minute of it, to see that it runs
	$(RUN) -m benchmarks --short

$(BENCH)/stamp: requirements/bench.txt
	$(PYTHON) -m venv $(BENCH)
	@echo "Installing what the benchmarks need into $(BENCH) ..."
	@$(BENCH)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $<
	@touch $@

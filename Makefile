# Every chore has one name; `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BENCH := .venv-bench
TESTS ?= not slow
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check --quiet
LOCK := $(VENV)/bin/uv pip compile --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header --quiet

define ADDRESSES
	echo "dashboard   http://$$(docker compose port grafana 3000)/d/isoserve"; \
	echo "alerts      http://$$(docker compose port prometheus 9090)/alerts"; \
	echo "service     http://$$(docker compose port service 8000)"
endef

.DEFAULT_GOAL := help
.PHONY: help install train serve test test-slow lint fmt lock wheel clean notebooks up demo down logs jupyter \
	containers reset-counts check-model storms torture audit sbom alerts-a-day exactness api interop \
	bench bench-peers bench-short

help: ## list the chores
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/all.stamp ## set up .venv with everything that development needs

train: $(if $(DATASET),$(VENV)/train.stamp,$(VENV)/serve.stamp) ## train a model: the sample, or DATASET=my.csv (ARGS="--label y ...")
	$(RUN) -m training.train $(if $(DATASET),--dataset "$(DATASET)") $(ARGS)

serve: $(VENV)/serve.stamp $(if $(ISOSERVE_MODEL),,models/model.pickle) ## serve models/model.pickle on port 8000, training the sample first if it is missing
	@exec $(RUN) -m service

test: $(VENV)/all.stamp ## run the tests, but for the slow ones
	$(RUN) -m pytest -n 2 -m "$(TESTS)"

test-slow: $(VENV)/all.stamp ## run the tests that take tens of seconds each: notebooks, KDD Cup 99
	$(RUN) -m pytest -m slow

lint: $(VENV)/all.stamp ## check style (ruff) and types (mypy)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

fmt: $(VENV)/all.stamp ## format the code, and take the outputs out of the notebooks
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .
	$(RUN) -m nbconvert --log-level WARN --clear-output notebooks/*.ipynb

lock: $(VENV)/all.stamp ## compile requirements/*.txt anew from pyproject.toml
	$(LOCK) pyproject.toml --output-file requirements/serve.txt
	$(LOCK) pyproject.toml --extra train --constraint requirements/serve.txt --output-file requirements/train.txt
	$(LOCK) pyproject.toml --extra notebooks --constraint requirements/train.txt --output-file requirements/notebooks.txt
	$(LOCK) pyproject.toml --extra dev --constraint requirements/notebooks.txt --output-file requirements/all.txt
	echo hatchling | $(LOCK) - --constraint requirements/all.txt --output-file requirements/build.txt
	$(LOCK) pyproject.toml --extra bench --constraint requirements/serve.txt --output-file requirements/bench.txt
	$(LOCK) requirements/audit.in --output-file requirements/audit.txt
	$(LOCK) requirements/seldon.in --output-file requirements/seldon.txt
	$(LOCK) requirements/mlserver.in --output-file requirements/mlserver.txt
	$(LOCK) requirements/clients.in --output-file requirements/clients.txt

wheel: $(VENV)/all.stamp ## build the wheel into dist/
	$(PIP) wheel . --no-deps --no-build-isolation --wheel-dir dist

clean: ## remove .venv, caches and builds; models and state stay
	rm -rf $(VENV) .venv-* build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

notebooks: $(VENV)/all.stamp ## run the notebooks and write them as pages into notebooks/html/
	$(RUN) -m training.render

# The images' labels say which commit they were made of.
up demo jupyter: export REVISION = $(shell git describe --always --dirty 2>/dev/null || echo unknown)
up demo jupyter: export CREATED = $(shell git log -1 --format=%cI 2>/dev/null || echo unknown)

up: ## start the service, Prometheus and Grafana in containers
	docker compose up --detach --build
	@$(ADDRESSES)

demo: ## the same, with ten minutes of requests; waits until no panel of the dashboard is empty
	docker compose --profile load up --detach --build
	@docker compose --profile load exec -T load python -m monitoring.panels --wait 120
	@$(ADDRESSES)

down: ## stop all containers; model, counts and Prometheus' data stay
	docker compose --profile '*' down

logs: ## follow the containers' logs
	docker compose --profile '*' logs --follow --tail 50

jupyter: ## start Jupyter in a container, beside the service, and print the address to click
	docker compose --profile notebook up --detach --build --wait jupyter
	@echo "http://$$(docker compose --profile notebook port jupyter 8888)/lab?$$( \
		docker compose --profile notebook logs jupyter | grep -o 'token=[0-9a-f]*' | tail -n 1)"

containers: ## try the containers from a fresh clone, as a new user would
	.ci/containers

reset-counts: $(VENV)/serve.stamp ## let all counts begin at 0; stop the service first
	@$(RUN) -m service counts reset

check-model: $(VENV)/serve.stamp ## check models/model.pickle, or FILE=other.pickle, before it is served
	@$(RUN) -m service check $(FILE)

storms: $(VENV)/all.stamp ## kill, fill the disk and turn back the clock under load, and count (ARGS=--tenth)
	$(RUN) -m tests.stress.storms $(ARGS)

alerts-a-day: $(VENV)/all.stamp ## count the alerts that the rules give on NAB's time series (ARGS=folder)
	$(RUN) -m tests.stress.alerts_on_nab $(ARGS)

audit: .venv-audit/stamp ## ask for known faults of the libraries that serving needs
	.venv-audit/bin/python -m tests.stress.audit

sbom: .venv-audit/stamp ## list the components of the service, in CycloneDX, as dist/sbom.json
	@mkdir -p dist
	.venv-audit/bin/cyclonedx-py requirements --output-reproducible --of JSON \
		--output-file dist/sbom.json requirements/serve.txt

torture: $(VENV)/all.stamp ## hostile and damaged model files, swaps, strange requests, floods, slow clients, stops (ARGS=--tenth)
	$(RUN) -m tests.stress $(ARGS)

exactness: $(VENV)/all.stamp ## search for minutes for a score that differs from scikit-learn's
	$(RUN) -m tests.stress.exactness

api: $(VENV)/all.stamp ## hold the OpenAPI document against the service: 2,000 requests a route (CASES=100)
	$(RUN) -m tests.stress.api $(or $(CASES),2000)

interop: $(VENV)/all.stamp .venv-seldon/stamp .venv-mlserver/stamp .venv-clients/stamp ## let the real clients use the service; writes docs/internals/conformance.md
	$(RUN) -m tests.interop

bench: $(BENCH)/stamp ## measure against scikit-learn, shap and treelite; writes benchmarks/results.md
	$(BENCH)/bin/python -m benchmarks --output benchmarks/results.md

bench-peers: $(BENCH)/stamp .venv-seldon/stamp .venv-mlserver/stamp ## measure against Seldon's wrapper and MLServer; writes benchmarks/peers.md
	$(BENCH)/bin/python -m benchmarks peers --output benchmarks/peers.md

bench-short: $(VENV)/all.stamp ## a minute and a half of it, to see that it runs
	$(RUN) -m benchmarks --short

models/model.pickle: | $(VENV)/serve.stamp
	$(RUN) -m training.train

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit( \
	"isoserve needs Python 3.11, 3.12 or 3.13; name one, as in: make $(MAKECMDGOALS) PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/serve.stamp: requirements/serve.txt | $(VENV)/bin/python
	@echo "Installing what serving needs into $(VENV), which takes a minute or two ..."
	@$(PIP) install --require-hashes -r $<
	@touch $@

$(VENV)/train.stamp: requirements/train.txt | $(VENV)/bin/python
	@echo "Installing what training on a table of your own needs into $(VENV), which takes a minute or two ..."
	@$(PIP) install --require-hashes -r $<
	@touch $(VENV)/serve.stamp $@

$(VENV)/all.stamp: requirements/all.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing what development needs into $(VENV), which takes a minute or two ..."
	@$(PIP) install --require-hashes -r $<
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $(VENV)/serve.stamp $(VENV)/train.stamp $@

# Environments beside ours: to measure in, and those of others.
.venv-%/stamp: requirements/%.txt | $(VENV)/all.stamp
	$(PYTHON) -m venv $(@D)
	@echo "Installing $< into $(@D), which takes a minute or so ..."
	@$(VENV)/bin/uv pip install --quiet --require-hashes -r $< --python $(@D)/bin/python
	@touch $@

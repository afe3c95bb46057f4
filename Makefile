# Every chore has one name; `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BENCH := .venv-bench
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
.PHONY: help install train serve score test lint fmt lock wheel up demo down logs jupyter notebooks check-model \
	bench nightly release clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/all.stamp ## set up .venv with everything that development needs

train: $(VENV)/train.stamp ## train a model: the sample, or DATASET=my.csv (ARGS="--label y ...")
	$(RUN) -m training.train $(if $(DATASET),--dataset "$(DATASET)") $(ARGS)

serve: $(VENV)/serve.stamp $(if $(ISOSERVE_MODEL),,models/model.pickle) ## serve models/model.pickle on port 8000, training the sample first if it is missing
	@exec $(RUN) -m service

score: $(VENV)/train.stamp $(if $(ISOSERVE_MODEL),,models/model.pickle) ## score a table of any size: FILE=big.parquet (OUTPUT=scored.parquet ARGS="--explain 3 ...")
	@$(RUN) -m service score "$(FILE)" --output "$(or $(OUTPUT),$(basename $(FILE))-scored$(suffix $(FILE)))" $(ARGS)

# What a run compiles, the next need not, whatever the shell says.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/all.stamp ## run the tests, except the slow ones
	$(RUN) -m pytest -n 3 --dist worksteal -m "not slow"

nightly: $(VENV)/all.stamp ## run everything in full, for an hour (ONLY="storms interop": these parts)
	.ci/nightly $(ONLY)

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
	$(LOCK) pyproject.toml --extra bench --constraint requirements/train.txt --output-file requirements/bench.txt
	$(LOCK) requirements/audit.in --output-file requirements/audit.txt
	$(LOCK) requirements/seldon.in --output-file requirements/seldon.txt
	$(LOCK) requirements/mlserver.in --output-file requirements/mlserver.txt
	$(LOCK) requirements/clients.in --output-file requirements/clients.txt

wheel: $(VENV)/all.stamp ## build the wheel into dist/
	$(PIP) wheel . --no-deps --no-build-isolation --wheel-dir dist

release: $(VENV)/all.stamp ## build a release into dist/ (wheel, sdist, components, checksums) and check it
	.ci/release

clean: ## remove .venv, caches and builds; models and state stay
	rm -rf $(VENV) .venv-* build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

notebooks: $(VENV)/all.stamp ## run the notebooks and write them as pages into notebooks/html/
	$(RUN) -m training.render

# The images' labels say which commit they were made of.
up demo jupyter: export VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' service/__init__.py)
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

check-model: $(VENV)/serve.stamp ## check models/model.pickle, or FILE=other.pickle, before it is served
	@$(RUN) -m service check $(FILE)

bench: $(BENCH)/stamp .venv-seldon/stamp .venv-mlserver/stamp ## measure, also against other libraries and servers; writes benchmarks/*.md
	$(BENCH)/bin/python -m benchmarks --output benchmarks/results.md
	$(BENCH)/bin/python -m benchmarks peers --output benchmarks/peers.md

models/model.pickle: | $(VENV)/train.stamp
	$(RUN) -m training.train

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit( \
	"isoserve needs Python 3.11, 3.12 or 3.13; name one, as in: make $(MAKECMDGOALS) PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/%.stamp: requirements/%.txt | $(VENV)/bin/python
	@echo "Installing $< into $(VENV), which takes a minute or so ..."
	@.ci/install $(VENV) $<
	@touch $@

$(VENV)/all.stamp: requirements/all.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing what development needs into $(VENV), which takes a minute or so ..."
	@.ci/install $(VENV) $<
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $(VENV)/serve.stamp $(VENV)/train.stamp $@

# Environments beside ours: to measure in, and those of others.
.venv-%/stamp: requirements/%.txt
	@$(PYTHON) -m venv $(@D)
	@echo "Installing $< into $(@D), which takes a minute or so ..."
	@.ci/install $(@D) $<
	@touch $@

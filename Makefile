# Everything lives in .venv, built from the versions pinned in constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One file that is newer than what it was built from: make rebuilds the environment only when that changed.
READY := $(VENV)/.ready
# Where it is set, each of the many processes that tests start compiles all it imports anew.
export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-long test-workers chaos check bench clean

help:  ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(READY)  ## Build .venv with everything.

$(READY): pyproject.toml constraints.txt $(wildcard workers/*/pyproject.toml)
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); sys.exit(0 if ok else "mosaic_cluster needs Python 3.11, 3.12 or 3.13, this is " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt pip setuptools wheel
	# torch first: what pulls a bare torch later would fetch gigabytes of CUDA builds.
	$(BIN)/python -m pip install -q -c constraints.txt torch
	# What setuptools says about editable installs in general is no news to anyone here.
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e ".[cluster,mlflow,tensorboard,wandb,dev]" $(foreach worker,$(wildcard workers/*/pyproject.toml),-e $(dir $(worker)))
	@touch $@

demo: $(READY)  ## Sweep PPO on CartPole: four configurations, two seeds each, on an embedded Ray.
	$(BIN)/mosaic run docs/examples/cartpole-sweep.yaml

test: $(READY)  ## The test suite, three at a time (12 minutes on two cores).
	# Most tests wait for processes to start: more at once than there are cores.
	$(BIN)/python -m pytest -n 3 --dist worksteal

test-slow: $(READY)  ## The heavier tests, with the real libraries of cleanrl, ray and mctx: the contract, kills, chaos.
	$(BIN)/python -m pytest -m "slow and not long" -n 2 --dist loadgroup

test-long: $(READY)  ## The longest, one at a time: some watch what a machine does meanwhile (an hour; before a release).
	$(BIN)/python -m pytest -m long

test-workers: $(READY)  ## Build all workers' environments from nothing, run every library for real (CACHE=folder: kept there).
	@folder='$(CACHE)'; \
	if [ -z "$$folder" ]; then folder=$$(mktemp -d -t mosaic-environments-XXXXXX); trap 'rm -rf "$$folder"' EXIT; fi; \
	export MOSAIC_CACHE="$$folder" MOSAIC_TEST_ENVIRONMENTS="$$folder"; \
	$(BIN)/mosaic workers install --all --debian-python && $(BIN)/mosaic workers environments && $(BIN)/python -m pytest -m workers -n 2 --dist loadgroup

chaos: $(READY)  ## 38 times kill -9, 24 workers, 1M events, nothing lost (10 minutes; SEED=n).
	PYTHONPATH=tests $(BIN)/python -m chaos.run $(if $(SEED),--seed $(SEED))

check: $(READY)  ## Style, types, import contracts, links, examples.
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vermin -q -t=3.8- --no-tips --violations --eval-annotations mosaic_cluster/worker mosaic_cluster/catalog/gym_gui mosaic_cluster/catalog/site_hook.py
	$(BIN)/python tests/checks/links.py
	$(BIN)/python tests/checks/examples.py

bench: $(READY)  ## Measure, beside the named peer in the same run.
	$(BIN)/python tests/benchmarks/all.py

clean:  ## Remove what make built.
	rm -rf $(VENV) build *.egg-info workers/*/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

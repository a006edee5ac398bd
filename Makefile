# Every target first sets up a virtual environment in .venv, with the tested versions in constraints.txt: by uv where it
# is installed, else by pip.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
RESOLVE ?= --constraint constraints.txt
UV := $(shell command -v uv 2>/dev/null)
ifeq ($(UV),)
CREATE = $(PYTHON) -m venv $(VENV)
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check $(RESOLVE) --editable
else
CREATE = $(UV) venv --quiet --seed --allow-existing --python $(PYTHON) $(VENV)
INSTALL = $(UV) pip install --quiet --python $(BIN)/python $(RESOLVE) --editable
endif

.PHONY: help setup train eval sample experiments results test test-slow chaos lint bench bench-gpu scaling docs docs-serve notebooks clean

help:
	@echo "make setup                                          sets up .venv; every other target does so first"
	@echo "make train EXP=ddpm_digits [ARGS='key=value ...']   trains; ends with samples and metrics"
	@echo "make eval CKPT=runs/.../last.ckpt [ARGS='n=1000']    metrics.json, samples.png, report.html"
	@echo "make sample CKPT=runs/.../last.ckpt [ARGS='n=64']    samples.png, samples.npz"
	@echo "make test | make test-slow                          the tests of every change; the lengthy rest of them"
	@echo "make lint | make chaos                              ruff and mypy; kills trainings and compares them"
	@echo "make bench | make bench-gpu [ARGS='only=steps']    compares it with other projects: docs/benchmarks.md"
	@echo "make scaling                                        estimates what recipes cost on GPUs: docs/scaling.md"
	@echo "make docs | make docs-serve                         the documentation, into site/; shown while you write"
	@echo "make notebooks [ARGS=quickstart]                    executes docs/notebooks/, with their outputs"
	@echo "make results EXP=ddpm_digits                        trains it with three seeds: docs/results.md"
	@echo "make experiments                                    lists all experiments: data, parameters, method, result"

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "score_lightning needs Python 3.11 or later; choose one with PYTHON=python3.12"; exit 2; }
	@echo "Setting up $(VENV) (once, a few minutes) ..."
	@$(CREATE)
	@$(INSTALL) '.[dev]'
	@touch $@

train: setup
	@test -n "$(EXP)" || { echo "which experiment? make train EXP=ddpm_digits"; exit 2; }
	@$(BIN)/python -m score_lightning.train exp=$(EXP) $(ARGS)

eval sample: setup
	@test -n "$(CKPT)" || { echo "which checkpoint? make $@ CKPT=runs/.../checkpoints/last.ckpt"; exit 2; }
	@$(BIN)/python -m score_lightning.$@ ckpt=$(CKPT) $(ARGS)

experiments: setup
	@$(BIN)/python -m score_lightning.experiments

test: setup
	@$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow" $(ARGS)

test-slow: setup
	@$(BIN)/python -m pytest -n auto --dist worksteal -m slow $(ARGS)

chaos: setup
	@$(BIN)/python tests/chaos.py $(ARGS)
	@$(BIN)/python tests/chaos.py processes=2 $(ARGS)
	@$(BIN)/python tests/chaos.py elastic=true

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python tests/structure.py

bench bench-gpu: setup
	@$(INSTALL) '.[bench]'
	@$(BIN)/python -m score_lightning.bench $(if $(findstring gpu,$@),device=cuda) $(ARGS)

results: setup
	@$(BIN)/python -m score_lightning.bench.results $(if $(EXP),exp=$(EXP)) $(if $(NAME),name=$(NAME)) $(ARGS)

scaling: setup
	@$(BIN)/python -m score_lightning.bench.scaling $(ARGS)

docs: $(VENV)/.docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)
	@echo "site/index.html; make docs-serve shows it with search"

docs-serve: $(VENV)/.docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve $(ARGS)

notebooks: setup
	@$(BIN)/python docs/execute_notebooks.py $(ARGS)

$(VENV)/.docs: $(VENV)/.ready
	@$(INSTALL) '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) build site .cache *.egg-info .pytest_cache .mypy_cache .ruff_cache

# Two commands: `make demo` and `make test`. Both set up .venv on first use, and again only when
# pyproject.toml or constraints.txt change. `make test VENV=path` runs in an environment of your own instead,
# into which nothing is installed.

.DEFAULT_GOAL := help
.PHONY: help demo test check bench site

VENV ?= .venv
PYTHON3 ?= python3
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile -c constraints.txt

ifeq ($(VENV),.venv)
RUN_STAMP := $(VENV)/.stamp-run
DEV_STAMP := $(VENV)/.stamp-dev
endif

help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(RUN_STAMP)  ## Adapt to medical, legal and finance texts from five examples each; writes demo_output/index.html.
	OMP_NUM_THREADS=1 $(BIN)/python -m fewshot_nlp demo --out demo_output

test: $(DEV_STAMP)  ## Run all tests.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal --durations=25

check: $(DEV_STAMP)  ## Lint, formatting, types, direction of imports.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(DEV_STAMP)  ## Time what people wait for beside a stored commit's figures; needs FEWSHOT_NLP_DATA.
	OMP_NUM_THREADS=1 $(BIN)/python evaluation/speed/bench.py

site: $(DEV_STAMP)  ## Build the documentation into site/.
	$(BIN)/python -m mkdocs build --strict

$(VENV)/.stamp-venv:
	$(PYTHON3) -m venv $(VENV)
	@touch $@

$(VENV)/.stamp-run: $(VENV)/.stamp-venv pyproject.toml constraints.txt
	@echo "Installing into $(VENV); torch is large, so this takes some minutes the first time."
	$(PIP_INSTALL) -e '.[offline]'
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-venv pyproject.toml constraints.txt
	@echo "Installing into $(VENV); torch is large, so this takes some minutes the first time."
	$(PIP_INSTALL) -e '.[offline,dev]'
	@touch $@ $(VENV)/.stamp-run

# make demo | demo-scratch | test | test-all | lint | install | docs | clean

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin

TORCH_INDEX ?=
PIP := $(BIN)/pip install --disable-pip-version-check --quiet --constraint constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: demo demo-scratch test test-all lint install docs clean

demo: $(VENV)/.demo
	$(BIN)/isogloss demo

demo-scratch: $(VENV)/.demo
	$(BIN)/isogloss demo --scratch --out demo-scratch

# Two processes, a file in one of them: what a file sets up is made once.
test: $(VENV)/.dev
	$(BIN)/pytest -n 2 --dist loadfile

test-all: $(VENV)/.dev
	$(BIN)/pytest -n 2 --dist loadfile -m "slow or not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests docs benchmarks examples
	$(BIN)/mypy

docs: $(VENV)/.dev
	$(BIN)/python docs/generate_recipes.py

install: $(VENV)/.dev

clean:
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests docs benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "isogloss needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# What the demo needs; the developers' tools come on top.
$(VENV)/.demo: pyproject.toml constraints.txt model/pyproject.toml | $(BIN)/pip
	@echo "Installing isogloss into $(VENV); the first time takes a few minutes."
	$(PIP) --editable . ./model
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt model/pyproject.toml | $(BIN)/pip
	@echo "Installing isogloss and its test tools into $(VENV); the first time takes a few minutes."
	$(PIP) --editable ".[dev]" ./model
	@touch $@

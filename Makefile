# `make demo` and `make test` need nothing but Python >= 3.11: they make their own virtual environment in .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help demo test lint format bench setup clean

help:
	@echo "make demo     a clip, its counterfactual, the truth and a report, in demo/"
	@echo "make test     the tests (make test ARGS='-m slow' for the slow ones)"
	@echo "make lint     ruff, mypy, and the floors of the house"
	@echo "make format   let ruff write the format"
	@echo "make bench    speed and memory, on this machine"

demo: $(READY)
	$(BIN)/countervid demo --out demo

test: $(READY)
	$(BIN)/python -m pytest -n auto $(ARGS)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	@set -e; for script in $(shell grep -L "run OUT" benchmarks/*.py); do echo "== $$script"; $(BIN)/python $$script; done

setup: $(READY)

# Made again whenever the dependencies change; left unmarked, and so made again, when it is interrupted.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "countervid needs Python 3.11 or later; this is $(PYTHON). Try: make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/countervid phantom compile
	@touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build

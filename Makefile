# `make demo` and `make test` set up everything they need in .venv on their first run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
REAL_DATA ?=
FUZZ_SECONDS ?= 600

.PHONY: setup demo docs test faults fuzz mutants lint format clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/python demo/run.py

# Warnings are errors; the pages are in build/site.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test: $(READY)
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term $(if $(REAL_DATA),--real-data=$(REAL_DATA))

faults: $(READY)
	$(BIN)/python -m pytest tests/faults --faults=all -n 2 --dist loadfile

fuzz: $(READY)
	$(BIN)/python tests/fuzz/run.py --seconds $(FUZZ_SECONDS)

# The program that makes the changes is needed here only; what it does is set in pyproject.toml.
mutants: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt 'mutmut==3.8.1'
	$(BIN)/mutmut run --max-children 2
	$(BIN)/mutmut results

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist mutants .coverage*

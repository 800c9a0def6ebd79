# Everything is set up in .venv when it is first needed: `make demo` needs little of it, all else adds the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_READY := $(VENV)/.demo-ready
READY := $(VENV)/.ready
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
REAL_DATA ?=
FUZZ_SECONDS ?= 2700

.PHONY: setup demo docs test coverage faults extras fuzz mutants lint format clean

setup: $(READY)

$(DEMO_READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[report,train]'
	touch $@

$(READY): $(DEMO_READY)
	$(INSTALL) --editable '.[dev]'
	touch $@

demo: $(DEMO_READY)
	$(BIN)/python demo/run.py

# Warnings are errors; the pages are in build/site.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

TESTS := -n 3 --dist loadgroup --no-loadscope-reorder $(if $(REAL_DATA),--real-data=$(REAL_DATA))

test: $(READY)
	$(BIN)/python -m pytest $(TESTS)

# Apart from `make test`: tests of parsers take up to 2.5 times as long while they are traced.
coverage: $(READY)
	$(BIN)/python -m pytest $(TESTS) --cov --cov-report=term
	@$(BIN)/python -m coverage json --quiet -o build/coverage.json
	@$(BIN)/python -c 'import json; totals = json.load(open("build/coverage.json"))["totals"]; \
	print("Covered: {percent_statements_covered:.2f}% of {num_statements} statements," \
	" {percent_branches_covered:.2f}% of {num_branches} branches".format(**totals))'

faults: $(READY)
	$(BIN)/python -m pytest tests/faults tests/execution/cluster/test_one_machine.py --faults=all -n 2 --dist loadfile

# Coverage-guided, by a program that is needed here only.
fuzz: $(READY)
	$(INSTALL) 'atheris==3.0.0'
	$(BIN)/python tests/fuzz/run.py --seconds $(FUZZ_SECONDS)

# From the package index, into an empty environment for each extra.
extras: $(READY)
	$(BIN)/python -m pytest tests/packaging/test_extras.py --packaging=all

# The program that makes the changes is needed here only; what it does is set in pyproject.toml.
mutants: $(READY)
	$(INSTALL) 'mutmut==3.8.1'
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

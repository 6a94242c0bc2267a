# A clone with python3 (3.11 or newer) is enough: each target makes the virtual environment it needs.
#   make demo    the whole migration on embedded servers, in a minute
#   make test    everything that must hold before a change lands, but for what takes minutes
#   make test-all  the long ones as well: more histories, chaos, all of the demo, every variant of the differential test
#   make check   the same without servers, for while you work (< 60 s)
#   make histories  thousands of short ones drawn at random, for each pair of two servers: HISTORIES=400 of each
#   make soak    chaos: everything fails at random, for minutes; ARGS="--seed 7 --faults 200 --seconds 600"
#   make bench   side by side with its peers
#   make docs    writes docs/commands.md anew, from the tables that it shows
#   make clean   removes what the above made

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
HISTORIES ?= 400
ARGS ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-all check lint histories soak bench docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/.stamp-demo
	$(BIN)/crossfade demo $(ARGS)

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m "not slow" $(ARGS)

test-all: lint
	CROSSFADE_HISTORIES=20 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

check: lint
	$(BIN)/python -m pytest -q -m "not server and not slow and not docker" $(ARGS)

lint: $(VENV)/.stamp-test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

histories: $(VENV)/.stamp-test
	CROSSFADE_HISTORIES=$(HISTORIES) $(BIN)/python -m pytest -q -n $(JOBS) tests/convergence $(ARGS)

soak: $(VENV)/.stamp-test
	$(BIN)/python -m tests.soak $(ARGS)

bench: $(VENV)/.stamp-bench
	$(BIN)/python -m bench $(ARGS)

docs: $(VENV)/.stamp-test
	$(BIN)/python -m proxy.commands_doc

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp per extra: a changed pyproject.toml installs again, nothing else does.
$(VENV)/.stamp-%: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[$*]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "crossfade needs Python 3.11 or newer; set one with: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

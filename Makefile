# Everything runs in .venv, which the targets make by themselves and bring up to date when pyproject.toml changes.
#
#   make PYTHON=python3.12 test      with another interpreter (run `make clean` first if .venv exists)
#   make FOLDER=/my/photos demo      on your own photographs

PYTHON ?= python3
FOLDER ?=
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check bench clean
# Two pips at once in one environment would break it; the tests run in parallel by themselves.
.NOTPARALLEL:

help: ## say what there is
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/stamp-demo ## photographs through a broker from two producers, on this machine
	$(BIN)/dfserve demo $(FOLDER)

test: check ## the checks, then every test
	$(BIN)/python -m pytest -n 4 --dist worksteal # half of what tests do is wait, so four share two cores well

check: $(VENV)/stamp-test ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/stamp-bench ## dfserve beside its rivals and the machine's limits, for two hours
	$(BIN)/python -m benchmarks

clean: ## remove the environment and everything that was made
	rm -rf $(VENV) build dist demo-out dfserve-demo.png benchmarks/out htmlcov .coverage .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each set of extras; the sets add up in the one environment.
$(VENV)/stamp-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet 'pip>=21.3' # the first pip that installs this project in place
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

# A half-made environment must not look finished: the next make would go on with it.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "dfserve needs Python 3.10 or newer and '$(PYTHON)' is not: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# Every target builds what it needs: a fresh clone needs no other command first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# One thread a process, because tests run side by side and small matrices lose by sharing. Compiled
# modules are kept even where the environment forbids it: each process would compile them again.
TESTING := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=

# Old and new releases warn of each other: of what will be removed, not of wrong values.
BOUNDS := -W ignore::DeprecationWarning -W ignore::FutureWarning \
	-W "ignore:Guards may run slower:RuntimeWarning" -m "not slow" $(addprefix tests/,\
	array measures kernels estimators attention inference streaming storage results plot \
	cli/test_arrays.py cli/test_operands.py cli/test_run_folder.py cli/test_data.py)
NEWEST ?= $(shell .ci/newest-python)

.PHONY: demo paper docs test quick lowest newest check bench asv format clean help

help:            ## Show this list
	@grep -E '^[a-z]+: .*##|^[a-z]+:  +##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.demo  ## Train two small networks on digits, compare them, write pictures and a page
	$(BIN)/python examples/digits.py --out demo-output

paper: $(VENV)/.paper  ## Redo every figure of Raghu et al. (2021) on small networks: what holds?
	PYTHONPATH=benchmarks $(BIN)/python -m raghu2021 --out paper-output

docs: $(VENV)/.docs  ## Build the documentation: its pictures are drawn by code that runs
	$(TESTING) $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

test: $(VENV)/.test  ## Run the whole test suite
	$(TESTING) $(BIN)/python -m pytest -n auto --dist worksteal

quick: $(VENV)/.test  ## Run the tests that take a moment each
	$(TESTING) $(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

lowest: $(VENV)-lowest/.bounds  ## Run the tests of the core with the lowest versions that are declared
	$(TESTING) $(VENV)-lowest/bin/python -m pytest -n auto --dist worksteal $(BOUNDS)

newest: $(VENV)-newest/.bounds  ## Run them with the newest Python that is installed
	$(TESTING) $(VENV)-newest/bin/python -m pytest -n auto --dist worksteal $(BOUNDS)

check: $(VENV)/.check  ## Lint, formatting, types and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.check  ## Format the code and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)-bench/.bench  ## Measure against other packages, side by side (needs a quiet machine)
	$(VENV)-bench/bin/python benchmarks/peers.py

asv: $(VENV)/.dev  ## Run every benchmark suite once, quickly
	cd benchmarks/asv && PATH=$(abspath $(BIN)):$$PATH && asv machine --yes && asv run --quick --python=same

# An environment per extra; a later one contains the earlier ones.
ENVIRONMENTS := demo paper docs test check dev
$(ENVIRONMENTS:%=$(VENV)/.%) $(VENV)-bench/.bench: pyproject.toml
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	$(@D)/bin/python -m pip install --quiet --editable '.[$(patsubst .%,%,$(@F))]'
	touch $@

$(VENV)-lowest/.bounds: pyproject.toml
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet uv
	$(@D)/bin/uv pip install --quiet --no-cache --python $(@D)/bin/python --resolution lowest-direct --editable '.[bounds]'
	touch $@

$(VENV)-newest/.bounds: pyproject.toml
	test -x $(@D)/bin/python || $(NEWEST) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	$(@D)/bin/python -m pip install --quiet --editable '.[bounds]'
	touch $@

clean:           ## Remove environments and everything generated
	rm -rf $(VENV) $(VENV)-bench $(VENV)-lowest $(VENV)-newest demo-output paper-output docs/_build docs/auto_gallery docs/reference .pytest_cache .mypy_cache .ruff_cache .hypothesis

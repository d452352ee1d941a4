# `make help` lists what there is. Everything lives in .venv; a second run skips what is done.

PYTHON ?= python3
PYTEST_ARGS ?=
# two workers; the tests of a file, which share its fixtures, stay together
PYTEST_WORKERS ?= -n 2 --dist loadfile
DEMO_ARGS ?=
export PYTHON

VENV := .venv
COLCON_VENV := .venv-colcon

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint colcon clean

help:  ## Show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo 'PYTHON=python3.12 chooses the interpreter (3.10 to 3.13). Without a GPU,'
	@echo 'PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu makes the download far smaller.'

venv: $(VENV)/.package  ## Set up .venv with pinned versions of everything, and the package itself

demo: $(VENV)/.package  ## Start the node, replay street video to it over DDS, show the result under out/demo
	@$(VENV)/bin/hybrid_seg demo $(DEMO_ARGS)

test: $(VENV)/.package $(COLCON_VENV)/.requirements  ## Run all tests; PYTEST_ARGS='-k replay' runs some
	@$(VENV)/bin/python -m pytest $(PYTEST_WORKERS) $(PYTEST_ARGS)

lint: $(VENV)/.package  ## Run the linters
	@$(VENV)/bin/python -m ruff check .

colcon: $(COLCON_VENV)/.requirements  ## Build with colcon into build/ and install/
	@$(COLCON_VENV)/bin/colcon build --paths .

clean:  ## Delete everything that the others made
	rm -rf $(VENV) $(COLCON_VENV) build install log out *.egg-info .pytest_cache .ruff_cache

$(VENV)/.requirements: requirements/make_venv.sh $(filter-out requirements/colcon.txt requirements/humble.txt, $(wildcard requirements/*.txt))
	@requirements/make_venv.sh requirements
	@touch $@

$(VENV)/.package: $(VENV)/.requirements setup.py setup.cfg package.xml
	@requirements/make_venv.sh package
	@touch $@

$(COLCON_VENV)/.requirements: requirements/colcon.txt $(VENV)/.requirements
	@echo 'make: installing colcon into $(COLCON_VENV)'
	@$(PYTHON) -m venv --clear $(COLCON_VENV)
	@$(COLCON_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/colcon.txt
	@touch $@

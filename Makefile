# Every target first installs what it needs in .venv. The variables STACK, PYTHON, TORCH, TORCH_ARGS,
# EXTRAS and MAX_JOBS change how; see tools/misc/setup_env.sh. Example: make test TORCH=torch==2.12.0
# STACK=onedl and STACK=mmpretrain use other libraries, in .venv-onedl and .venv-mmpretrain.
STACK ?= upstream
VENV ?= .venv$(addprefix -,$(filter-out upstream,$(STACK)))
PYTEST_ARGS ?=
FUZZ_ARGS ?=
FORMAT_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=
MATRIX_ARGS ?=

BIN := $(VENV)/bin
# The first line of a recipe installs the extras $(1), or all that the tests need, and the extras $(2).
# What calls no operator of mmcv asks for the extra demo, which spares the compilation of mmcv.
SET_UP = @EXTRAS='$(or $(EXTRAS),$(1))' MORE_EXTRAS='$(2)' ./tools/misc/setup_env.sh '$(abspath $(VENV))'
export STACK PYTHON TORCH TORCH_ARGS MAX_JOBS MATRIX_TORCH

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test matrix lint format docs bench fuzz clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*##/  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

setup:  ## create .venv with torch, OpenMMLab and mmwcc; may compile mmcv the first time
	$(SET_UP)

demo:  ## compress a small model and show the effect; compiles no mmcv
	$(call SET_UP,demo)
	$(BIN)/python -W 'ignore:mmcv.ops is a stand-in' -W 'ignore:Fail to import' \
		-W 'ignore:Default ``avg_non_ignore``' tools/demo.py $(DEMO_ARGS)

test:  ## run the tests; PYTEST_ARGS='-m "not slow"' skips the slow ones; STACK=onedl runs on the forks
	$(SET_UP)
	$(BIN)/pytest $(PYTEST_ARGS)

matrix:  ## run the tests of the layers on the oldest and newest torch, with every Python that is there
	$(call SET_UP,matrix)
	$(BIN)/nox $(MATRIX_ARGS)

lint:  ## check style, types and spelling
	$(call SET_UP,demo,dev)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check -q .
	$(BIN)/mypy
	$(BIN)/codespell

format:  ## format the sources; FORMAT_ARGS=--check only reports what would change
	$(call SET_UP,demo,dev)
	$(BIN)/ruff format $(FORMAT_ARGS) .

docs:  ## build the site into docs/_build; fails on a broken link or a faulty docstring
	$(call SET_UP,,docs)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env -q -b html -c docs . docs/_build
	@echo 'The site begins at docs/_build/index.html.'

bench:  ## time compressed against dense convolutions, blocks and networks on this machine
	$(call SET_UP,demo)
	for name in haar wcc_layer wcc_block training_step end_to_end; do \
		$(BIN)/python -W ignore tools/benchmarks/$$name.py --seconds 0.5 $(BENCH_ARGS) || exit 1; done

fuzz:  ## try 10,000 random layers, inputs and settings
	$(call SET_UP,demo,tests)
	$(BIN)/python tools/fuzz.py --cases 10000 $(FUZZ_ARGS)

clean:  ## remove what builds and tests leave behind, but no .venv and not .nox
	rm -rf build dist docs/_build mmwcc.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -not -path './$(VENV)/*' -not -path './.nox/*' -prune -exec rm -rf {} +

# Every target does its own set-up, so `make demo` and `make test` work in a fresh clone.
#   PYTHON=python3.12      the interpreter that .venv is made from (3.11 or newer)
#   PIP_FLAGS=...          passed to pip, e.g. --extra-index-url https://download.pytorch.org/whl/cpu (torch without CUDA)
#   PYTEST_FLAGS=...       passed to pytest, e.g. -k render
#   DEMO_FLAGS=...         passed to `dexworld demo`

SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INTEROP := .venv-interop
FOREIGN := lerobot==0.4.4 robomimic==0.3.0 stable-worldmodel==0.1.1
WORKERS ?= 4  # twice the cores of a small machine: tests that start and kill processes wait for them
# encoders.py, decoder.py and hand_tracking.py need data: run them by hand (docs/objects.md, training.md, video_data.md). The others are parts.
BENCHMARKS := $(filter-out benchmarks/encoders.py benchmarks/decoder.py benchmarks/common.py benchmarks/egodex_clips.py \
  benchmarks/plain_training.py benchmarks/training_setup.py benchmarks/hand_tracking.py,$(wildcard benchmarks/*.py))

.DEFAULT_GOAL := help
.PHONY: help setup demo test interop lint docs release bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 16

setup: $(STAMP)  ## make .venv and install dexworld with everything that demo, tests and benchmarks need

$(STAMP): pyproject.toml client/pyproject.toml constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "dexworld needs Python 3.11 or newer, and no python3 was found on PATH" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "dexworld needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_FLAGS) -c constraints.txt -e ./client -e '.[sim,video,adroit,serve,camera,studio,docs,dev]'
	@touch $@

demo: $(STAMP)  ## plan with the shipped world model in simulation and write outputs/demo/report.html
	$(BIN)/dexworld demo --output outputs/demo $(DEMO_FLAGS)

test: export OMP_NUM_THREADS = 1
test: $(STAMP)  ## run the tests
	$(BIN)/pytest -n $(WORKERS) --dist worksteal $(PYTEST_FLAGS)

interop: export OMP_NUM_THREADS = 1
interop: $(INTEROP)/.installed  ## run the tests against LeRobot, robomimic, Rerun and stable-worldmodel, in an environment of their own
	$(INTEROP)/bin/pytest tests/interop tests/data/test_store_for_lerobot.py tests/sim/test_env.py tests/report/test_rerun_log.py $(PYTEST_FLAGS)

$(INTEROP)/.installed: pyproject.toml constraints.txt
	@[ -x $(INTEROP)/bin/python ] || $(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/python -m pip install --disable-pip-version-check -q $(PIP_FLAGS) -c constraints.txt -e '.[interop]'
	$(INTEROP)/bin/python -m pip install --disable-pip-version-check -q --no-deps $(FOREIGN)
	@touch $@

lint: $(STAMP)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)  ## build the documentation, build/site/index.html, without a network
	$(BIN)/python tools/build_site.py

release: $(STAMP)  ## wheel, source archive and site in dist/, tried in a clean environment
	$(BIN)/python tools/release.py $(PIP_FLAGS)

bench: export OMP_NUM_THREADS = 1
bench: $(STAMP)  ## run every benchmark; results in outputs/bench/<name>/results.json
	@set -e; for script in $(BENCHMARKS); do \
	  name=$$(basename $$script .py); echo "== $$name"; $(BIN)/python $$script --output outputs/bench/$$name; done

clean:  ## remove caches and outputs, keep .venv and .venv-interop
	rm -rf outputs .pytest_cache .mypy_cache .ruff_cache

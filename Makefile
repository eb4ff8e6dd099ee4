# Needs Python 3.11 or newer, git and make; everything else goes into .venv.
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SITE := $(VENV)/.site
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

.PHONY: quickstart study gpu docs site test test-faults rehearsal lint setup clean

quickstart: setup ## sweep over the images that come with bgsweep
	$(BIN)/bgsweep sweep search_spaces/quickstart.yaml

study: setup ## the paper's claim on real images, into docs/study-methods.md; ARGS=--quick and others: docs/study-design.md
	$(BIN)/python -m studies.background_shortcut search_spaces/shortcut_study.yaml $(ARGS)

gpu: setup ## what a GPU shows in eight minutes, into build/gpu; see benchmarks/README.md for ARGS
	$(BIN)/python -m benchmarks.gpu $(ARGS)

docs: setup ## the API's pages, from the docstrings, into build/api
	@# It imports bgsweep, and matplotlib, which runs fc-list where it has not yet cached the fonts.
	PDOC_ALLOW_EXEC=1 $(BIN)/python -m pdoc --docformat google -o build/api bgsweep

site: setup $(SITE) ## the documentation as a site that needs no network, into build/site
	@# NO_MKDOCS_2_WARNING: a notice of Material's about another project's plans, which is not about these pages.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

test: lint ## lint, type check and all tests; ARGS=--random-order shuffles them
	@# One thread each: two processes with two threads each would wait for one another's on two cores.
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-faults: setup ## sweeps whose workers, nodes, drivers, servers and disks fail, and other tests of minutes
	$(BIN)/pytest -m faults tests

rehearsal: setup ## a cluster, an MLflow server and an S3 store on this machine, sweeps submitted to it, a node killed; ARGS
	$(BIN)/pytest -m rehearsal tests/rehearsal $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=benchmarks $(BIN)/mypy benchmarks/*.py

setup: $(INSTALLED)

PIP := --quiet --disable-pip-version-check $(PIP_OPTIONS)

# Made anew only when what is to be installed has changed; an interrupted installation is taken up again.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "error: Python 3.11 or newer is needed; install it, or name it: make PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing bgsweep and what it needs into $(VENV): some minutes and 6 GB, once."
	@$(BIN)/python -m pip install $(PIP) -c constraints.txt -e '.[dev]'
	@# To compare ours with, without what they ask for: another OpenCV, and Lightning, which MLflow would import wherever
	@# a model is saved, for seconds.
	@$(BIN)/python -m pip install $(PIP) -c constraints.txt --no-deps imagecorruptions-imaug lightly
	@touch $(INSTALLED)

# Not part of `make setup`, which CI runs: only the site needs it.
$(SITE): $(INSTALLED)
	@$(BIN)/python -m pip install $(PIP) -c constraints.txt -e '.[docs]'
	@touch $(SITE)

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

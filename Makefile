# Each command first creates the environment (.venv); only Python and make are needed.
#
#   make demo    denoises a generated head series with known truth, and real images
#   make demo-pacs  the gateway beside a real PACS: a derived series appears beside a sent one
#   make test    every test, in random order, two at a time (WORKERS=8 where there are eight cores)
#   make test-fast  the same without the slowest tests (marker `slow`)
#   make label-test  tests of the MONAI Label app with MONAI Label, in an environment of its own
#   make lint    ruff, mypy, and who may import whom (import-linter)
#   make docs    the documents as a web site that works offline: site/index.html
#   make bench   speed, memory and quality against peers: bench/results/
#   make image   the container image (docs/deployment.md): needs buildah and mmdebstrap, or set
#                IMAGE_OPTIONS="--engine docker"
#   make image-test  build the image from nothing and test a container of it (needs root, .ci/run)
#   make soak    the gateway under load, kills and faults, with a real PACS (needs root, .ci/run)
#
# The environment is created again when pyproject.toml or constraints.txt change. pip installs the
# default torch wheel (CUDA on Linux); without a GPU a smaller wheel can be chosen:
#   make env TORCH_OPTIONS="--index-url <the CPU wheel index that pytorch.org names>"

PYTHON ?=
TORCH_OPTIONS ?=
IMAGE_OPTIONS ?= --bootstrap
WORKERS ?= 2
# one core for each worker: threads of two would wait for each other; files stay whole, so that a
# file's fixtures are made once; hundreds of processes start: what Python has compiled is kept
PYTEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest \
	-n $(WORKERS) --dist loadfile --no-loadscope-reorder
VENV := .venv
READY := $(VENV)/.ready
LABEL_VENV := .venv-label
LABEL_READY := $(LABEL_VENV)/.ready
LABEL := deploy/monailabel

.PHONY: env demo demo-pacs test test-fast lint docs bench soak image image-test label-env label-test

env: $(READY)

demo: $(READY)
	$(VENV)/bin/python -m bench.demo.demo

demo-pacs: $(READY)
	$(VENV)/bin/python -m bench.demo.demo_pacs

test: $(READY)
	$(PYTEST)

test-fast: $(READY)
	$(PYTEST) -m "not slow"

label-env: $(LABEL_READY)

label-test: $(LABEL_READY)
	$(LABEL_VENV)/bin/python -m pytest tests/deploy/monailabel

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

bench: $(READY)
	$(VENV)/bin/python -m bench.speed.run

image: $(READY)
	$(VENV)/bin/python -m stillscan.deploy.image.build $(IMAGE_OPTIONS)

image-test: $(READY)
	.ci/image-test

soak: $(READY)
	$(VENV)/bin/python -m bench.robustness.soak

$(READY): pyproject.toml constraints.txt
	@python=$$(sh .ci/find-python $(PYTHON)) || exit 1; \
	echo "Making the environment in $(VENV) with $$python; this takes some minutes, once."; \
	"$$python" -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt $(TORCH_OPTIONS) torch
	@$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# MONAI Label would replace torch and needs other packages: it has an environment of its own, and
# monailabel is installed without its dependencies (docs/monailabel.md).
$(LABEL_READY): constraints.txt $(LABEL)/requirements.txt $(LABEL)/constraints.txt
	@python=$$(sh .ci/find-python $(PYTHON) python3.11) || exit 1; \
	echo "Making the environment in $(LABEL_VENV) with $$python; this takes some minutes, once."; \
	"$$python" -m venv $(LABEL_VENV)
	@$(LABEL_VENV)/bin/python -m pip install --quiet --constraint constraints.txt $(TORCH_OPTIONS) torch
	@$(LABEL_VENV)/bin/python -m pip install --quiet --constraint constraints.txt \
		--constraint $(LABEL)/constraints.txt --requirement $(LABEL)/requirements.txt
	@$(LABEL_VENV)/bin/python -m pip install --quiet --no-deps monailabel==0.8.5
	@printf '%s\n' $(CURDIR) $(CURDIR)/$(LABEL)/stand_in > \
		$$($(LABEL_VENV)/bin/python -c 'import site; print(site.getsitepackages()[0])')/stillscan.pth
	@touch $@

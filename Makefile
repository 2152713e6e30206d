# Each command makes the environment (.venv) first; nothing else is needed but Python and make.
#
#   make demo    the main job on a generated head series with known truth, and on real images
#   make demo-pacs  the gateway beside a real PACS: a series goes in, the quiet one appears beside it
#   make test    every test
#   make lint    ruff and mypy
#   make bench   speed, memory and quality against peers: bench/results/
#   make image   the container image (docs/deployment.md): needs buildah and mmdebstrap, or say
#                IMAGE_OPTIONS="--engine docker"
#   make image-test  build the image from nothing and test a container of it (needs root, .ci/run)
#   make soak    the gateway under load, kills and faults, with a real PACS (needs root, .ci/run)
#
# The environment is made anew when pyproject.toml or constraints.txt change. pip takes the default
# torch wheel (CUDA on Linux); where a CPU is all there is, a smaller wheel can be chosen:
#   make env TORCH_OPTIONS="--index-url <the CPU wheel index that pytorch.org names>"

PYTHON ?=
TORCH_OPTIONS ?=
IMAGE_OPTIONS ?= --bootstrap
VENV := .venv
READY := $(VENV)/.ready

.PHONY: env demo demo-pacs test lint bench soak image image-test

env: $(READY)

demo: $(READY)
	$(VENV)/bin/python -m bench.demo

demo-pacs: $(READY)
	$(VENV)/bin/python -m bench.demo_pacs

test: $(READY)
	$(VENV)/bin/python -m pytest

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(READY)
	$(VENV)/bin/python -m bench.run

image: $(READY)
	$(VENV)/bin/python -m deploy.build_image $(IMAGE_OPTIONS)

image-test: $(READY)
	.ci/image-test

soak: $(READY)
	$(VENV)/bin/python -m bench.soak

$(READY): pyproject.toml constraints.txt
	@python=$$(sh .ci/find-python $(PYTHON)) || exit 1; \
	echo "Making the environment in $(VENV) with $$python; this takes some minutes, once."; \
	"$$python" -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt $(TORCH_OPTIONS) torch
	@$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

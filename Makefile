# make help lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
# Which torch to install: auto (a GPU's own build where there is a GPU, else without CUDA), cpu, cu128, rocm6.3, ...
TORCH ?= auto
# yes: exactly the packages of torch.lock and requirements.lock, by their hashes
LOCKED ?= no
HOST ?= 127.0.0.1
BIN := $(VENV)/bin
# The environment keeps its compiled modules, whatever the shell asks for: without them, each process compiles some 1,500 anew
unexport PYTHONDONTWRITEBYTECODE
READY := $(VENV)/.ready

.PHONY: help setup demo report test test-all test-wheel test-processors test-slurm check check-lock structure format site sbom ui bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## make the environment in .venv (TORCH=auto|cpu|cu128|rocm6.3 chooses torch's build)

$(READY): pyproject.toml scripts/setup.sh
	PYTHON=$(PYTHON) VENV=$(VENV) TORCH=$(TORCH) LOCKED=$(LOCKED) bash scripts/setup.sh
	@touch $@

demo: $(READY) ## corpus, a sweep of 12 shapes x 2 rates, cooldowns, fits, a picture: 8 to 10 minutes on 2 cores
	@$(BIN)/shapelaw demo

report: $(READY) ## figures and a page of the suite's runs, under outputs/reports
	$(BIN)/python report.py

test: $(READY) ## the whole test suite
	$(BIN)/python -m pytest -n auto -m "not slow"

test-all: $(READY) ## the suite with the long forms of its tests
	$(BIN)/python -m pytest -n auto

test-wheel: $(READY) ## the wheel, installed into a bare environment and used in an empty directory
	VENV=$(VENV) scripts/try_wheel.sh

test-processors: $(READY) ## the tests that floating point could decide, as processors without AVX-512 and AVX2 compute (QUICK=yes: a few)
	$(BIN)/python tests/processors.py $(if $(filter yes,$(QUICK)),quick)

test-slurm: $(READY) ## sweeps on a real scheduler: the sandbox of four virtual nodes (root, Debian's slurm and mariadb packages)
	trap 'scripts/slurm_sandbox.sh down' EXIT; MAX_ARRAY_SIZE=4 scripts/slurm_sandbox.sh up && \
	SHAPELAW_REQUIRE_SLURM=1 timeout 2400 $(BIN)/python -m pytest -n 0 tests/slurm

check: $(READY) ## style, types, and which room imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/structure.py --check

structure: $(READY) ## write the table of rooms in docs/structure.md
	$(BIN)/python scripts/structure.py

format: $(READY) ## put the code in style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

site: $(READY) ## the documentation as a site in site/; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check-lock: ## fails where a locked package was yanked or removed since (an environment made with LOCKED=yes)
	VENV=$(VENV) scripts/check_lock.sh

sbom: $(READY) ## a bill of materials of what the two locks install, in CycloneDX's JSON: sbom.cdx.json
	$(BIN)/python scripts/sbom.py sbom.cdx.json

ui: $(READY) ## MLflow with all runs, on the loopback address (PORT=5000; HOST=ADDRESS opens it to others)
	@case "$(HOST)" in 127.*|localhost|::1) ;; *) echo "warning: whoever reaches $(HOST) can read, change and delete every" \
		"run: MLflow asks for no password unless it is set up to: docs/guarantees.md, Servers" >&2 ;; esac
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=$${MLFLOW_SERVER_ENABLE_JOB_EXECUTION:-false} \
		$(BIN)/mlflow server --host $(HOST) --port $(or $(PORT),5000) --workers 1 \
		--backend-store-uri sqlite:///$${SHAPELAW_OUTPUTS:-$(CURDIR)/outputs}/mlflow.db \
		--default-artifact-root $${SHAPELAW_OUTPUTS:-$(CURDIR)/outputs}/mlflow

bench: $(READY) ## the benchmarks: ratios measured in one run
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean: ## remove the environment and caches (never outputs/)
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache

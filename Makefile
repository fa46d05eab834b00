# What a person can do here. `make` alone lists it. Needs Python 3.11 or newer (another one: make PYTHON=python3.12).
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
RUN_LOCK := envs/requirements.txt
TEST_LOCK := envs/requirements-test.txt
COMPILE := uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	--custom-compile-command "make lock"

.PHONY: help env test-env reproduce smoke plan test check format lock clean

help: ## list what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  ARGS are handed on: make reproduce ARGS='arcface --config tier=standard', make test ARGS='-k workflow'"

env:
	@envs/build.sh $(PYTHON) $(VENV) $(RUN_LOCK)

test-env:
	@envs/build.sh $(PYTHON) $(VENV) $(RUN_LOCK) $(TEST_LOCK)

reproduce: env ## build the environment, then everything in the default tier (ARGS: targets, --config ...)
	$(BIN)/snakemake --cores all $(ARGS)

plan: env ## say what reproduce would run and what it would cost
	$(BIN)/snakemake --dry-run $(ARGS)

smoke: env ## everything in tier smoke: seconds, plumbing only
	$(BIN)/snakemake --cores all --config tier=smoke

test: test-env ## run the tests in a process a core (ARGS: for pytest)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile $(ARGS)

check: test-env ## formatting, lint, the workflow's lint, no package index in any file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflows
	$(BIN)/python .ci/lint_workflow.py
	$(BIN)/python .ci/lint_files.py

format: test-env ## put the files into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflows

lock: test-env ## regenerate the locks from pyproject.toml (ARGS=--upgrade: with the newest versions)
	$(BIN)/$(COMPILE) $(ARGS) pyproject.toml -o $(RUN_LOCK)
	$(BIN)/$(COMPILE) $(ARGS) pyproject.toml --extra test -c $(RUN_LOCK) -o $(TEST_LOCK)
	echo uv | $(BIN)/$(COMPILE) --no-annotate - -c $(TEST_LOCK) -o envs/uv.txt

clean: ## delete results (not the published), finished runs and Snakemake's notes; keep data and the environment
	rm -rf work .snakemake
	find results -mindepth 1 -maxdepth 1 ! -name published -exec rm -rf {} + 2>/dev/null || true

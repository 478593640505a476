# Everything a person or a build machine does here. Each target sets up what it needs, once:
# .venv/.<step> is touched when a step is done, and depends on what it was done from.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory
export PATH := $(PATH):$(HOME)/.cargo/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

VENV    := .venv
PY      := $(VENV)/bin/python
INSTALL := $(PY) -m pip install -q -c constraints.txt -r /dev/stdin
CARGO   := --locked --manifest-path kernel/Cargo.toml
KERNEL  := $(shell find kernel -path kernel/target -prune -o \( -name '*.rs' -o -name 'Cargo.*' \) -print)
ARGS    ?=

.PHONY: help demo test lint bench bench-served bench-rcp bench-recall sim test-slow docs coverage build format clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s%s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.built ## See an agent's memory work on real text (ARGS="--input chat.jsonl" takes yours)
	@$(VENV)/bin/strata demo $(ARGS)

test: $(VENV)/.built $(VENV)/.dev ## Run the fast tests: Python, kernel, and a short simulation
	@$(PY) tools/run_tests.py $(ARGS)

lint: $(VENV)/.dev ## Check format, lints and types of Python and Rust
	@tools/need rustfmt
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	cargo fmt --check --manifest-path kernel/Cargo.toml --all
	PYO3_PYTHON=$(abspath $(PY)) cargo clippy --quiet $(CARGO) --workspace --all-targets -- -D warnings

bench: $(VENV)/.built $(VENV)/.bench ## Compare us with a dict, SQLite, LMDB, RocksDB and StrataDB (ARGS=--quick)
	@$(PY) -m benchmarks.run $(ARGS)

bench-served: $(VENV)/.built $(VENV)/.bench ## Measure a served database beside Redis, where that is installed (ARGS=--quick)
	@$(PY) -m benchmarks.served $(ARGS)

bench-rcp: $(VENV)/.built ## Measure the listener for clients of rstmdb (ARGS=--quick)
	@$(PY) -m benchmarks.rcp $(ARGS)

bench-recall: $(VENV)/.built ## Measure what search finds on LoCoMo, which is not shipped (ARGS="--rows 3")
	@$(PY) -m benchmarks.recall $(ARGS)

sim: ## Crash simulated disks, seed after seed (SEED=8412 runs one again)
	@tools/need cargo
	cargo run --quiet --release $(CARGO) -p strata-sim -- $(if $(SEED),--seed $(SEED)) $(ARGS)

test-slow: $(VENV)/.built $(VENV)/.dev ## Run the slow Python tests
	$(PY) -m pytest -m slow -o faulthandler_timeout=1800 $(ARGS)

coverage: $(VENV)/.built $(VENV)/.dev ## Print line coverage of src/, and of kernel/ where LLVM's tools are
	@tools/coverage

docs: $(VENV)/.docs ## Build the documentation into site/
	$(VENV)/bin/zensical build --clean

build: $(VENV)/.base ## Build a wheel for Python 3.11 and newer into dist/
	@tools/need cargo
	$(VENV)/bin/maturin build --release --locked --out dist

format: $(VENV)/.dev ## Format Python and Rust
	$(PY) -m ruff format
	$(PY) -m ruff check --fix
	cargo fmt --manifest-path kernel/Cargo.toml --all

clean: ## Remove everything that was built or installed here
	rm -rf $(VENV) kernel/target dist site .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f src/strata/_kernel*.so
	find src tests benchmarks tools -name __pycache__ -prune -exec rm -rf {} +

# -- set-up --------------------------------------------------------------------------------------

$(VENV)/.base: pyproject.toml constraints.txt tools/make-venv tools/need
	@tools/need cargo
	@tools/make-venv $(VENV)
	@$(PY) tools/extras.py build base | $(INSTALL)
	@touch $@

$(VENV)/.built: $(VENV)/.base $(KERNEL)
	@tools/need cargo
	@echo "strata: building the kernel in release mode (about two minutes the first time)"
	@VIRTUAL_ENV=$(abspath $(VENV)) $(VENV)/bin/maturin develop --release --locked >/dev/null
	@touch $@

$(VENV)/.dev $(VENV)/.bench $(VENV)/.docs: $(VENV)/.%: $(VENV)/.base
	@echo "strata: installing what '$*' needs"
	@$(PY) tools/extras.py $* | $(INSTALL)
	@touch $@

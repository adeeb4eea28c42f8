# Every target sets up what it needs on a machine that has only python3 and make.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DATA ?= data
FLAGS ?=
export PYTHONSAFEPATH := 1
unexport PYTHONPATH
CODE := services operator tests proto

.PHONY: help install demo test checked check format interop e2e e2e-node e2e-control-plane bench soak lock proto docs kernels clean

help: ## Show the targets
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --offline -e .
	touch $@

install: $(STAMP) ## Leave .venv/bin/thanostack

kernels: $(STAMP) ## Compile what is not in the kernel cache yet
	$(BIN)/python -m thanostack.runtime.kernel_pool

demo: $(STAMP) ## Run everything in one process, with two replicas that have gaps; FLAGS adds flags
	$(BIN)/thanostack standalone --demo --tsdb.path=$(DATA) $(FLAGS)

test: kernels ## Hermetic tests: needs nothing but Python packages
	$(BIN)/python -m pytest tests/tidy tests/unit tests/property tests/conformance tests/integration tests/simulation $(PYTEST)
	$(MAKE) checked

checked: $(STAMP) ## The property suites with every access bounds-checked, then without the JIT
	NUMBA_BOUNDSCHECK=1 $(BIN)/python -m thanostack.runtime.kernel_pool
	NUMBA_BOUNDSCHECK=1 $(BIN)/python -m pytest tests/property $(PYTEST)
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest tests/property -W ignore::RuntimeWarning $(PYTEST)

check: $(STAMP) ## Format, lint, types, architecture
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	cd services && ../$(BIN)/lint-imports --config ../pyproject.toml

format: $(STAMP) ## Format and mend what can be mended
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

interop: kernels ## Against the real Prometheus and Thanos, built by package name into a cache; as root
	$(BIN)/python tests/interop/tools.py
	$(BIN)/python tests/interop/peers/build.py
	$(BIN)/python -m pytest tests/interop $(PYTEST)

e2e: kernels ## Against a real Kubernetes: one node on this machine, or the cluster of KUBECONFIG
	$(BIN)/python tests/e2e/cluster/programs.py
	$(MAKE) -j2 --output-sync=target e2e-node e2e-control-plane

# Each keeps one cluster busy; together they wait less.
e2e-node:
	$(BIN)/python -m pytest tests/e2e -m node -rP $(PYTEST)

e2e-control-plane:
	$(BIN)/python -m pytest tests/e2e -m "not node" -rP $(PYTEST)

bench: kernels ## Measure against the peers in one run; prints the tables of docs/performance.md
	$(BIN)/python tests/interop/peers/build.py
	$(BIN)/python tests/benchmarks/run.py

soak: kernels ## Crash loops, faults and overload for longer than CI should take; needs root
	$(BIN)/python tests/simulation/crash_loop.py --kills 2000
	$(BIN)/python tests/simulation/receive_faults.py --runs 40
	$(BIN)/python tests/simulation/receive_faults.py --runs 20 --cluster hostile
	$(BIN)/python tests/simulation/receive_faults.py --runs 20 --cluster hostile --ring 5
	$(BIN)/python tests/simulation/receive_faults.py --runs 20 --cluster sloppy --ring 5
	$(BIN)/python tests/simulation/receive_faults.py --runs 20 --cluster nodes
	$(BIN)/python tests/simulation/receive_faults.py --runs 20 --cluster nodes --ring 5
	$(BIN)/python tests/benchmarks/overload.py --seconds 60

COMPILE = $(BIN)/uv pip compile -q pyproject.toml --universal --generate-hashes \
  --no-emit-index-url --no-header -p 3.11

lock: ## Resolve the dependencies anew
	$(COMPILE) --group dev --all-extras -o requirements.lock
	$(COMPILE) --group build --extra services -c requirements.lock -o services/requirements.lock
	$(COMPILE) --group build --extra operator -c requirements.lock -o operator/requirements.lock

proto: $(STAMP) ## Generate the stubs under lib/pb
	$(BIN)/python proto/generate.py

docs: $(STAMP) ## Generate the flag table
	$(BIN)/python -m thanostack.runtime.flag_table > docs/flags.md

clean: ## Remove the virtual environment and tool caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

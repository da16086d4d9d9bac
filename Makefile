# `make run` starts the proxy, `make test` tests it; both create .venv first.
PYTHON ?= python3
VENV ?= .venv
T ?=
SECONDS ?= 300
JOBS ?= 4
BIN := $(VENV)/bin
IDP := tests/support/identity_provider
NODE_CLIENTS := tests/clients/programs
# In the order of tests/conftest.py: modules with few tests are often those that take longest.
PYTEST := $(BIN)/pytest --numprocesses $(JOBS) --dist loadscope --no-loadscope-reorder
# The tests start hundreds of processes: none of them is to compile the sources anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test test-own test-outside test-clients test-both-loops check format map bench bench-check
.PHONY: bench-tokens fuzz states clean

help:
	@echo "make run             the proxy with the sandbox's mailboxes, on 127.0.0.1:2525"
	@echo "make bench           the quick benchmark, through the proxy that runs (or one of its own)"
	@echo "make test [T=pool]   the tests (those whose name contains T), in JOBS=4 processes"
	@echo "make test-own        those that need no program but ours; make test-outside: the others"
	@echo "make test-clients    real mail clients and servers, with hundreds of messages in each queue"
	@echo "make test-both-loops the tests, each on both event loops; for a long run now and then"
	@echo "make check           format, lint, types, import contracts, tests: what a change must pass"
	@echo "make bench-check     what a message costs now, beside the stored cost; for a quiet machine"
	@echo "make bench-tokens    the time of a cached token in the token manager, and its memory"
	@echo "make fuzz            fuzz what reads input, for SECONDS=300; finds go to tests/fuzz/found"
	@echo "make states          the property tests with fifty times as many examples"
	@echo "make format          put the code in its format"
	@echo "make map             rewrite the map of modules in ARCHITECTURE.md"

run: $(VENV)/.installed
	@echo "starting the proxy with mailboxes of the sandbox, which need no account"
	@exec $(BIN)/xoauth2-proxy --config accounts.example.json --sandbox

bench: $(VENV)/.installed
	@exec $(BIN)/xoauth2-bench --scenario quick --use-mock-tokens

# A timed run decides nothing, so it is not part of `make check`.
bench-check: $(VENV)/.installed-dev
	$(BIN)/python -m tests.support.ratio_check

test: $(VENV)/.installed-dev $(VENV)/.installed-npm
	$(PYTEST) $(if $(T),-k "$(T)")

bench-tokens: $(VENV)/.installed-dev
	$(BIN)/python -m tests.support.token_cache_benchmark

# The outside programs: chromium, mail clients and servers, Redis, npm's identity provider.
test-own: $(VENV)/.installed-dev
	$(PYTEST) -m "not outside"

test-outside: $(VENV)/.installed-dev $(VENV)/.installed-npm
	$(PYTEST) -m outside

# Hundreds of messages wait in each mail server, where the suite has a few.
test-clients: $(VENV)/.installed-dev $(VENV)/.installed-npm
	$(PYTEST) tests/clients --queued-messages 300

test-both-loops: $(VENV)/.installed-dev $(VENV)/.installed-npm
	$(PYTEST) --both-loops

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory test

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

map: $(VENV)/.installed-dev
	$(BIN)/python -m tests.support.module_map

fuzz: $(VENV)/.installed-fuzz
	$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS)

states: $(VENV)/.installed-dev
	$(PYTEST) --hypothesis-profile long $$(grep -rlE "@given|StateMachine" tests --include='test_*.py')

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 …"; exit 1; }
	@echo "making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml
	@echo "installing xoauth2-proxy and its libraries into $(VENV): once, about a minute"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml
	@echo "installing xoauth2-proxy, its libraries and what its tests need into $(VENV): once"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed

# The identity provider that signing in is tested with, and a mail client; without npm their tests
# are skipped.
$(VENV)/.installed-npm: $(IDP)/package.json $(NODE_CLIENTS)/package.json | $(VENV)/.created
	@if command -v npm >/dev/null; then \
		for folder in $(IDP) $(NODE_CLIENTS); do \
			(cd $$folder && npm install --no-package-lock --no-audit --no-fund --silent) || exit 1; \
		done; \
	else echo "npm is missing: tests with an identity provider and with Nodemailer are skipped"; fi
	@touch $@

# Without atheris, which has no wheel for every platform, inputs are found by behaviour alone.
$(VENV)/.installed-fuzz: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,fuzz]' \
		|| echo "atheris cannot be installed here: fuzzing without it"
	@touch $@

clean:
	rm -rf $(VENV) build dist .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Everything a developer types. Needs make, git and Python 3.11 or newer; nothing else.
PYTHON ?= python3
export PYTHONDONTWRITEBYTECODE := # where it is set, every start compiles everything again
UV_VERSION := 0.13.9
PIP_AUDIT_VERSION := 2.10.1
BIN := .venv/bin
INSTALLED := .venv/installed

.DEFAULT_GOAL := help
.PHONY: help venv run test test-fast test-wide test-long test-pooler test-debezium test-versions image-test engines lint format lock audit-dependencies \
	chaos twins bench bench-full docs release-archive clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

venv: $(INSTALLED) ## Install what requirements-dev.txt pins into .venv (PYTHON=python3.12 to choose one)

$(INSTALLED): requirements-dev.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; $(PYTHON) is another. Try: make venv PYTHON=python3.12"; exit 1; }
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

run: venv ## Start PostgreSQL, Valkey, API and worker; Ctrl-C stops them (ARGS=--help)
	@$(BIN)/python -m deploy.local $(ARGS)

test: lint ## Lint, then run the tests on real services: six minutes on two cores
	$(BIN)/python -m pytest -n 4 --dist loadgroup $(ARGS)

test-fast: venv ## Run the tests that take less than five seconds
	$(BIN)/python -m pytest -n 4 --dist loadgroup -m "not slow and not wide and not long and not debezium and not image" $(ARGS)

test-wide: venv ## Run what CI runs beside these: more worlds, whole systems, a browser on each page
	$(BIN)/python -m pytest -n 4 --dist loadgroup -m "wide and not long and not debezium and not image" $(ARGS)

test-long: venv ## Run longer forms of some tests, and convictions by chance: half an hour
	$(BIN)/python -m pytest -n 2 --timeout 1800 -m long $(ARGS)

test-pooler: venv ## Run the acceptance tests through PgBouncer in transaction mode (Debian's package pgbouncer)
	$(BIN)/python -m pytest tests/acceptance tests/scaling --pooler $(ARGS)

test-debezium: venv ## Read a live run with a real Debezium (needs Java 17; installs 200 MB of its own)
	$(BIN)/python -m pytest -m debezium tests/debezium $(ARGS)

image-test: venv ## Build the image and start it with compose, by the Docker engine here or, as root, one of its own
	$(BIN)/python -m pytest -m image tests/image $(ARGS)

# The lock file has each package's checksum and names no registry: npm asks the one that it is set up with. A newer
# server: change package.json, then `npm install --package-lock-only --omit-lockfile-registry-resolved` beside it.
engines: ## Install older PostgreSQL servers into .local, for make test-versions and test-long (needs npm)
	@mkdir -p .local/engines
	@cp tests/matrix/servers/package.json tests/matrix/servers/package-lock.json .local/engines
	npm ci --ignore-scripts --no-audit --no-fund --prefix .local/engines
	@for one in .local/engines/node_modules/postgresql-*; do (cd $$one && node scripts/hydrate-symlinks.js); done

test-versions: venv engines ## Run what depends on versions on older servers and other Pythons: an hour (ARGS=--help)
	$(BIN)/python -m tests.matrix $(ARGS)

lint: venv ## Check style, types and which package may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv ## Format the code and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The second file is made with the first as its constraints: what is tested is what is shipped.
lock: ## Update the requirements files from pyproject.toml (ARGS=--upgrade for newer versions)
	@set -e; tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; \
	"$(PYTHON)" -m venv "$$tools"; \
	"$$tools/bin/python" -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); \
	compile() { "$$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-annotate --no-header $(ARGS) "$$@"; }; \
	compile pyproject.toml -o requirements.txt; \
	compile pyproject.toml --extra local --extra dashboard --extra tracing --extra dev --extra docs -c requirements.txt -o requirements-dev.txt; \
	for peer in benchmarks/peers/requirements/*.in tests/debezium/requirements.in; do compile "$$peer" -o "$${peer%.in}.txt"; done

# Status 3, which make shows as an error: nothing is wrong, but nobody could be asked about vulnerabilities.
audit-dependencies: venv ## Check lock files, installation, licences and, where a service answers, vulnerabilities
	@set -e; tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; \
	"$(PYTHON)" -m venv "$$tools"; \
	"$$tools/bin/python" -m pip install --quiet --disable-pip-version-check \
		pip-audit==$(PIP_AUDIT_VERSION) || echo "pip-audit could not be installed"; \
	$(BIN)/python -m deploy.dependencies --pip-audit "$$tools/bin/pip-audit"

twins: venv ## Take each guarantee's mechanism out and show which test convicts it (ARGS=--list)
	$(BIN)/python -m tests.twins $(ARGS)

chaos: venv ## Break everything at random while users write, then prove that nothing was lost
	$(BIN)/python -m tests.chaos $(ARGS)

# Status 1, which make shows as an error, says that a target was missed. What ARGS says last, wins.
BENCH = mkdir -p .local && $(BIN)/python -m benchmarks --scale $(1) --json .local/$(2).json --page .local/$(2).html $(ARGS)

bench: venv ## Measure everything beside its limits, in ten minutes (ARGS=latency for one case, ARGS=--help)
	@$(call BENCH,normal,bench)

bench-full: venv ## Measure more of it, and other libraries as well: an hour
	@$(call BENCH,full,bench-full)

docs: venv ## Make the reference from the code, and the site into .local/site; needs Graphviz (apt-get install graphviz)
	$(BIN)/python -m deploy.docs
	PYTHONPATH=. $(BIN)/python -m zensical build --strict

# What an image of the release holds, and its roles. The same commit gives the same archive again. The version is the one
# that the commit says.
RELEASED := api worker shared migrations alembic.ini pyproject.toml deploy/roles.sql
COMMIT := HEAD
release-archive: ## Keep a release for the tests of mixed versions (COMMIT=e0d0c2a; HEAD unless given)
	@set -e; version=$$(git show "$(COMMIT):pyproject.toml" | sed -n 's/^version = "\(.*\)"$$/\1/p'); \
	file="tests/versions/releases/$$version.tar.gz"; \
	git archive --format=tar "$(COMMIT)" $(RELEASED) | gzip -9n > "$$file"; echo "kept: $$file"

clean: ## Remove the caches and the data of `make run`; .venv stays
	rm -rf .local .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .schemathesis
	find . -path ./.venv -prune -o -type d -name __pycache__ -exec rm -rf {} +

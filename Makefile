# Each target sets up what it needs, on a fresh machine too: Python 3.11 or newer, pip and make are enough to serve.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
ARGS ?=

.PHONY: help serve test check bench bench-writers torture soak lock clean tools nchan
help:
	@echo "make serve [ARGS='--demo --port 9000']   run the service, with a Postgres of its own"
	@echo "make test [ARGS='-k drain']              run every test"
	@echo "make check                               formatting, lint, types, import contracts, security"
	@echo "make torture [SECONDS=300]               everything breaks, and every event arrives once: a short run"
	@echo "make soak [MINUTES=30]                   the same at length; its figures go to tests/bench/results/soak.json"
	@echo "make bench [ARGS='--only fanout --quick'] measure, with peers side by side: one page in about half an hour"
	@echo "make bench-writers                       what the feed costs those who write, at length"

serve: $(VENV)/.serve
	@exec $(BIN)/feed serve $(ARGS)

test: $(VENV)/.dev tools
	$(BIN)/pytest -n 2 --dist worksteal $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit -q -r feed -c pyproject.toml
	$(BIN)/pip check --disable-pip-version-check

torture: $(VENV)/.dev
	FEED_TORTURE_SECONDS=$(or $(SECONDS),300) $(BIN)/pytest tests/torture -p no:xdist --timeout 0 -s $(ARGS)

soak: $(VENV)/.dev
	FEED_TORTURE_SECONDS=$$(( $(or $(MINUTES),30) * 60 )) FEED_TORTURE_RESULT=$(CURDIR)/tests/bench/results/soak.json \
	  $(BIN)/pytest tests/torture -p no:xdist --timeout 0 -s $(ARGS)

bench: $(VENV)/.dev nchan
	@$(BIN)/python -m tests.bench $(ARGS)

bench-writers: $(VENV)/.dev
	$(BIN)/python -m tests.bench.writers $(ARGS)

# After a change of dependencies in pyproject.toml: find versions anew.
lock: $(VENV)/.dev
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --no-emit-index-url --extra bench --extra embedded --extra otel --extra ingest --extra dev pyproject.toml -o constraints.txt

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "feed needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { rm -rf $(VENV); \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null && $(PYTHON) -m venv $(VENV); \
	  else echo "Python's venv module is missing. Run: sudo apt-get install python3-venv" >&2; exit 1; fi; }

$(VENV)/.serve: $(BIN)/python pyproject.toml constraints.txt feed/wire/native/_batch.c
	@echo "Installing feed into $(VENV) ..."
	@$(PIP) --editable '.[embedded,ingest]'
	@touch $@

$(VENV)/.dev: $(VENV)/.serve
	@echo "Installing the tools for tests and checks ..."
	@$(PIP) --editable '.[embedded,ingest,dev]'
	@touch $@

# What the tests use and Python cannot bring: a browser (with a font) and curl; and what deploy/ is tried with, and a pooler,
# whose tests skip where it is missing. Nothing of it is started, now or at the next boot.
tools:
	@export PATH="$$PATH:/usr/sbin"; need() { command -v $$1 >/dev/null || echo " $$2"; }; \
	missing="$$(need chromium 'chromium fonts-dejavu-core')$$(need curl curl)"; \
	useful="$$(need nginx nginx)$$(need caddy caddy)$$(need haproxy haproxy)$$(need promtool prometheus)$$(need systemd-analyze systemd)"; \
	useful="$$useful$$(need pgbouncer pgbouncer)"; \
	if [ -z "$$missing$$useful" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	  if [ -n "$$useful" ]; then echo "Tests will be skipped without:" $$useful. "Run: sudo make tools" >&2; fi; \
	  if [ -n "$$missing" ]; then echo "The tests need:" $$missing. "Run: sudo make tools" >&2; exit 1; fi; \
	  exit 0; \
	fi; \
	echo "Installing" $$missing $$useful "..."; \
	if [ ! -e /usr/sbin/policy-rc.d ]; then \
	  trap 'rm -f /usr/sbin/policy-rc.d' EXIT; printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; \
	fi; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	  apt-get install -y -qq --no-install-recommends $$missing $$useful >/dev/null || \
	  { echo "That failed. Trying without:" $$useful >&2; useful=; \
	    [ -z "$$missing" ] || apt-get install -y -qq --no-install-recommends $$missing >/dev/null || exit 1; }; \
	if [ -d /run/systemd/system ]; then \
	  for each in $$useful; do [ $$each = systemd ] || systemctl --quiet disable $$each; done; \
	fi

# A peer for the benchmark. Without it the page says so, and goes on.
nchan:
	@if ! { command -v nginx || test -x /usr/sbin/nginx; } >/dev/null || ! ls /usr/share/nginx/modules/ngx_nchan_module.so \
	  /usr/lib/nginx/modules/ngx_nchan_module.so 2>/dev/null | grep -q .; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing nginx and nchan ..."; apt-get update -qq && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
	      apt-get install -y -qq --no-install-recommends nginx libnginx-mod-nchan >/dev/null || true; \
	  else echo "nchan will be missing from the page. Run: sudo apt-get install nginx libnginx-mod-nchan" >&2; fi; \
	fi

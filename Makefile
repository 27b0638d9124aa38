# make run    the whole pipeline on the preset laptop; PRESET=smoke takes another
# make families   the other generative families, some four minutes each
# make bench-data   speed and memory of the data stages on this machine, into docs/benchmarks.md
# make bench-train  speed of pretraining beside the Trainer of transformers, likewise; make bench runs both and all others
# make test   linters, the fast tests, and every stage and family end to end; make test-fast stops before the whole flows,
#             make test-all goes on with kills, outages, damage, browsers and a team's servers; WORKERS=4 takes more cores
PYTHON ?= python3
PRESET ?= laptop
WORKERS ?= 2
BIN := .venv/bin
INSTALLED := .venv/.installed
# a file stays on one worker, with what its tests share; files start in the order of their names: end_to_end/, then the short ones
PYTEST := $(BIN)/pytest -rs -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: run families bench bench-data bench-train test test-all test-fast test-browser lint install system-packages clean-environment

run: $(INSTALLED)
	@$(BIN)/genai run --preset $(PRESET)

# every family, one after the other, then the page of their figures; a gate that is not reached does not stop the others
families: $(INSTALLED)
	@for family in $$($(BIN)/python -c 'from tasks.catalog import FAMILIES; print(*FAMILIES)'); do \
	  $(BIN)/genai run --family $$family || missed="$$missed $$family"; \
	done; $(BIN)/genai families --page docs/families.md && $(BIN)/genai families; \
	if [ -n "$$missed" ]; then echo "not passed:$$missed"; exit 1; fi

bench: bench-data bench-train
	@$(BIN)/python -m benchmarks.depths
	@$(BIN)/python -m benchmarks.ranks_speed
	@$(BIN)/python -m benchmarks.decode_speed
	@$(BIN)/python -m benchmarks.serve_speed

bench-data: $(INSTALLED)
	@$(BIN)/python -m benchmarks.data_speed

bench-train: $(INSTALLED)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@$(BIN)/python -m benchmarks.train_speed

test: $(INSTALLED) lint
	@$(PYTEST) -m "not heavy"

test-all: system-packages test
	@$(PYTEST) -m heavy

test-fast: $(INSTALLED)
	@$(PYTEST) -m "not slow"

test-browser: $(INSTALLED) system-packages
	@$(BIN)/pytest -rs -m browser

lint: $(INSTALLED)
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy

install: $(INSTALLED)

# Chromium for the tests in a browser and PostgreSQL for those of a team's servers: without them these are skipped and say so
system-packages:
	@if command -v chromium >/dev/null && ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then exit 0; fi; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	    chromium postgresql; } >/dev/null 2>&1 || echo "chromium and postgresql could not be installed"; \
	else echo "chromium or postgresql is missing: as root, apt-get install chromium postgresql"; fi

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	@touch $@

clean-environment:
	rm -rf .venv

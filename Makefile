# make run    the whole pipeline on the preset laptop; PRESET=smoke takes another
# make test   linters and all tests; make test-fast leaves out the whole flows in subprocesses
PYTHON ?= python3
PRESET ?= laptop
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: run test test-fast lint install clean-environment

run: $(INSTALLED)
	@$(BIN)/genai run --preset $(PRESET)

test: $(INSTALLED) lint
	@$(BIN)/pytest

test-fast: $(INSTALLED)
	@$(BIN)/pytest -m "not slow"

lint: $(INSTALLED)
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	@touch $@

clean-environment:
	rm -rf .venv

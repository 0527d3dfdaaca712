# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test check format bench chaos fuzz generated image clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

# One environment for running and for testing; each stamp is made anew when what it depends on changes.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/installed

run: $(VENV)/installed ## start everything on this machine, with an embedded Redis and a demo
	@exec $(BIN)/cronspace dev $(ARGS)

test: $(VENV)/installed-dev ## run the tests
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/installed-dev ## format, lint, types and tests: what has to pass
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

format: $(VENV)/installed-dev ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/installed-dev ## measure beside the peers; a table, and JSON below bench/
	$(BIN)/python -m bench $(ARGS)

chaos: $(VENV)/installed-dev ## break things for minutes, and write docs/reliability.md; then fuzz
	$(BIN)/python -m chaos $(ARGS)
	$(if $(ARGS),,$(MAKE) fuzz)

# CRONSPACE_EXAMPLES multiplies the examples of a plain run: at least 10,000 of each.
fuzz: $(VENV)/installed-dev ## random changes, bodies and expressions, 10,000 of each
	CRONSPACE_EXAMPLES=250 $(BIN)/python -m pytest --timeout 7200 tests/test_store_machine.py
	CRONSPACE_EXAMPLES=125 $(BIN)/python -m pytest --timeout 7200 tests/test_body_fuzz.py
	CRONSPACE_EXAMPLES=100 $(BIN)/python -m pytest --timeout 7200 tests/test_cron.py

generated: $(VENV)/installed-dev ## write .env.example and the generated tables of docs/ anew
	PYTHONPATH=. $(BIN)/python tests/generated.py

image: ## build the image and start it, without a registry: needs root, buildah, mmdebstrap, redis-server
	deploy/try-image.sh

clean: ## remove the environment and the caches, not the data
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test check format bench generated image clean

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

generated: $(VENV)/installed-dev ## write .env.example and the generated tables of docs/ anew
	PYTHONPATH=. $(BIN)/python tests/generated.py

image: ## build the image and start it, without a registry: needs root, buildah, mmdebstrap, redis-server
	deploy/try-image.sh

clean: ## remove the environment and the caches, not the data
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

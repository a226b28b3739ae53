# Two commands do everything on a fresh machine with Python and make: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: setup demo test check format browser

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,wandb,lm]'
	touch $(READY)

demo: $(READY)
	rm -rf runs/demo
	$(BIN)/sae-toolkit run toy_superposition --output runs/demo/toy
	$(BIN)/sae-toolkit run known_latents_residual --smoke --offline --output runs/demo/transformer

test: check browser
	$(BIN)/python -m pytest -n auto --dist worksteal

# Tests of pages need Debian's Chromium; where it cannot be had, they are skipped and say so.
browser:
	@command -v chromium > /dev/null || { test "$$(id -u)" = 0 && command -v apt-get > /dev/null && { apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends chromium; } > /dev/null 2>&1; } || \
		echo "chromium is not here and was not installed: tests of pages in a browser will be skipped"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

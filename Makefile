# Each target makes .venv and installs what it needs, once; PYTHON picks another interpreter.
PYTHON ?= python3
ready := .venv/ready
frameworks := .venv/frameworks
site := .venv/site
bin := .venv/bin

.PHONY: demo test lint format docs notebooks bench clean

demo: $(ready)
	$(bin)/dpap demo

test: $(ready) $(frameworks)
	$(bin)/python -m pytest --numprocesses auto --dist worksteal

lint: $(ready)
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy

format: $(ready)
	$(bin)/ruff check --fix
	$(bin)/ruff format

# warnings are errors; the variable silences the theme's own banner about another program
docs: $(ready) $(site)
	NO_MKDOCS_2_WARNING=1 $(bin)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

# what the notebooks of docs/ print and draw, written into them anew
notebooks: $(ready)
	$(bin)/python docs/site/run_notebooks.py

bench: $(ready) $(frameworks)
	$(bin)/python benchmarks/neurons.py
	$(bin)/python benchmarks/steps.py --network mnist --keep-memory
	$(bin)/python benchmarks/steps.py --network cifar --rounds 5 --keep-memory
	$(bin)/python benchmarks/observation.py --rounds 5 --keep-memory
	$(bin)/python benchmarks/shrinking.py --rounds 5 --keep-memory
	$(bin)/python benchmarks/surgery.py --keep-memory
	$(bin)/python benchmarks/growth.py --keep-memory

clean:
	rm -rf .venv build dist

$(ready): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "dpap needs Python 3.10 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	@echo "setting up .venv with torch and the tools; the first time takes some minutes"
	@$(PYTHON) -m venv .venv
	@$(bin)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(frameworks): tests/frameworks/requirements.txt | $(ready)
	@$(bin)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	@touch $@

$(site): pyproject.toml | $(ready)
	@$(bin)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

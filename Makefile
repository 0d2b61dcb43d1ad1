# Two commands on a fresh machine: `make demo` and `make test`. All set-up goes into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test lint types docs release clean package sbom

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV): a Python environment of its own, then about 2.5 GB of packages (some minutes; pip tells each)."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[train,dev]'
	@echo "$(VENV) is ready: $(BIN)/dermafuse"
	touch $(READY)

demo: $(READY)
	$(BIN)/dermafuse demo --out demo-run

test: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check src tests benchmarks docs/*.py examples
	$(BIN)/ruff format --check src tests benchmarks docs/*.py examples

types: $(READY)
	$(BIN)/mypy

# The site, in site/; a warning is an error. Trains a small sample for its report. Then what the default suite leaves out:
# links of the site, pages that train, notebooks.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	DERMAFUSE_SITE=site $(BIN)/python -m pytest -q -n 2 --dist loadfile -m slow tests/docs

# The released model from HAM10000: five grouped folds, then one training on all lesions (two hours on 2 cores, estimated from one fold).
DATA ?= ../shared/ham10000
RUNS ?= runs
release: $(READY)
	$(BIN)/dermafuse train --data $(DATA) --folds 5 --out $(RUNS)/standard --resume
	$(BIN)/dermafuse release $(RUNS)/standard --to pretrained/ham10000-lite1 --overwrite

# What is given away: wheel and source in dist/, checked as a package index would.
package: $(READY)
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*.whl dist/*.tar.gz

# The bill of materials of the runtime (CycloneDX): what `pip install dermafuse` brings, from a fresh environment.
sbom: package
	$(PYTHON) -m venv dist/runtime
	dist/runtime/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt dist/*.whl
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-format JSON --output-file dist/sbom.cdx.json dist/runtime
	rm -rf dist/runtime

clean:
	rm -rf $(VENV) dist build site demo-run demo-run-data .pytest_cache .mypy_cache .ruff_cache

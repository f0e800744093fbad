# make demo: a worker, an embedded broker and a small workflow, shown.   make test: everything that CI checks.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SOURCES = pyproject.toml $(wildcard requirements/*.txt)

.PHONY: demo test lint typing unit contracts cli integration interop ecosystem docs faults faults-short soak bench site clean

demo: $(VENV)/.demo
	$(BIN)/python examples/demo/run.py

test: $(VENV)/.test
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python t/run.py $(TEST)

lint: $(VENV)/.test
	$(BIN)/python t/run.py lint

unit typing: $(VENV)/.test
	$(BIN)/python t/run.py $@

contracts cli integration interop ecosystem docs: $(VENV)/.test
	$(BIN)/python t/run.py $@

faults-short: $(VENV)/.test
	$(BIN)/python t/run.py faults

faults: $(VENV)/.test
	PEER_PYTHON=$$($(BIN)/python t/services.py peer) $(BIN)/python -m t.faults --all --scale 1

soak: $(VENV)/.test  # half an hour of everything: memory must stay flat
	SOAK_SECONDS=1800 $(BIN)/python -m t.faults F30 --scale 1

bench: $(VENV)/.test
	PEER_PYTHON=$$($(BIN)/python t/services.py peer) $(BIN)/python t/bench/run.py

$(VENV)/bin/python:
	sh extra/make-venv $(PYTHON) $(VENV)

$(VENV)/.demo: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[sqlalchemy]'
	touch $@

$(VENV)/.test: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[sqlalchemy]' \
	    -r requirements/test-integration.txt -r requirements/ecosystem.txt -r requirements/docs.txt \
	    -r requirements/lint.txt
	touch $@ $(VENV)/.demo

site: $(VENV)/.test
	$(BIN)/python -m sphinx -W --keep-going -b html docs build/site

clean:
	rm -rf $(VENV) build dist .tox .mypy_cache .ruff_cache .pytest_cache .hypothesis

# `make` alone explains the targets. Every recipe is a thin wrapper around one command that you can type yourself.
.DEFAULT_GOAL := help
SHELL := bash
TIER ?= smoke
DEVICE ?= auto
SEEDS ?= 0
SUBSET ?=
JOBS ?= 2
MINUTES ?= 160
VENV := .venv
# `make PYTHON=/path/to/python …` uses an environment of yours and installs nothing.
ifeq ($(origin PYTHON), undefined)
  PYTHON := $(VENV)/bin/python
  READY := $(VENV)/.ready
  PEERS := $(VENV)/.peers
endif
export PYTHONPATH := $(CURDIR)
RUN := $(PYTHON) -m repro run
OPTIONS := --tier $(TIER) --device $(DEVICE) --seed $(SEEDS)

.PHONY: help setup test check reproduce reproduce-odenet reproduce-planar-cnf reproduce-ffjord report queue bench bench-quick notebooks test-report clean

help: ## explain the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  variables: TIER=smoke|small|paper (now $(TIER))  DEVICE=auto|cpu|cuda (now $(DEVICE))  SEEDS=\"0 1 2\"  PYTHON=…  SUBSET=\"memory nfe …\"  JOBS=$(JOBS)  MINUTES=$(MINUTES)"

setup: $(READY) ## create .venv with the pinned versions (once)

$(VENV)/.ready: requirements.lock pyproject.toml
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 1; }
	@echo "installing about 140 pinned packages into $(VENV): some minutes"
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

reproduce: $(READY) ## run the tier of every artefact, rebuild tables and figures
	$(RUN) '*' $(OPTIONS); status=$$?; $(PYTHON) -m repro report --local && exit $$status

reproduce-odenet: $(READY) ## Neural ODE: Table 1 and Figure 3 (ODE-Net on MNIST)
	$(RUN) 'neural_ode/table1*' $(OPTIONS) && $(RUN) 'neural_ode/fig3*' $(OPTIONS); \
	status=$$?; $(PYTHON) -m repro report --local && exit $$status

reproduce-planar-cnf: $(READY) ## Neural ODE: Section 4, Figures 4 and 5 (planar CNF against planar NF)
	$(RUN) 'neural_ode/section4*' $(OPTIONS) && $(RUN) 'neural_ode/fig[45]*' $(OPTIONS); \
	status=$$?; $(PYTHON) -m repro report --local && exit $$status

reproduce-ffjord: $(READY) ## FFJORD: Figures 1, 2 and 8 (toy densities), Table 2 (tables)
	$(RUN) 'ffjord/*' $(OPTIONS); status=$$?; $(PYTHON) -m repro report --local && exit $$status

queue: $(READY) ## work through results/QUEUE.md at low priority, resumable
	$(PYTHON) -m repro queue --jobs $(JOBS) --publish --max-minutes $(MINUTES)

report: $(READY) ## rebuild tables, figures and the README's generated part from the published runs
	$(PYTHON) -m repro report

# torchode asks for torchtyping, whose versions before 0.1.5 do not load beside today's torch, while 0.1.5 excludes, for no
# need, the typeguard that tyro needs. torchdyn asks for torchvision, which it never imports and others do: PyPI's wheel
# does not load beside a CPU build of torch.
$(VENV)/.peers: $(READY) pyproject.toml
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock --editable '.[peers]'
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps torchtyping==0.1.5
	$(VENV)/bin/python -m pip uninstall --quiet --disable-pip-version-check --yes torchvision
	touch $@

bench: $(READY) $(if $(filter peers,$(SUBSET)),$(PEERS)) ## all benchmarks but the peers, into results/benchmarks: about an hour
	$(PYTHON) -m benchmarks $(SUBSET) --device $(DEVICE)

bench-quick: $(READY) ## a pass of 3 minutes over memory, NFE, gradients, solvers and traces, into results/local
	$(PYTHON) -m benchmarks --quick --device $(DEVICE)

notebooks: $(READY) ## run the three notebooks from top to bottom, about two minutes; your files stay as they are
	$(PYTHON) -m pytest --nbmake --nbmake-timeout=300 notebooks

test: $(READY) ## the default tests, 4 to 8 minutes on two cores
	$(PYTHON) -m pytest -p no:nbmake --numprocesses auto --dist worksteal

test-report: $(READY) ## the report in a headless Chromium, where there is one; outside `make test`
	$(PYTHON) -m pytest tests/report/browser_report.py

check: $(READY) ## lint, types, layers, generated files and records, weights give their numbers, no regression, smoke tier
	$(PYTHON) -m ruff check repro tests benchmarks
	$(PYTHON) -m ruff format --check repro tests benchmarks
	$(PYTHON) -m pyright --pythonpath $(PYTHON)
	$(PYTHON) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'
	$(PYTHON) -m repro report --check
	$(PYTHON) -m repro evaluate --all --cheap
	REPRO_BENCH_DEVICE=cpu $(PYTHON) -m benchmarks.gate
	$(MAKE) reproduce TIER=smoke

clean: ## delete this machine's own runs (results/local) and caches, not the published ones
	rm -rf results/local .ruff_cache .import_linter_cache

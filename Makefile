# The lab's commands. A person, a hook and a CI job all call the same targets.

PYTHON ?= python3
VENV ?= .venv
METRIC ?=
MONTH ?=
SERVICE ?=
VENV_BENCH ?= .venv-bench

# Bytecode is always written, because without it every start would compile a million lines.
export PYTHONDONTWRITEBYTECODE :=
# Variables of make's command line (make up API_PORT=8010 PARAMS=…) are exported to the lab as they were typed: make does
# not expand a $ in them. LAB_SETTINGS lists their names, because the caller's environment may have others by chance.
given := $(foreach name,$(.VARIABLES),$(if $(filter line,$(origin $(name))),$(name)))
$(foreach name,$(given),$(eval override $(name) := $$(value $(name)))$(eval export $(name)))
export LAB_SETTINGS := $(strip $(LAB_SETTINGS) $(given))
export PATH := $(abspath $(VENV))/bin:$(PATH)

PY := $(VENV)/bin/python
# The name holds the lock file's checksum, so that a changed lock file is another target.
sum = $(shell cksum < requirements/$(1).txt | cut -d' ' -f1)
# The option of a command for a variable of make's command line. The caller's environment may have a NAME by chance.
option = --$(firstword $(subst =, ,$(1))) "$(if $(filter $(lastword $(subst =, ,$(1))),$(given)),$$$(lastword $(subst =, ,$(1))))"
LAB := $(VENV)/.lab-$(call sum,lab)
# Commands that stop the lab or show its state accept an outdated environment.
SOME := $(or $(firstword $(wildcard $(VENV)/.lab-*)),$(LAB))
BENCH := $(VENV_BENCH)/.bench-$(call sum,bench)
DEV := $(VENV)/.dev-$(call sum,dev)-$(call sum,lab)

.DEFAULT_GOAL := help
.PHONY: help up down status logs reset new train simulate-gate simulate reproduce collect env dev test bench bench-large bench-serving tables load load-ui elk-smoke check format lock

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

up: $(LAB) ## start everything; the first time, train and serve a champion [LITE=1 ENGINE=embedded AWS=1]
	@$(PY) -m launcher up

down: $(SOME) ## stop everything, keep the state
	@$(PY) -m launcher down

status: $(SOME) ## what runs, where, and how to sign in
	@$(PY) -m launcher status

logs: $(SOME) ## the end of the logs [SERVICE=api] [FOLLOW=1]
	@$(PY) -m launcher logs $(SERVICE) $(if $(filter 1,$(FOLLOW)),--follow)

reset: $(SOME) ## stop, and remove the state after asking [YES=1]
	@$(PY) -m launcher reset $(if $(filter 1,$(YES)),--yes)

new: $(LAB) ## make a first params.yaml for a table [TABLE=file.csv TARGET=column POSITIVE=value NAME=mine]
	@$(PY) -m trainer new $(foreach word,table=TABLE target=TARGET positive=POSITIVE name=NAME,$(call option,$(word)))

train: $(LAB) ## run the pipeline and choose the champion [METRIC=recall ACCEPT=1 RETRY=1]
	@$(PY) -m launcher train $(if $(METRIC),--metric $(METRIC)) $(if $(filter 1,$(ACCEPT)),--accept) $(if $(filter 1,$(RETRY)),--retry)

simulate-gate: $(LAB) ## how often the gate decides as it should; takes an hour or more [RUNS=100 SEEDS=40]
	@$(PY) -m trainer.simulate --runs $(or $(RUNS),100) --seeds $(or $(SEEDS),40)

simulate: $(LAB) ## how soon and how rightly the monitor's rules decide; writes docs/watching.md [RUNS=1500]
	@$(PY) -m monitor.simulate --runs $(or $(RUNS),1500)

reproduce: $(LAB) ## rebuild a registered version and compare [VERSION=1]
	@$(PY) -m launcher reproduce --version $(or $(VERSION),$(error say which version: make reproduce VERSION=1))

collect: $(LAB) ## add labelled live records to the dataset after asking [MONTH=2026-11 YES=1]
	@$(PY) -m launcher collect $(if $(MONTH),--until-month $(MONTH)) $(if $(filter 1,$(YES)),--yes)

env: $(LAB) ## make the environment only
dev: $(DEV) ## make the environment with the tools for tests

test: $(DEV) ## every test; what the machine lacks is skipped with its reason [ARGS=-k name]
	@$(PY) -m pytest -rs -n 2 $(ARGS)

bench: $(DEV) ## what make up and the pipeline take, in a fresh clone [RUNS=3]
	@$(PY) -m tests.bench --runs $(or $(RUNS),3)

tables: $(DEV) ## champions of public tables with make new and make up; writes docs/tables.md, takes half an hour
	@$(PY) -m tests.public

load: $(LAB) ## load the running API and hold it to loadtests/slo.yaml [USERS=20 SECONDS=60]
	@$(PY) -m loadtests.run --users $(or $(USERS),20) --seconds $(or $(SECONDS),60)

load-ui: $(LAB) ## the same by hand, on Locust's own page [LOCUST_PORT=8089]
	@$(PY) -m loadtests.run --ui

bench-large: $(DEV) ## make new on a million rows, training on 100,000, serving 30 features [RUNS=3]
	@$(PY) -m tests.large --runs $(or $(RUNS),3)

bench-serving: $(LAB) $(BENCH) ## this API and other servers side by side; writes docs/serving.md [ROUNDS=3]
	@$(PY) -m loadtests.bench --rounds $(or $(ROUNDS),3) --other $(VENV_BENCH)

elk-smoke: $(LAB) ## find a prediction, its trace, dashboards and rules in Elasticsearch and Kibana (not with LITE=1)
	@$(PY) -m tests.elk_smoke

check: $(DEV) ## format, lint, types, who may import whom
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

format: $(DEV) ## put the code into shape
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

# lab.txt comes before the others, because they take their versions from it.
lock: $(LAB) ## compile the lock files anew
	@cd requirements && for name in uv lab api mlflow dashboard trainer aws locust dev; do \
	  case $$name in uv|lab|dev) within=;; *) within="--constraint lab.txt";; esac; \
	  $(abspath $(VENV))/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
	    --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $$within $$name.in -o $$name.txt; done
	@# BentoML and MLflow pin different versions of OpenTelemetry, so that bench.txt takes all others from lab.txt.
	@cd requirements && sed -nE '/^opentelemetry/!s/^([a-z].*[^ \\]) *\\$$/\1/p' lab.txt > .pins.txt && \
	  $(abspath $(VENV))/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade --no-annotate \
	    --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' --constraint .pins.txt bench.in -o bench.txt; \
	  code=$$?; rm -f .pins.txt; exit $$code

$(VENV)/bin/uv:
	@test -w . || { echo "error: $(CURDIR) is not writable. What to do: clone the repository to a folder of yours" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11. What to do: make up PYTHON=python3.13" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "error: no virtual environment. What to do: install the venv module (Debian: python3-venv)" >&2; exit 1; }
	@$(VENV)/bin/python -m pip install --quiet --require-hashes -r requirements/uv.txt

$(LAB): $(VENV)/bin/uv
	@echo "installing the environment (1 GB; minutes the first time, seconds from the cache)"
	@$(VENV)/bin/uv pip sync --quiet --python $(PY) --require-hashes requirements/uv.txt requirements/lab.txt
	@rm -f $(VENV)/.lab-* $(VENV)/.dev-* && touch $@

$(DEV): $(VENV)/bin/uv
	@echo "installing the environment with the tools for tests"
	@$(VENV)/bin/uv pip sync --quiet --python $(PY) --require-hashes requirements/uv.txt requirements/dev.txt
	@rm -f $(VENV)/.lab-* $(VENV)/.dev-* && touch $@ $(LAB)

$(BENCH): $(VENV)/bin/uv
	@echo "installing the environment with the other servers"
	@test -x $(VENV_BENCH)/bin/python || $(PYTHON) -m venv --without-pip $(VENV_BENCH)
	@$(VENV)/bin/uv pip sync --quiet --python $(VENV_BENCH)/bin/python --require-hashes requirements/bench.txt
	@rm -f $(VENV_BENCH)/.bench-* && touch $@

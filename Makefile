# Riptide. `make` alone lists what there is.

# What the locks can be installed on: TensorFlow and numpy 1.26 (for Triton) have no packages for others.
FITS := import sys, os, ensurepip, venv; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 12) and os.uname().machine == "x86_64"))

# The first that fits; python3 if none does, so that the reason is said.
PYTHON  ?= $(shell for each in python3.11 python3.12 python3; do \
             $$each -c '$(FITS)' 2>/dev/null && { echo $$each; exit; }; done; echo python3)
CONFIG  ?= training/configs/movielens-small.toml
SEED    ?= 1
SEEDS   ?= 1,2,3
PROFILE ?= cpu
SCREENSHOTS ?= var/screenshots

OURS   := .venv
TRITON := .venv-triton
PY     := $(OURS)/bin/python
PROTO  := $(wildcard client/riptide/v1/*.proto)

# Nothing is installed but what the locks name: the packages are the folders of this checkout.
export PYTHONPATH := $(CURDIR)
# Images of Python often set it. TensorFlow is 2,300 files: compiled anew at every start they take longer than all else.
unexport PYTHONDONTWRITEBYTECODE
# TensorFlow's start-up notes; errors stay.
export TF_CPP_MIN_LOG_LEVEL ?= 2

MAKEFLAGS += --silent --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run up down status test test-console test-alerts check train ablate cold-items publish rollout bench capacity during bench-rollouts proto lock clean env format

help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: env ## from nothing to a live recommendation; stays up until Ctrl-C
	@$(PY) -m stack run --config $(CONFIG) --seed $(SEED)

up: env ## the same in the background; returns when it is ready
	@$(PY) -m stack up --config $(CONFIG) --seed $(SEED)

down: $(OURS)/.installed ## end what `make up` started, after the calls in flight
	@$(PY) -m stack down

status: $(OURS)/.installed ## whether it is up, and where
	@$(PY) -m stack status || test $$? -eq 1  # "not up" is an answer, too

# Some side by side. Those that start whole deployments, and look at how they answer, want the machine for themselves.
test: env ## all tests, unit to end-to-end, that need nothing but the locks; TEST="tests/unit -k page": of these, some
ifdef TEST
	@$(PY) -m pytest $(TEST)
else
	@$(PY) -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile tests/contract tests/unit; first=$$?; \
	  test $$first -le 1 || exit $$first; \
	  $(PY) -m pytest tests/integration tests/e2e || exit; \
	  test $$first = 0 || { echo "tests/contract or tests/unit failed: see above" >&2; exit $$first; }
endif

test-console: ## the console in a browser; needs Chromium and the stack's environments
	@command -v chromium >/dev/null || { echo "no chromium is on the PATH: install it first (Debian: apt install chromium)" >&2; exit 2; }
	@test -x $(PY) && test -x $(TRITON)/bin/python || { echo "$(OURS) or $(TRITON) is not there: make env installs them" >&2; exit 2; }
	@SCREENSHOTS="$(SCREENSHOTS)" $(PY) -m pytest -m browser tests/e2e/console

test-alerts: $(OURS)/.installed ## the alert rules by promtool (Debian: prometheus)
	@command -v promtool >/dev/null || { echo "promtool is missing: it comes with Prometheus (Debian: apt install prometheus," \
	  "elsewhere prometheus.io/download)" >&2; exit 2; }
	@$(PY) -m pytest -m promtool tests/integration/test_alert_rules.py

check: $(OURS)/.installed ## format, lint, types, contract, locks: what CI asks before the tests
	@echo "format"; $(OURS)/bin/ruff format --check --quiet --output-format concise . || { echo "  make format mends it"; exit 1; }
	@echo "lint";   $(OURS)/bin/ruff check --quiet --output-format concise .
	@echo "types";  $(OURS)/bin/mypy --no-error-summary
	@echo "proto";  $(OURS)/bin/buf lint
	@echo "stubs, imports, locks"; \
	  $(PY) -m pytest --quiet --no-header tests/contract/test_stubs_current.py tests/unit/test_imports.py tests/unit/test_locks.py

format: $(OURS)/.installed ## format the code
	@$(OURS)/bin/ruff format --quiet . && $(OURS)/bin/ruff check --quiet --fix --select I .

train: $(OURS)/.installed ## train and evaluate: a model for each of SEEDS (1,2,3), one for the time split
	@$(PY) -m training run --config $(CONFIG) --seeds $(SEEDS) --time-split

ablate: $(OURS)/.installed ## what text, users, time and ranking gain: variants of CONFIG, trained for each of SEEDS
	@$(PY) -m training ablate --config $(CONFIG) --seeds $(SEEDS)

cold-items: $(OURS)/.installed ## how well items that nobody took are recommended, for each of SEEDS
	@$(PY) -m training cold-items --config $(CONFIG) --seeds $(SEEDS)

publish: $(OURS)/.installed ## publish the newest export, for PROFILE (cpu, gpu), with ITEMS=new.csv added; make rollout gives it traffic
	@test -z "$(ITEMS)" || $(PY) -m training extend --config $(CONFIG) --seed $(SEED) --items "$(ITEMS)"
	@$(PY) -m rollout publish --profile $(PROFILE)

rollout: $(OURS)/.installed ## give the newest version traffic, step by step; ROLLOUT="--steps 1,5,25,100 --step-time 60s"
	@$(PY) -m rollout start $(ROLLOUT)

bench: env ## our figures beside floors, and how they grow; PEERS=1: beside other servers; ONLY=throughput,peers; BENCH="--rounds 3"
	@$(PY) -m benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(PEERS),--peers) $(BENCH)

capacity: $(OURS)/.installed ## with the stack up: the highest rate that keeps the service level; CAPACITY="--seconds 30 --slo my.toml"
	@$(PY) -m benchmarks.capacity $(CAPACITY)

during: $(OURS)/.installed ## with the stack up: load while WHAT happens: rollout, triton (is killed), store (is slow); DURING="--rate 100"
	@test -n "$(WHAT)" || { echo "say what happens: make during WHAT=rollout, WHAT=triton or WHAT=store" >&2; exit 2; }
	@$(PY) -m benchmarks.during $(WHAT) $(DURING)

bench-rollouts: env ## ten rollouts in a row under load
	@$(PY) -m benchmarks.rollouts

proto: $(OURS)/.installed ## generate the stubs of the contract
	@$(PY) -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=. $(PROTO)

# Own environment: the resolver is nothing that Riptide itself needs.
lock: ## resolve the dependencies again, into the lock files
	@mkdir -p -m 700 var
	@test -x var/uv/bin/uv || { $(PYTHON) -m venv var/uv && var/uv/bin/pip install -qq uv; }
	@var/uv/bin/uv pip compile --quiet --custom-compile-command "make lock" --generate-hashes --python-version 3.11 --no-emit-index-url \
	  --no-annotate --extra dev pyproject.toml -o requirements.lock
	@var/uv/bin/uv pip compile --quiet --custom-compile-command "make lock" --generate-hashes --python-version 3.11 --no-emit-index-url \
	  --no-annotate inference/triton-environment.in -o requirements-triton.lock

# With a place set, a deletion would either miss what it should or hit what this checkout does not own.
clean: ## end what runs; delete var/, published versions and caches; keep the environments
	@for name in RIPTIDE_STATE_DIR RIPTIDE_MODEL_REPOSITORY RIPTIDE_STORE; do \
	  test -z "$$(printenv $$name)" || { echo "$$name is set, and make clean deletes only what lies in this checkout:" \
	    "unset it, or delete what it names yourself" >&2; exit 2; }; done
	@test ! -x $(PY) || $(PY) -m stack down
	@rm -rf var .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find model_repository -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

# Two environments, because Triton's Python stub was built before numpy 2 (docs/architecture.md). Side by side: each
# is mostly downloads and unpacking.
env:
	@$(MAKE) -j2 $(OURS)/.installed $(TRITON)/.installed

# $(1) environment, $(2) lock, $(3) what it is for
define install
	@$(PYTHON) -c '$(FITS)' 2>/dev/null || \
	  { echo "$(PYTHON) is not Python 3.11 or 3.12 with its venv module (Debian: python3-venv) on x86-64 Linux:" \
	    "name one that is, for example make PYTHON=python3.11" >&2; exit 1; }
	@echo "$(1): installing $$(grep -c '==' $(2)) packages ($(3))"
	@$(1)/bin/python -m pip show --quiet pip 2>/dev/null || $(PYTHON) -m venv $(1)
	@start=$$(date +%s); \
	  $(1)/bin/python -m pip install -qq --disable-pip-version-check --no-input --no-deps --no-compile \
	    --require-hashes -r $(2) && \
	  echo "$(1): ready after $$(($$(date +%s) - start)) s"
	@touch $@
endef

$(OURS)/.installed: requirements.lock
	$(call install,$(OURS),requirements.lock,ours)

$(TRITON)/.installed: requirements-triton.lock
	$(call install,$(TRITON),requirements-triton.lock,for Triton)

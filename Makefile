# The verbs of the project. `make drill` and `make test` need only Python 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: drill sim sim-speed swarm test mutants bench-idle bench-regional bench-million test-interop check format protos clean install

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "isochrone needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once; a minute or two)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

drill: install
	@$(BIN)/isochrone drill run deploy/drills/region-failover.yaml --report reports/region-failover

# One simulated run: make sim SEED=7, or make sim for a drawn seed.
sim: install
	@$(BIN)/isochrone sim run $(if $(SEED),--seed $(SEED))

# How fast the simulator is: three regions of three nodes, 30 operations per virtual second, no faults.
sim-speed: install
	@$(BIN)/isochrone sim run --seed 7 --mode perf

# Seed after seed on all cores: make swarm MINUTES=30.
MINUTES ?= 5
swarm: install
	@$(BIN)/isochrone sim swarm --minutes $(MINUTES)

test: install
	@$(BIN)/pytest -q -m "not interop"

# Plants known faults, one at a time, and demands that the test named for each one fails.
mutants: install
	@$(BIN)/python tests/mutants/run_mutants.py

# What 1,000 idle groups cost each of three nodes, awake and asleep.
bench-idle: install
	@$(BIN)/python bench/idle_groups.py

# The tests against real programs: installs those that are missing where apt and the rights to use it are there.
# Each with the Debian package that brings it.
INTEROP_PROGRAMS := strace:strace etcd:etcd-server etcdctl:etcd-client h2load:nghttp2-client pg_lsclusters:postgresql

test-interop: install
	@for program in $(INTEROP_PROGRAMS); do command -v $${program%:*} >/dev/null || missing="$$missing $${program#*:}"; done; \
		if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
		fi
	@$(BIN)/pytest -q -m interop

# Beside a three-member etcd, if it is there: apt-get install etcd-server etcd-client nghttp2-client.
bench-regional: install
	@mkdir -p reports
	@GRPC_VERBOSITY=ERROR $(BIN)/python bench/regional.py --check-perf l --output reports/regional.json

# Memory, restart and snapshot of a million keys.
bench-million: install
	@mkdir -p reports
	@GRPC_VERBOSITY=ERROR $(BIN)/python bench/million_keys.py --output reports/million-keys.json

check: install
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check --no-cache .
	@$(BIN)/mypy -p isochrone
	@$(BIN)/lint-imports
	@$(BIN)/pytest -q tests/test_tidy.py

format: install
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# Python from the .proto files. What it makes is kept, and a test says when it is out of date.
PROTOS := isochrone/wire/etcd/generated
protos: install
	@$(BIN)/python -m grpc_tools.protoc -I$(PROTOS)=wire/etcd --python_out=src --pyi_out=src \
		$(patsubst wire/etcd/%,$(PROTOS)/%,$(wildcard wire/etcd/*.proto))

clean:
	rm -rf $(VENV) build dist reports .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

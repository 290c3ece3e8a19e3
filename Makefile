# Everything runs from the checkout: packages in .venv, the lab's hosts and caches under .lab.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
MAKEFLAGS += --no-print-directory

export PATH := $(CURDIR)/.venv/bin:$(PATH)
LAB := python3 tests/lab/lab.py
PYTHON_SOURCES := plugins roles examples tests molecule bench
SCENARIOS := $(patsubst molecule/%/molecule.yml,%,$(wildcard molecule/*/molecule.yml))
# The longest come first, so that the others fit in beside them; unit while the first scenario makes the lab's images.
FIRST := molecule-service unit molecule-package
TESTS := $(FIRST) $(filter-out $(FIRST),$(addprefix molecule-,$(SCENARIOS)))
# What each part of `make test` printed; the names of what failed are printed once more at its end.
LOGS := .lab/logs
UV_VERSION := $(shell sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements/dev.txt)
# uv reads neither pip's settings nor the system's certificates by itself.
export SSL_CERT_FILE ?= $(firstword $(wildcard /etc/ssl/certs/ca-certificates.crt) $(PIP_CERT))

ifdef TFSERVING_UPSTREAM
UPSTREAM := upstream
SERVING_VARIABLES := -e @tests/lab/upstream.yml
endif

.PHONY: help serve status test lint unit molecule compatibility fleet bench packages lab models build lock
.PHONY: operations clean

help: ## List the targets
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## (.*)/  make \1\t\2/' | expand -t 18

serve: $(UPSTREAM) lab models ## Bring up the lab, serve the two example models on it and print predictions
	ansible-playbook -i inventories/lab playbooks/serving.yml $(SERVING_VARIABLES)
	ansible-playbook -i inventories/lab playbooks/predict.yml

.PHONY: upstream
upstream:
	python3 tests/lab/upstream.py

status: .venv/installed ## Print what the lab's hosts serve
	ansible-playbook -i inventories/lab playbooks/status.yml

# What pytest and Ansible say of a failure; the short list comes last, as CI keeps the end of a log.
FAILURE := (^(\e\[[0-9;]*m)*(FAILED|ERROR)\b|fatal: )

test: ## Check everything that this project promises
	$(MAKE) --jobs=2 --output-sync=line lint lab-packages models
	rm -rf $(LOGS)
	$(MAKE) --keep-going --jobs=2 --output-sync=line $(TESTS) || {
	  grep -aPh -A15 '$(FAILURE)' $(LOGS)/*; echo '==> what failed:'; \
	  grep -aPoh '$(FAILURE).{0,120}' $(LOGS)/*; exit 1; }

lint: .venv/installed ## Run the linters and type checkers
	yamllint --strict -c .config/yamllint.yml .
	ansible-lint
	ruff check $(PYTHON_SOURCES)
	ruff format --check $(PYTHON_SOURCES)
	MYPYPATH=.collections mypy -p ansible_collections.modelops.tensorflow_serving.plugins
	mypy roles/tfserving_monitoring/files/tfserving_versions.py
	mypy examples/mnist
	mypy tests/lab/*.py
	mypy -p bench
	cd tests/lab && mypy -p model_server

unit: .venv/installed ## Run the unit tests: plugins, lab, lab model server, examples
	mkdir -p $(LOGS)
	pytest tests/unit | tee $(LOGS)/$@

molecule: lab-packages models ## Run every molecule scenario, each on fresh lab hosts, and print how long it took
	$(MAKE) $(addprefix molecule-,$(SCENARIOS))

# One scenario on lab hosts of its own, so that two can run at a time.
.PHONY: $(addprefix molecule-,$(SCENARIOS))
$(addprefix molecule-,$(SCENARIOS)): molecule-%: lab-packages models
	mkdir -p $(LOGS)
	TFSERVING_LAB=molecule-$(subst _,-,$*) molecule test --scenario-name $* 2>&1 | tee $(LOGS)/$@
	printf '==> scenario %s: %d s\n' $* $$SECONDS

compatibility: lab-packages models ## Converge a host with every ansible-core that is supported; not part of make test
	pytest tests/compatibility

fleet: lab-packages models ## Roll out on eight hosts behind HAProxy, under load and interrupted; not part of make test
	pytest tests/fleet

bench: lab-packages models ## Compare the sync with rsync, and converged hosts with a ping; CASES="first converged" and REPEAT=5 choose
	$(LAB) up --name bench --model-hosts 8
	python -m bench $(CASES) $(if $(REPEAT),--repeat $(REPEAT))
	$(if $(CASES),,$(LAB) down --name bench)

packages: lab-packages .venv/installed ## Install what the lab needs: OS packages when root, and .venv

lab: lab-packages .venv/installed ## Bring up the lab's hosts
	$(LAB) up

.PHONY: lab-packages
lab-packages:
	@command -v python3 > /dev/null || { echo 'python3 is missing: apt install python3 python3-venv'; exit 1; }
	$(LAB) packages --install

models: .venv/installed ## Train and export the example models
	python examples/mnist/train.py

build: .venv/installed ## Build the collection's tarball
	ansible-galaxy collection build --force

lock: .venv/installed ## Lock the Python packages again, at their newest versions
	compile() { uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	  --override requirements/overrides.txt --custom-compile-command 'make lock' "$$@"; }
	compile requirements/dev.in -o requirements/dev.txt
	compile requirements/lab-runtime.in --constraint requirements/dev.txt -o requirements/lab-runtime.txt
	compile requirements/lab-infra.in -o requirements/lab-infra.txt

operations: .venv/installed ## Write the list of TensorFlow's operations again, after another TensorFlow was locked
	python tests/unit/plugins/tensorflow_operations.py > plugins/module_utils/_saved_model/tensorflow_operations.py.new
	mv plugins/module_utils/_saved_model/tensorflow_operations.py{.new,}

clean: ## Remove the lab, the example models, .venv and all caches
	if [ -d .lab ]; then $(LAB) clean; fi
	rm -rf .ansible .venv examples/mnist/{saved,saved_with_signature} examples/mnist/*.json *.tar.gz
	find . \( -name __pycache__ -o -name '.*_cache' \) -prune -exec rm -rf {} +

.venv/installed: requirements/dev.txt
	# The system's Python is built with optimizations that pyenv leaves out by default.
	python=python3
	/usr/bin/python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' && python=/usr/bin/python3
	$$python -m venv --clear .venv
	pip install --quiet uv==$(UV_VERSION)
	uv pip sync --quiet --compile-bytecode --require-hashes $<
	touch $@

# `make help` prints what is here.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CACHE := $(or $(GESSO_CACHE),$(HOME)/.cache/gesso)
# A package index that has a CPU build of torch saves 4 GB: make demo TORCH_INDEX_URL=...
TORCH_INDEX_URL ?=
protoc_outs = --plugin=protoc-gen-mypy_grpc=../$(BIN)/protoc-gen-mypy_grpc --python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) --mypy_grpc_out=$(1)
PROTOS := $(wildcard common/gesso/rpc/v1/*.proto)

export OMP_WAIT_POLICY := PASSIVE
export OPENBLAS_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE := 1

.PHONY: help setup demo test test-faults check lint types contracts unit format stubs stubs-check crds crds-check metrics metrics-check chart chart-check audit debian-tools go-tools cluster-tools cluster-up cluster-down kind-demo bench clean

help: ## what can be made
	@grep -hE '^[a-zA-Z_-]+%?:.*?## ' $(MAKEFILE_LIST) | awk -F':.*?## ' '{printf "  %-14s %s\n", $$1, $$2}'

# uv takes a third of pip's time; where it cannot (it does not read pip's configuration), pip goes on.
define install
	@$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python -c constraints.txt $(1) \
	  || { echo "uv could not: pip goes on, which takes longer"; $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt $(1); }
endef

# Torch goes first and alone, so that the index of a CPU build serves it and nothing else.
$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "[setup 1/3] virtual environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt uv
	@echo "[setup 2/3] torch (PyPI's build: 3 GB to download, 5 GB on disk, a minute or two)"
	$(call install,$(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) torch)
	@echo "[setup 3/3] everything else, and Gesso itself"
	$(call install,-e '.[dev]')
	@touch $@

setup: $(VENV)/.ready ## the virtual environment, with everything in it

demo: $(VENV)/.ready ## serve three minutes of prompts at a swinging load, and show what Gesso does with them
	@$(BIN)/gesso demo

test: $(VENV)/.ready ## every check and every test, but test-faults
	@$(MAKE) --no-print-directory debian-tools go-tools cluster-tools
	@$(MAKE) --no-print-directory lint types contracts stubs-check crds-check metrics-check chart-check audit
	@echo "[test] unit and integration tests, and those on a cluster"
	@$(BIN)/pytest -q

test-faults: $(VENV)/.ready ## what goes wrong on a cluster, each with its condition and its healing: minutes, pods
	@$(MAKE) --no-print-directory cluster-tools
	@GESSO_FAULTS=1 $(BIN)/pytest -q tests/cluster/test_faults.py tests/cluster/test_other_models.py

check: $(VENV)/.ready lint types contracts stubs-check crds-check metrics-check chart-check audit unit ## the gate before a commit: format, lint, types, contracts, unit tests

lint: $(VENV)/.ready
	@echo "[check] format and lint"
	@$(BIN)/ruff format --check -q . || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check -q .

types: $(VENV)/.ready
	@echo "[check] types"
	@$(BIN)/mypy --no-error-summary

contracts: $(VENV)/.ready
	@echo "[check] import contracts"
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

unit: $(VENV)/.ready
	@echo "[check] unit tests"
	@$(BIN)/pytest -q tests/unit

format: $(VENV)/.ready ## format the code
	@$(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix .

stubs: $(VENV)/.ready ## the gRPC stubs, from the .proto files
	@cd common && ../$(BIN)/python -m grpc_tools.protoc -I. $(call protoc_outs,.) $(PROTOS:common/%=%)

stubs-check: $(VENV)/.ready
	@echo "[check] gRPC stubs are current"
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && cd common \
	  && ../$(BIN)/python -m grpc_tools.protoc -I. $(call protoc_outs,"$$out") $(PROTOS:common/%=%) \
	  && for f in $$(cd "$$out" && find . -name '*.py*'); do cmp "$$out/$$f" "$$f" || { echo "stale stubs: run make stubs"; exit 1; }; done

crds: $(VENV)/.ready ## the CRD and its reference, from the typed model
	@mkdir -p crds docs/reference
	@$(BIN)/python -m gesso.api.crd > crds/gesso.dev_diffusionservices.yaml
	@$(BIN)/python -m gesso.api.crd_reference > docs/reference/diffusionservice.md

crds-check: $(VENV)/.ready
	@echo "[check] the CRD and its reference are current"
	@$(BIN)/python -m gesso.api.crd | cmp -s - crds/gesso.dev_diffusionservices.yaml \
	  && $(BIN)/python -m gesso.api.crd_reference | cmp -s - docs/reference/diffusionservice.md \
	  || { echo "stale: run make crds"; exit 1; }

metrics: $(VENV)/.ready ## the reference of all metrics, from their catalogue
	@$(BIN)/python -m gesso.metrics.reference > docs/metrics.md

metrics-check: $(VENV)/.ready
	@echo "[check] the reference of metrics is current"
	@$(BIN)/python -m gesso.metrics.reference | cmp -s - docs/metrics.md || { echo "stale: run make metrics"; exit 1; }

chart: $(VENV)/.ready ## what is made of the chart's values and the CRD: the chart, its reference, manifests/install.yaml
	@$(BIN)/python charts/make_chart.py

chart-check: $(VENV)/.ready
	@echo "[check] the chart and manifests/install.yaml are current"
	@$(BIN)/python charts/make_chart.py --check

audit: $(VENV)/.ready ## known vulnerabilities of the dependencies; says so where nobody can be asked
	@echo "[check] known vulnerabilities of the dependencies"
	@$(BIN)/python hack/audit.py

debian-tools: ## Chromium and Prometheus from Debian, for the tests of the console, the dashboards and the alerts
	@if command -v chromium chromedriver promtool prometheus >/dev/null; then true; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "[setup] Debian packages: chromium, chromium-driver, prometheus"; \
	  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
	    chromium chromium-driver prometheus >/dev/null; } \
	  || echo "[setup] they cannot be had: their tests are skipped"; \
	else echo "[setup] no Chromium or no Prometheus, and no root to install them: their tests are skipped"; fi

go-tools: ## grpcurl, for the test of gRPC reflection: once, into ~/.cache/gesso
	@if command -v grpcurl >/dev/null || test -x $(CACHE)/bin/grpcurl; then true; \
	elif command -v go >/dev/null; then \
	  echo "[setup] grpcurl"; \
	  GOBIN=$(CACHE)/bin timeout 300 go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4 2>/dev/null \
	  || echo "[setup] it cannot be made: its test is skipped"; \
	else echo "[setup] no Go, so no grpcurl: its test is skipped"; fi

cluster-tools: $(VENV)/.ready ## the programs of the test cluster, once: minutes, into ~/.cache/gesso
	@$(BIN)/python tests/cluster/tools.py

cluster-up: $(VENV)/.ready ## a Kubernetes cluster on this machine, to play with (Linux, root)
	@$(BIN)/python tests/cluster/main.py up

cluster-down: $(VENV)/.ready ## ends it
	@$(BIN)/python tests/cluster/main.py down

kind-demo: ## Gesso on Kubernetes in Docker (kind): images, chart, the tiny model
	@hack/kind-demo.sh

bench: $(VENV)/.ready ## every benchmark, but the table of quality, which takes hours of CPU
	@for f in $(filter-out bench/bench_quality_table.py,$(wildcard bench/bench_*.py)); do $(BIN)/python $$f; done

bench-%: $(VENV)/.ready ## one benchmark, say bench-engine: a table, and bench/out/NAME.json
	@$(BIN)/python bench/bench_$*.py

clean: ## remove the virtual environment and everything that was made
	rm -rf $(VENV) bench/out demo .gesso .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

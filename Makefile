# Every command a person types. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PREFIX ?= /usr/local
CACHE  := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/netsplit
TOOLS  := $(CACHE)/tools
CARGO  ?= cargo
# One profile for everything: RocksDB is compiled once a profile, and costs minutes.
PROFILE := --release --locked
TARGET  := $(or $(CARGO_TARGET_DIR),target)
BIN     := $(TARGET)/release
IMAGES  := $(BIN)/images

export PATH := $(TOOLS)/bin:$(PATH)

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: ## install what the build needs (Debian packages; needs root, else prints the line to run)
	@scripts/setup.sh

setup-cluster: ## install what the Kubernetes test cluster needs (Debian packages, Go), and build its programs once
	@scripts/setup.sh cluster
	@e2e/cluster/cluster.sh programs >/dev/null

cometbft: ## build CometBFT from its Go module, once, and print where: for testnets with `chain: {cometbft: {}}`
	@echo "NETSPLIT_COMETBFT=$$(scripts/cometbft.sh)/cometbft"

build: setup ## build netsplit and netsplit-node
	@echo "building (the first time compiles RocksDB: several minutes on two cores)"
	$(CARGO) build $(PROFILE) --workspace --bins

install: build ## put netsplit and netsplit-node under PREFIX/bin (default /usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 0755 $(BIN)/netsplit $(BIN)/netsplit-node $(DESTDIR)$(PREFIX)/bin/

demo: build ## launch a testnet, split it, heal it, print the verdict, write a report
	@scripts/demo.sh $(BIN) $(TARGET)/demo-report

demo-kubernetes: build setup-cluster ## the same on a real Kubernetes, by helm and kubectl (root)
	@scripts/demo-kubernetes.sh $(BIN)

images: build ## make the container images as OCI archives (no registry, no Docker), beside the binaries
	@e2e/cluster/images.sh $(BIN) $(IMAGES)

cluster-up: setup-cluster images ## bring up a real Kubernetes here, with the images (root; ready in seconds)
	@e2e/cluster/cluster.sh up $(IMAGES)/netsplit.tar $(IMAGES)/netsplit-node.tar

cluster-down: ## take it down; nothing remains
	@e2e/cluster/cluster.sh down

check: fmt-check lint walls deny typos ## all gates that run no test

fmt: ## format the code
	$(CARGO) fmt --all

fmt-check:
	$(CARGO) fmt --all --check

lint: setup
	$(CARGO) clippy $(PROFILE) --workspace --all-targets -- -D warnings

walls: ## refuse dependencies that cross a wall of ARCHITECTURE.md
	scripts/check-walls.sh

deny: $(TOOLS)/bin/cargo-deny
	$(CARGO) deny --log-level error check bans licenses sources

typos: $(TOOLS)/bin/typos
	typos

gen: ## write what is generated from the types: the custom resource definitions
	$(CARGO) build $(PROFILE) --workspace --example crds
	$(BIN)/examples/crds charts/netsplit/crds

test: setup setup-cluster cometbft check ## prove everything: gates, unit and property tests, simulation, namespaces, testnets, Kubernetes
	$(CARGO) build $(PROFILE) --workspace --bins --examples
	NETSPLIT_BIN=$(abspath $(BIN)) $(CARGO) test $(PROFILE) --workspace --no-fail-fast

sim: ## more seeds of the consensus simulation (SEEDS=10000)
	$(CARGO) run $(PROFILE) -p netsplit-sim -- $(or $(SEEDS),10000)

bench: build ## measure: start-up, transfers/s, latency, memory, cuts, heals (QUICK=1: a short form)
	$(BIN)/netsplit-bench $(if $(QUICK),--quick) $(BENCH)

soak: build ## an hour of load, kills and cuts; many runs on a busy machine, on clean links, of leases (SOAK=3m: a short form; SOAK_ONLY=hour|busy|clean|leases, SEED=2)
	$(BIN)/netsplit-soak --duration $(or $(SOAK),1h) $(if $(SEED),--seed $(SEED)) $(if $(SOAK_ONLY),--only $(SOAK_ONLY))

clean: ## remove what was built
	$(CARGO) clean

$(TOOLS)/bin/cargo-deny:
	$(CARGO) install --locked --root $(TOOLS) --version 0.20.2 cargo-deny

$(TOOLS)/bin/typos:
	python3 -m venv $(TOOLS)/python
	$(TOOLS)/python/bin/pip install --quiet --disable-pip-version-check typos==1.52.0
	mkdir -p $(TOOLS)/bin && ln -sf $(TOOLS)/python/bin/typos $(TOOLS)/bin/typos

.PHONY: help setup setup-cluster cometbft build images cluster-up cluster-down install demo demo-kubernetes check fmt fmt-check lint walls deny typos gen test sim bench soak clean

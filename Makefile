# Few targets, and they only delegate.
.PHONY: build kernel agent artifacts demo test test-unit test-integration test-intel test-targets bench bench-start bench-exec bench-net bench-pull bench-files lint clean

ARTIFACTS := build/artifacts
# One file that needs nothing else, at fixed addresses (ARCHITECTURE.md says why, and what that
# costs). RELOCATION=pie gives one whose code lies somewhere else in every process.
TARGET := x86_64-unknown-linux-gnu
RELOCATION ?= static
STATIC := -C target-feature=+crt-static -C relocation-model
AGENT := target/agent/$(TARGET)/agent/hullbox-agent
PROBE := target/agent/$(TARGET)/agent/hullbox-probe

build: artifacts
	RUSTFLAGS="$(STATIC)=$(RELOCATION)" \
	    cargo build --release --locked -p hullbox --target $(TARGET) --target-dir target/static
	install -D target/static/$(TARGET)/release/hullbox target/release/hullbox

kernel:
	@scripts/install-deps build
	kernel-config/build-kernel $(ARTIFACTS)/vmlinux

agent:
	RUSTFLAGS="$(STATIC)=static" \
	    cargo build --locked -p hullbox-agent -p hullbox-probe --profile agent \
	    --target $(TARGET) --target-dir target/agent

artifacts: kernel agent
	kernel-config/make-initramfs $(AGENT) $(ARTIFACTS)/initramfs.cpio
	kernel-config/make-empty-disk $(ARTIFACTS)/empty.ext4
	cmp -s $(PROBE) $(ARTIFACTS)/hullbox-probe || install $(PROBE) $(ARTIFACTS)/hullbox-probe

demo:
	@scripts/install-deps demo
	@$(MAKE) --no-print-directory build
	scripts/demo

test:
	@$(MAKE) --no-print-directory test-targets test-unit test-integration test-intel

# Each of these stands alone: it installs what it needs and builds what it tests.
test-unit:
	@scripts/install-deps test
	@$(MAKE) --no-print-directory build
	cargo test --locked --workspace

test-integration:
	@scripts/install-deps test
	@$(MAKE) --no-print-directory build
	scripts/test-integration

test-intel:
	@scripts/install-deps test
	@$(MAKE) --no-print-directory build
	tests/intel/run

test-targets:
	tests/targets

bench:
	@scripts/install-deps test
	@$(MAKE) --no-print-directory build
	scripts/bench

bench-start:
	@scripts/install-deps test
	@$(MAKE) --no-print-directory build
	scripts/bench-start

bench-exec:
	@scripts/install-deps test
	@$(MAKE) --no-print-directory build
	scripts/bench-exec

bench-net:
	@scripts/install-deps test
	@$(MAKE) --no-print-directory build
	cargo build --release --locked -p hullbox-net --example user_network
	scripts/bench-net

bench-pull:
	@scripts/install-deps test
	@$(MAKE) --no-print-directory build
	scripts/bench-pull

bench-files:
	@scripts/install-deps test
	@$(MAKE) --no-print-directory build
	scripts/bench-files

lint:
	@scripts/install-deps build
	@$(MAKE) --no-print-directory artifacts
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

clean:
	rm -rf build target

# Few targets, and they only delegate.
.PHONY: build kernel agent artifacts demo test test-unit test-integration test-intel bench bench-start bench-exec lint clean

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
	@scripts/install-deps test
	@$(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory test-unit test-integration test-intel

test-unit:
	cargo test --locked --workspace

test-integration:
	scripts/test-integration

test-intel:
	tests/intel/run

bench:
	@scripts/install-deps test
	@$(MAKE) --no-print-directory build
	scripts/bench

bench-start:
	scripts/bench-start

bench-exec:
	scripts/bench-exec

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

clean:
	rm -rf build target

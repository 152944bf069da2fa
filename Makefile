# Few targets, and they only delegate.
.PHONY: build kernel agent artifacts demo test test-unit test-integration test-intel bench-start bench-exec lint clean

ARTIFACTS := build/artifacts
AGENT := target/agent/x86_64-unknown-linux-gnu/agent/hullbox-agent

build: artifacts
	cargo build --release --locked -p hullbox

kernel:
	@scripts/install-deps build
	kernel-config/build-kernel $(ARTIFACTS)/vmlinux

agent:
	RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" \
	    cargo build --locked -p hullbox-agent --profile agent \
	    --target x86_64-unknown-linux-gnu --target-dir target/agent

artifacts: kernel agent
	kernel-config/make-initramfs $(AGENT) $(ARTIFACTS)/initramfs.cpio
	kernel-config/make-empty-disk $(ARTIFACTS)/empty.ext4

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

bench-start:
	scripts/bench-start

bench-exec:
	scripts/bench-exec

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

clean:
	rm -rf build target

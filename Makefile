# glidefs-appliance. `make` alone lists the targets; each part prints how long it took.

PREFIX  ?= /usr/local
DESTDIR ?=

BIN     := bin/glidefs-appliance
TOOLS   := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/glidefs-appliance/tools
VERSION := $(shell git describe --always --dirty --tags 2>/dev/null || echo unknown)
GO      := CGO_ENABLED=0 go
PART    := .ci/part

# Where goroutines share memory and the detector finds things.
RACE := ./backend/wlog ./backend/volume ./backend/cache ./backend/store/... ./appliance/exports ./appliance/server ./appliance/statuspage

export PATH := $(TOOLS):$(PATH)

.PHONY: help build demo test test-lint test-unit test-race test-bench test-vm test-full soak bench bench-vm bench-ublk lint fmt tools deps deps-test deps-bench install uninstall clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

build: ## bin/glidefs-appliance, one static binary
	@$(PART) build $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN) ./cli

demo: deps build ## mount a disk, fill it, lose the machine, mount it again, compare
	@.ci/demo $(BIN)

OUTSIDE := deps-test tools build test-lint test-unit test-race test-bench
test: $(OUTSIDE) test-vm ## everything that proves something, in some 30 minutes

test-full: $(OUTSIDE) ## ... and every proof on every kernel, which takes longer
	@$(PART) "kernel lab, all of it" .ci/test-vm full $(KERNELS)
	@$(PART) "machines of the Vagrantfile" .ci/test-boxes

test-lint: tools
	@$(PART) lint .ci/lint

test-unit: deps-test tools build
	@$(PART) "go test" .ci/test

test-race: deps-test tools
	@$(PART) "go test -race" .ci/test-race $(RACE)

test-bench: deps-test tools build
	@$(PART) "bench, a second each" .ci/bench short

KERNELS ?= 6.1 6.12 6.17 7
test-vm: deps-test tools build ## the part in the kernel lab; KERNELS="6.17 7" boots only these, KERNELS= none
	@$(PART) "kernel lab" .ci/test-vm test $(KERNELS)

SECONDS ?= 600
KERNEL  ?= 6.17
soak: deps-test tools build ## stamped data on block devices; SECONDS=3600 KERNEL=6.17
	@$(PART) "soak" .ci/test-vm soak $(SECONDS) $(KERNEL)

BENCH_KERNELS ?= 6.17 7
BENCH_DIR     ?= .
bench: deps-bench tools build ## the table of figures, medians of several runs; takes a while
	@.ci/bench full

bench-vm: deps-test ## the same for block devices, in the kernel lab: ratios; BENCH_KERNELS="6.17 7"
	@.ci/bench-vm $(BENCH_KERNELS)

bench-ublk: deps-test ## ... on this host, below BENCH_DIR; its kernel must have ublk with zero copy
	@.ci/bench-ublk $(BENCH_DIR)

lint: test-lint ## gofmt, go vet, staticcheck

fmt: ## format the code
	@gofmt -w $$(git ls-files '*.go')

tools: ## versitygw and staticcheck, pinned, into $XDG_CACHE_HOME
	@.ci/tools $(TOOLS)

deps: ## Debian packages that `make demo` needs
	@.ci/deps run
deps-test: ## ... that `make test` needs
	@.ci/deps test
deps-bench: ## ... that `make bench` needs
	@.ci/deps bench

install: ## binary and systemd units below $(DESTDIR)$(PREFIX); needs make build
	@systemd/install $(BIN) "$(DESTDIR)" "$(PREFIX)"

uninstall: ## take them away
	@systemd/uninstall "$(DESTDIR)" "$(PREFIX)"

clean: ## what make build made
	rm -rf bin

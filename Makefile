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

.PHONY: help build demo test test-lint test-unit test-race test-bench test-vm bench lint fmt tools deps deps-test deps-bench install uninstall clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

build: ## bin/glidefs-appliance, one static binary
	@$(PART) build $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN) ./cli

demo: deps build ## mount a disk, fill it, lose the machine, mount it again, compare
	@.ci/demo $(BIN)

test: deps-test tools build test-lint test-unit test-race test-bench ## everything that proves something

test-lint: tools
	@$(PART) lint .ci/lint

test-unit: deps-test tools build
	@$(PART) "go test" .ci/test

test-race: deps-test tools
	@$(PART) "go test -race" .ci/test-race $(RACE)

test-bench: deps-test tools build
	@$(PART) "bench, a second each" .ci/bench short

KERNELS ?= 6.12 6.17 7
test-vm: ## the block device frontends in the kernel lab; KERNELS="6.17" chooses
	@.ci/test-vm $(KERNELS)

bench: deps-bench tools build ## the table of figures, medians of several runs; takes a while
	@.ci/bench full

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

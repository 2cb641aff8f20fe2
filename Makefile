# make test    all tests; on Debian as root it installs the servers they need
# make unit    the same without installing anything
# make check   what a change must pass besides: format, vet, staticcheck, layers, modules, vulnerabilities
# make fuzz    every fuzz target, 30 s each (FUZZTIME=5m for longer)
# make bench   the figures of docs/benchmarks.md
# make build   bin/vedetta, static
# make deb     bin/vedetta_VERSION_ARCH.deb, for hub and agent
# make pgo     a new profile for the compiler, after a change of the parser or the detector
# make image   the container image, where there is Docker

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.PHONY: test unit check format vet staticcheck layers modules vulnerabilities fuzz bench build deb pgo image

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.8.0
FUZZTIME ?= 30s

test:
	@./test/install.sh
	@$(MAKE) --no-print-directory unit

# What starts servers, and measures how soon they answer, has the machine to itself, one package after the other;
# the rest, each of which keeps one processor busy, goes by twos before.
ALONE := ./enforce ./internal/app ./internal/gate ./test/...

unit:
	@race=; if [ "$$(go env CGO_ENABLED)" = 1 ]; then race=-race; else echo "left out: the race detector, which needs a C compiler"; fi; \
	alone=$$(go list $(ALONE)); others=$$(go list ./... | grep -vxF "$$alone"); \
	{ failed=0; \
	go test -json -p 2 $$race -shuffle=on -timeout 15m $$others || failed=1; \
	go test -json -p 1 $$race -shuffle=on -timeout 15m $$alone || failed=1; \
	exit $$failed; } | go run ./test/report

check: format vet staticcheck layers modules vulnerabilities

format:
	@files=$$(gofmt -l .); [ -z "$$files" ] || { echo "not formatted: $$files"; exit 1; }

vet:
	go vet ./...

staticcheck:
	go run $(STATICCHECK) ./...

layers:
	go test -run '^(TestLayers|TestMisplaced)$$' ./internal/app

modules:
	go mod verify

vulnerabilities:
	@./test/vulnerabilities.sh $(GOVULNCHECK)

fuzz:
	@./test/fuzz.sh $(FUZZTIME)

bench:
	@missed=0; for figures in replay "gate -kind policy" "gate -kind milter" "gate -kind exim" mail lists; do \
		go run ./test/bench $$figures || missed=1; \
	done; exit $$missed

build:
	CGO_ENABLED=0 go build -trimpath -o bin/vedetta ./cmd/vedetta

deb:
	./packaging/deb.sh

pgo:
	go test ./internal/app -run '^$$' -bench '^BenchmarkReplay$$' -benchtime 60x -cpuprofile cmd/vedetta/default.pgo -o /dev/null

image:
	@docker info >/dev/null 2>&1 || { echo "make image: no Docker to build with" >&2; exit 1; }
	docker build -t vedetta .

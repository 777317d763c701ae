# Everything a developer does here. `make` alone lists the targets.

SHELL   := /bin/sh
BIN     := $(CURDIR)/.bin
MODULES := events pkg/bus pkg/state pkg/mesh sagas services cmd integration
# And those that `bannou new service` has added to the workspace.
WRITTEN := $(filter-out $(MODULES),$(shell sed -n 's|^[[:space:]]*\./||p' go.work))
MODULES += $(WRITTEN)
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X main.version=$(VERSION)

# The binary and the tests are compiled in the same way, so that each package is compiled once: no C, and no -trimpath in either.
export CGO_ENABLED ?= 0

# Modules whose tests need no server besides what they start in their own process.
LIBRARIES := $(filter-out integration,$(MODULES))

# The packages of integration, each of which starts servers of its own. They mostly wait: two run at a time, those first that take longest,
# and of a package four of the tests that need not be alone.
LONGEST    := ./state ./e2e ./bus ./servers
BESIDE      = $(LONGEST) $$($(GO) -C integration list ./... | grep -v -E '/integration/(state|e2e|bus|servers|faults)$$')
TOGETHER   := -p 2 -parallel 4
# This one measures rates, after all others. Its long form is `make faults`: who runs that too, as CI does, leaves it out with FAULTS=. There those that
# compare rates come first, one after the other; then, beside each other, those that only count, with the sagas.
FAULTS     := ./faults
COUNT      := ^Test(Rebuild|Relay|RelayOutage|Mesh|MeshOnRabbitMQ|MeshPartitioned|KilledAtEveryStep|ServicesKilledAtEveryStep)$$
LONG       := -count=1 -v -timeout 20m
PAGE       := -args -long -out ../../docs/faults.md

# How long each fuzz target runs.
FUZZTIME ?= 60s

# The detector watches our code. SQLite, a C program translated into Go, runs unwatched: to watch it takes five times as long and finds
# nothing of ours. Only what is translated: the driver above it, modernc.org/sqlite, uses sync.Map. Of such generic code the linker keeps one
# copy for all packages, and an unwatched one hides from the detector who waited for whom: it then reports races that are none.
UNWATCHED := modernc.org/sqlite/lib modernc.org/libc modernc.org/memory
RACE      := -race $(foreach p,$(UNWATCHED),-gcflags=$(p)/...=-race=false)
LINT     = $(BIN)/golangci-lint run --config $(CURDIR)/.golangci.yml

# $(call each,MODULES,COMMAND): run the command, which may name $$m, for every module, also after one has failed; say how long each took.
define each
@failed=; for m in $(1); do echo "== $$m"; begin=$$(date +%s); $(2) || failed="$$failed $$m"; echo "== $$m: $$(($$(date +%s) - begin)) s"; done; \
	[ -z "$$failed" ] || { echo "$@ failed in:$$failed"; exit 1; }
endef

.DEFAULT_GOAL := help
.PHONY: help build run test race bench faults fuzz demo-mesh daprd parity bench-dapr generate generate-check lint tidy-check standalone deps compose-up compose-down compose-test clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/bannou
	@mkdir -p bin
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/bannou ./cmd/bannou

run: build ## build and serve everything in one process on 127.0.0.1:3500; ARGS are passed on
	@exec ./bin/bannou serve $(ARGS)

test: deps build ## run all tests, those against real RabbitMQ, Redis and MySQL included
	$(call each,$(LIBRARIES),$(GO) -C $$m test ./...)
	$(call each,tools,GOWORK=off $(GO) -C $$m test ./...)
	$(call each,integration,$(GO) -C $$m test -count=1 $(TOGETHER) -timeout 20m $(BESIDE) $(if $(FAULTS),&& $(GO) -C $$m test -count=1 -parallel 4 -timeout 20m $(FAULTS)))

# Many rounds and long simulations are the business of `make test`: here they are -short.
race: deps ## run the tests of libraries, services and drivers under the race detector
	$(call each,$(LIBRARIES),CGO_ENABLED=1 $(GO) -C $$m test $(RACE) -short ./...)
	@# The drivers on their servers. Bad days are left out, and clusters: the detector is too slow for their deadlines.
	$(call each,integration,CGO_ENABLED=1 $(GO) -C $$m test $(RACE) -count=1 -p 1 -parallel 4 -timeout 20m -short -skip '^(TestBadDays|TestCluster)$$' ./bus ./state ./mesh)

bench: deps build ## measure beside the raw libraries; writes the tables in docs/
	$(GO) -C integration run ./bench -out ../docs/benchmarks.md

faults: deps ## harm brokers, databases and the mesh under load, over and over; writes docs/faults.md, and fails when anything is lost
	$(GO) -C integration test $(LONG) -skip '$(COUNT)' ./faults $(PAGE)
	$(GO) -C integration test $(LONG) -run '$(COUNT)' -p 2 -parallel 8 ./faults ./sagas $(PAGE)

fuzz: ## run every fuzz target for FUZZTIME, and fail when one finds something
	./tools/fuzz $(FUZZTIME) $(MODULES) tools

demo-mesh: deps build ## kill one of three nodes under load, have another join, and count the errors: none
	@$(GO) -C integration build -o ../bin/demo-mesh ./demo
	@exec ./bin/demo-mesh -binary bin/bannou $(ARGS)

generate: .bin/oapi-codegen ## write all generated code anew
	GOWORK=off $(GO) -C tools run ./eventgen -schemas ../events/schemas -out ../events
	PATH="$(BIN):$$PATH" $(GO) -C services generate ./...
	$(call each,$(WRITTEN),$(GO) -C $$m generate ./...)

generate-check: generate ## fail when generated code is not what the schemas give
	@git diff --exit-code -- events services $(WRITTEN) || { echo "generated code is stale: run 'make generate' and commit"; exit 1; }
	@test -z "$$(git ls-files --others --exclude-standard -- events services $(WRITTEN))" || { echo "'make generate' wrote files that git does not know:"; git ls-files --others --exclude-standard -- events services $(WRITTEN); exit 1; }

lint: .bin/golangci-lint ## vet and lint every module
	$(call each,$(MODULES),(cd $$m && $(LINT) ./...))
	$(call each,tools,(cd $$m && GOWORK=off $(LINT) ./...))

tidy-check: ## fail when a go.mod or go.sum is not tidy
	@for m in $(MODULES) tools tools/compose tools/daprd tools/daprsdk; do GOWORK=off $(GO) -C $$m mod tidy -diff || { echo "$$m is not tidy: run 'GOWORK=off go -C $$m mod tidy'"; exit 1; }; done

standalone: ## build and vet every module without the workspace
	$(call each,$(MODULES) tools,GOWORK=off $(GO) -C $$m build ./... && GOWORK=off $(GO) -C $$m vet ./...)

deps: ## install RabbitMQ, Redis and MariaDB for the tests, or say what to install
	@./tools/install-servers
	@./tools/install-mysql $(BIN)/mysql-8.0 || true

daprd: ## build daprd, of the version that tools/daprd pins, and install Dapr's SDK for JavaScript, for the tests that hold Bannou beside them; takes minutes
	./tools/install-daprd $(BIN)
	./tools/install-dapr-sdk $(BIN)/dapr-sdk || true

bench-dapr: daprd ## do the same work through daprd, the facade and the libraries; writes docs/benchmarks-dapr.md. WORKS= names a part of it
	$(GO) -C integration test -count=1 -v -timeout 20m ./dapr -run '^TestBench$$' -args -bench-out ../../docs/benchmarks-dapr.md -bench-rounds 3 -bench-length 1s \
		-bench-works '$(or $(WORKS),invoke,publish,end to end,save,get,rest)'

parity: daprd ## run the same behaviours on daprd and on the facade; writes the table in docs/dapr.md
	$(GO) -C integration test -count=1 -timeout 10m ./dapr -run 'TestParity|TestGoSDK|TestJavaScriptSDK' -args -out ../../docs/dapr.md

compose-up: ## start RabbitMQ, Redis, MySQL and one node with Docker Compose
	./compose/secrets
	docker compose -f compose/compose.yaml up --build --detach --wait

compose-down: ## stop what compose-up started and remove its data
	docker compose -f compose/compose.yaml down --volumes

compose-test: ## tell the end-to-end story against the Compose suite, kill its containers under load, and take it down; needs no registry
	./compose/test

clean: ## remove what builds and runs leave behind
	rm -rf bin .bin .bannou

.bin/%: tools/go.mod tools/go.sum
	GOBIN=$(BIN) GOWORK=off $(GO) -C tools install tool
	@touch $(BIN)/*

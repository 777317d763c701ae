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

# Of those, the packages that `make test` runs. Most tests are the same under the detector: who runs `make race` too, as CI does, leaves them to it
# with RACED=1.
PACKAGES   = $(if $(RACED),./tools/unshort $$m,echo ./...)

# The packages of integration, each of which starts servers of its own. They mostly wait: two run at a time, those first that take longest,
# and of a package four of the tests that need not be alone.
LONGEST    := ./state ./e2e ./bus ./servers
BESIDE      = $(LONGEST) $$($(GO) -C integration list ./... | grep -v -E '/integration/(state|e2e|bus|servers|faults|migration)$$')
# `make story` is that of migration: it needs a daprd.
TOGETHER   := -p=2 -parallel=4
# This one measures rates, after all others. Its long form is `make faults`: who runs that too, as CI does, leaves it out with FAULTS=. There those that
# compare rates come first, one after the other, and beside them the one that mostly waits, for a broker that is away for two minutes; then,
# beside each other, those that only count, with the sagas.
FAULTS     := ./faults
COUNT      := ^Test(Events|Rebuild|Relay|RelayOutage|Mesh|MeshOnRabbitMQ|MeshPartitioned|KilledAtEveryStep|ServicesKilledAtEveryStep)$$
LONG       := -count=1 -v -timeout 20m
PAGE       := -args -long -out ../../docs/faults.md
OUTAGE     := ^TestRelayOutage$$

# How long each fuzz target runs.
FUZZTIME ?= 60s

# The detector watches our code. SQLite, a C program translated into Go, runs unwatched: to watch it takes five times as long and finds
# nothing of ours. Only what is translated: the driver above it, modernc.org/sqlite, uses sync.Map. Of such generic code the linker keeps one
# copy for all packages, and an unwatched one hides from the detector who waited for whom: it then reports races that are none.
UNWATCHED := modernc.org/sqlite/lib modernc.org/libc modernc.org/memory
RACE      := -race $(foreach p,$(UNWATCHED),-gcflags=$(p)/...=-race=false)
LINT     = $(BIN)/golangci-lint run --config $(CURDIR)/.golangci.yml

# Runs go test, and keeps what the failed have said for the end. In CI, which sets BANNOU_TEST_AGAIN, so many tests of each run may have a second
# chance, by themselves; what takes the first answer for true has none: what counts what was lost, and the histories.
GOTEST   = $(BIN)/gotest -failures $$said $(if $(BANNOU_TEST_AGAIN),$(AGAIN)) $(GO)
AGAIN    = -again $(BANNOU_TEST_AGAIN) -alone "$$BANNOU_TEST_ALONE" -never '/integration/(faults|sagas) |[Hh]istories|one_line|keep_the_sum|acknowledged and (is )?lost'

# $(call each,MODULES,COMMAND): run the command, which may name $$m, for every module, also after one has failed; say how long each took, and
# last what GOTEST has kept.
define each
@said=$$(mktemp); trap 'cat $$said; rm -f $$said' EXIT; trap 'exit 130' INT TERM; \
	failed=; for m in $(1); do echo "== $$m"; begin=$$(date +%s); $(2) || failed="$$failed $$m"; echo "== $$m: $$(($$(date +%s) - begin)) s"; done; \
	[ -z "$$failed" ] || { echo "$@ failed in:$$failed"; exit 1; }
endef

.DEFAULT_GOAL := help
.PHONY: help build run test race bench faults fuzz demo-mesh daprd parity bench-dapr story generate generate-check lint tidy-check standalone deps compose-up compose-down compose-test clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/bannou
	@mkdir -p bin
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/bannou ./cmd/bannou

run: build ## build and serve everything in one process on 127.0.0.1:3500; ARGS are passed on
	@exec ./bin/bannou serve $(ARGS)

test: deps build .bin/gotest ## run all tests, those against real RabbitMQ, Redis and MySQL included
	$(call each,$(LIBRARIES),p=$$($(PACKAGES)) && { [ -z "$$p" ] || $(GOTEST) -C $$m test $$p; })
	$(call each,tools,GOWORK=off $(GOTEST) -C $$m test ./...)
	$(call each,integration,$(GOTEST) -C $$m test -count=1 $(TOGETHER) -timeout=20m $(BESIDE) $(if $(FAULTS),&& $(GOTEST) -C $$m test -count=1 -parallel=4 -timeout=20m $(FAULTS)))

# Many rounds and long simulations are the business of `make test`: here they are -short.
race: deps .bin/gotest ## run the tests of libraries, services and drivers under the race detector
	$(call each,$(LIBRARIES),CGO_ENABLED=1 $(GOTEST) -C $$m test $(RACE) -short ./...)
	@# The drivers on their servers. Bad days are left out, and clusters: the detector is too slow for their deadlines. So are the suites on MySQL 8,
	@# a third of the time: they run the same code as those on MariaDB, and `make test` runs both. What was read is a test of MariaDB alone.
	$(call each,integration,CGO_ENABLED=1 $(GOTEST) -C $$m test $(RACE) -count=1 -p=1 -parallel=4 -timeout=20m -short -skip='^(TestBadDays|TestCluster|TestMySQL8|TestDaprsTableOnMySQL8|TestWhatWasReadStaysWithABinaryLog)$$' ./bus ./state ./mesh)

bench: deps build ## measure beside the raw libraries; writes the tables in docs/
	$(GO) -C integration run ./bench -out ../docs/benchmarks.md

.PHONY: faults-of-rates faults-of-counts
faults: faults-of-rates faults-of-counts ## harm brokers, databases and the mesh under load, over and over; writes docs/faults.md, and fails when anything is lost

faults-of-rates: deps
	@said=$$(mktemp); trap 'cat $$said; rm -f $$said' EXIT; trap 'exit 130' INT TERM; \
	$(GO) -C integration test $(LONG) -run '$(OUTAGE)' ./faults $(PAGE) >$$said 2>&1 & outage=$$!; \
	failed=; $(GO) -C integration test $(LONG) -skip '$(COUNT)' ./faults $(PAGE) || failed=1; \
	wait $$outage || failed=1; [ -z "$$failed" ]

faults-of-counts: deps
	$(GO) -C integration test $(LONG) -run '$(COUNT)' -skip '$(OUTAGE)' -p 2 -parallel 4 ./faults ./sagas $(PAGE)

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
	./tools/install-dapr-sdk $(BIN)/dapr-sdk || true
	./tools/install-daprd $(BIN)

parity: daprd ## run the same behaviours on daprd and on the facade, Dapr's SDKs on both, and the drivers over daprd; writes the tables in docs/dapr.md and docs/dapr-drivers.md
	$(GO) -C integration test -count=1 -timeout 20m ./dapr -run 'TestParity|TestGoSDK|TestJavaScriptSDK|Driver$$' -args -out ../../docs/dapr.md -drivers ../../docs/dapr-drivers.md

story: daprd ## move four services from daprd to native under load, and back, and kill them; writes the tables in docs/
	$(GO) -C integration test -count=1 -v -timeout 20m ./migration -args -long -out ../../docs/migrating-from-dapr.md

bench-dapr: WORKS ?= invoke,publish,end to end,save,get,rest
bench-dapr: daprd ## do the same work through daprd, the facade and the libraries; writes docs/benchmarks-dapr.md. WORKS= names a part of it
	$(GO) -C integration test -count=1 -v -timeout 20m ./dapr -run '^TestBench$$' -args -bench-out ../../docs/benchmarks-dapr.md -bench-rounds 3 -bench-length 1s \
		-bench-works '$(WORKS)'

compose-up: ## start RabbitMQ, Redis, MySQL and one node with Docker Compose
	./compose/secrets
	docker compose -f compose/compose.yaml up --build --detach --wait

compose-down: ## stop what compose-up started and remove its data
	docker compose -f compose/compose.yaml down --volumes

compose-test: ## tell the end-to-end story against the Compose suite, kill its containers under load, and take it down; needs no registry
	./compose/test

clean: ## remove what builds and runs leave behind
	rm -rf bin .bin .bannou

.bin/gotest: $(wildcard tools/gotest/*.go)
	@mkdir -p $(BIN)
	GOWORK=off $(GO) -C tools build -o $(BIN)/gotest ./gotest

.bin/%: tools/go.mod tools/go.sum
	GOBIN=$(BIN) GOWORK=off $(GO) -C tools install tool
	@touch $(BIN)/*

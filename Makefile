# What people do with a checkout. `make` lists it; each recipe is a command or two that can be typed as well.

.DEFAULT_GOAL := help
.PHONY: help run dev build generate entity migration test lint check bench

# Tools of development: tools/go.mod names their versions and checksums, Go builds and caches them.
tool := go tool -modfile=tools/go.mod

# A build for development compiles generated code without inlining and debugging information, in half the time: it is
# nearly all there is to compile after a change of a schema file. `go build ./cmd/godstack` makes the one to ship.
quick := -gcflags='godstack/ent/...=-l -dwarf=false' -gcflags='godstack/graph=-l -dwarf=false'

help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "  make %-12s %s\n", $$1, $$2 }'

run: ## Serve with demonstration data, on a private Postgres unless DATABASE_URL names one; Ctrl-C stops all
	@$(MAKE) -s build
	@exec bin/godstack serve --seed

build: ## Build bin/godstack for development
	@GOGC=400 go build $(quick) -o bin/godstack ./cmd/godstack

dev: ## Like run, and on each change generate, build and start again
	@$(tool) wgo -dir '^(cmd|ent/schema|graph|internal|web)(/|$$)' -file '[.](go|graphql)$$' \
		-xdir 'node_modules|testdata' -xfile '_test[.]go$$|_gen[.]go$$|^graph/(generated[.]go|ent[.]graphql)$$' \
		env GOGC=400 go run ./cmd/generate :: $(MAKE) -s build :: bin/godstack serve --seed

generate: ## Make everything that follows from ent/schema, and the next migration
	@GOGC=400 go run ./cmd/generate

entity: ## Write the schema file of a new entity: make entity name=Task fields="title:string done:bool"
	@go run ./cmd/generate entity -name '$(name)' -fields '$(fields)'

migration: ## Begin a migration to be written by hand: make migration name=fill_slugs
	@go run ./cmd/generate migration -name '$(name)'

test: tools lint web/node_modules ## Everything that must pass: lint, and all tests with the race detector and in a browser
	go test -race -shuffle=on -timeout 20m ./...
	go -C deploy/check test -count=1 ./...

lint: ## Check the code with golangci-lint (.golangci.yml says what for)
	$(tool) golangci-lint run

check: lint ## Lint, and see that generated code is current; it is afterwards
	@sum() { find ent graph migrations -type f | LC_ALL=C sort | xargs cksum; }; \
		before=$$(sum) && go run ./cmd/generate && [ "$$before" = "$$(sum)" ] || { echo 'generated code was not current' >&2; exit 1; }

bench: ## Measure requests and sockets against servers written by hand
	@go build -o bin/bench ./internal/bench
	@exec bin/bench $(BENCHFLAGS)

.PHONY: tools
tools:
	@scripts/install

web/node_modules: web/package-lock.json
	npm --prefix web ci --no-audit --no-fund
	@touch $@

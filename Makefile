# Larrey: developer and first-contact commands. `make` lists them.
PYTHON ?= python3
# Another build or index of torch: make setup TORCH="torch==2.13.0 --index-url https://…"
TORCH ?= torch==2.13.0
PY := .venv/bin/python
READY := .venv/.ready
LOCK := requirements/dev.lock
TESTS ?= tests
WORKERS ?= 2

.PHONY: chaos-field dashboards help setup demo test check lint tools simulation lock protocol wheel-node clean \
	bench-round bench-memory bench-aggregate bench-demo bench-heart bench-rand bench-flamby bench-boundary bench-dp bench-simulate pfl chaos-kills \
	chaos soak

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(READY) ## make .venv from the pinned dependencies (done once)

# A build of torch that was asked for by name replaces another one.
ifneq ($(origin TORCH),file)
ifneq ($(TORCH),$(shell cat .venv/.torch 2>/dev/null))
$(READY): another-torch
another-torch:
	test ! -x $(PY) || $(PY) -m pip uninstall --quiet --disable-pip-version-check --yes torch
.PHONY: another-torch
endif
endif

$(READY): $(LOCK) pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(LOCK)
	$(PY) -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	echo '$(TORCH)' > .venv/.torch
	touch $(READY)

demo: $(READY) ## train across four hospitals on this machine and show what happened
	.venv/bin/larrey demo

# Tests start hundreds of processes: their bytecode is kept even where it is not by default.
test: $(READY) ## the whole test suite
	env -u PYTHONDONTWRITEBYTECODE $(PY) -m pytest $(TESTS) -n $(WORKERS) --dist loadfile

check: $(READY) lint test ## format, lint, types, import layers, tests

lint: $(READY)
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy protocol privacy strategies client server lab
	.venv/bin/lint-imports --no-cache

tools: $(READY) ## helm, PostgreSQL, promtool and amtool, pinned, for tests (into .tools)
	$(PY) deploy/tools.py helm
	$(PY) deploy/postgres.py
	$(PY) deploy/watching.py

dashboards: $(READY) ## remake deploy/grafana/boards from the code beside it
	$(PY) deploy/grafana/make.py

simulation: $(READY) ## Flower's simulation engine on Ray, for its test
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/simulation.lock

bench-round: $(READY) ## seconds a round, beside stock Flower and bare gRPC
	$(PY) -m bench.round
bench-memory: $(READY) ## 100 MB updates: memory and seconds
	$(PY) -m bench.memory
bench-demo: $(READY) ## seconds from command to first round and to the end
	$(PY) -m bench.demo
bench-heart: $(READY) ## price of privacy and worth of federation, UCI heart
	$(PY) -m bench.heart
bench-rand: $(READY) ## price of privacy and of federation, RAND health insurance
	$(PY) -m bench.rand
bench-flamby: $(READY) ## FLamby's tables reproduced and beaten, by TCGA_BRCA=<folder> too
	$(PY) -m bench.flamby $(if $(TCGA_BRCA),--tcga $(TCGA_BRCA))
bench-aggregate: $(READY) ## mean and robust rules, beside a plain copy and Flower
	$(PY) -m bench.aggregate
bench-boundary: $(READY) ## attacks refused, kills survived, bytes accounted for, seconds to join
	$(PY) -m bench.boundary
bench-dp: $(READY) ## a private step beside a plain one, on one thread
	OMP_NUM_THREADS=1 $(PY) -m bench.dp

chaos: $(READY) ## every fault of tests/chaos, an hour at most; figures into bench/results
	$(PY) -m bench.chaos
soak: $(READY) ## 500 rounds, 8 sites, random faults: what grows; figures into bench/results
	$(PY) -m bench.soak
chaos-field: $(READY) ## ten failures of hospital federations, played; figures into OUT=runs/chaos
	$(PY) tests/chaos field --out $(or $(OUT),runs/chaos)
chaos-kills: $(READY) ## SIGKILL at every named point of a round; figures into OUT=runs/chaos
	$(PY) tests/chaos kills --out $(or $(OUT),runs/chaos)

bench-simulate: $(READY) simulation pfl ## 100 and 1,000 simulated sites, beside pfl-research and Flower
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(PY) -m bench.simulate
# Apart, as it wants an older dp-accounting; where it cannot be had, the bench says so.
pfl: $(READY) ## pfl-research, the peer of bench-simulate (into .tools, from PyPI)
	test -e .tools/pfl/.ready || { $(PY) -m venv .tools/pfl && .tools/pfl/bin/python -m pip install \
		--quiet --disable-pip-version-check pfl==0.6.0 "numpy==$$($(PY) -c 'import numpy; print(numpy.__version__)')" \
		&& touch .tools/pfl/.ready; } || { rm -rf .tools/pfl; echo "pfl 0.6 could not be installed" >&2; }

UV := .venv/bin/uv pip compile pyproject.toml --override requirements/without-torch.txt --universal \
	--python-version 3.11 --generate-hashes --no-header --no-emit-index-url --quiet
lock: ## remake requirements/*.lock (needs a network)
	$(UV) requirements/torch.in --extra dev -o requirements/dev.lock
	$(UV) requirements/torch.in --extra client -o requirements/node.lock
	$(UV) requirements/torch.in --extra client --extra images --extra sql -o requirements/node-sources.lock
	$(UV) --extra server -o requirements/server.lock
	$(UV) requirements/torch.in --extra dev --extra simulation -o requirements/simulation.lock

protocol: ## remake the gRPC stubs
	$(PY) -m grpc_tools.protoc -Iprotocol --python_out=protocol --pyi_out=protocol \
		--grpc_python_out=protocol protocol/larrey_protocol/v1/larrey.proto

wheel-node: $(READY) ## build the hospital's slim wheel into dist/
	$(PY) -m build --wheel --no-isolation --outdir dist client

clean: ## remove what make made
	rm -rf .venv .tools dist runs

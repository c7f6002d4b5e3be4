# Everything a developer does here. The first target that needs it makes .venv.
.DEFAULT_GOAL := help
python := .venv/bin/python

.PHONY: help test prove mutants bench bench-quick demo check freeze wheel clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: .venv/ok ## Run the test-suite; args="-k claim" passes arguments to pytest
	@tools/test_unit.sh $(args)

mutants: .venv/ok ## Show that the suite notices each of many faults; args="-k token" for some
	@$(python) tools/mutants.py $(args)

prove: .venv/ok ## Try 20,000 new sequences of calls, 200,000 spellings of secrets, 200 jobs of Codex, and the plans with 6,000,000 jobs
	@MOONMIND_PROVE=1 tools/test_unit.sh -n2 --dist=load tests/sql/test_plans.py tests/codex/test_redact.py tests/codex/test_day.py
	@MOONMIND_PROVE=$${MOONMIND_PROVE:-20000} tools/test_unit.sh -v -n$$(getconf _NPROCESSORS_ONLN) --dist=load tests/proof/test_state_machine.py $(args)

bench: .venv/ok ## Measure us, our peers and the bare limit: two hours; WORK=W2-1 PEER=pgqueuer for a cell
	@$(python) -m benchmarks --work "$(WORK)" --peer "$(PEER)" $(args)

bench-quick: .venv/ok ## A quick look at us, the quickest peers and the limit, under three minutes
	@$(python) -m benchmarks --quick --work "$(WORK)" --peer "$(PEER)" $(args)

demo: .venv/ok ## Show the queue at work, with a stand-in model; CODEX=real uses your Codex login
	@$(python) tools/demo.py

check: .venv/ok ## Format check, lint, types, import rules: what CI checks
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	.venv/bin/lint-imports

freeze: .venv/ok ## Start a migration from what changed in sql/: make freeze title="add labels"
	$(python) migrations/freeze.py "$(title)"

wheel: .venv/ok ## Build the wheel into dist/
	rm -rf dist
	$(python) -m pip -qq wheel --no-deps --wheel-dir dist .

clean: ## Remove what was made here; var/, where a worker keeps its checkouts, stays
	rm -rf .venv dist .*_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp comes last, and an interrupted set-up leaves none: the next one begins from nothing.
.venv/ok: pyproject.toml constraints.txt
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "moonmind-queue needs Python 3.11, python3 is $$(python3 --version 2>&1)" >&2; exit 1; }
	@python3 -m venv --clear .venv || \
		{ echo "python3 -m venv failed; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(python) -m pip -qq install -c constraints.txt uv && \
		.venv/bin/uv pip install --quiet --python $(python) -c constraints.txt -e '.[dev]' || \
		$(python) -m pip -qq install -c constraints.txt -e '.[dev]'
	@touch $@

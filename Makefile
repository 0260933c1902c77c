# What a checkout can do. Needed: GNU make and one of Python 3.11 to 3.15, nothing else. The first target that
# runs builds .venv from the lock file; it is brought up to date when pyproject.toml or the lock file changed.

.DELETE_ON_ERROR:
.PHONY: demo test lint bench bench-full bench-year headline drill drill-long lock

PYTHON := .venv/bin/python
BUILT := .venv/built
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 16))
BY_FILE := --dist loadfile --no-loadscope-reorder
# The other unit tests reach the 95 %; to count the lines in these, too, would take as long again.
MODELS := $(addprefix tests/unit/pipeline/, test_cancellation.py test_promises.py test_troubles.py)
LONGEST := tests/integration/commands tests/acceptance/test_wrong_addresses.py tests/acceptance/test_stops.py  # begun first
GATED := pipeline/*.py sync/*.py activecampaign/contacts.py activecampaign/responses/*.py commands/follow.py \
    events/classifier.py model/customers.py model/deliveries.py primitives/signal.py primitives/workers.py \
    runtime/log_tail.py runtime/shutdown.py

demo: $(BUILT) # a backfill of a generated history, everything local
	$(PYTHON) -m kiva_stream demo

# Only the unit tests are counted, and so slowed down: they alone reach the 95 %. The others wait much, so run 8 at a time.
test: $(BUILT) # every test; at least 95 % branch coverage of each gated module by the unit tests
	$(PYTHON) -m pytest --numprocesses 2 $(BY_FILE) --cov --cov-report= $(MODELS:%=--ignore=%) tests/unit
	$(PYTHON) -m pytest --numprocesses 8 $(BY_FILE) $(LONGEST) tests/acceptance tests/integration $(MODELS)
	@failed=0; for module in $(addprefix kiva_stream/,$(GATED)); do \
	    $(PYTHON) -m coverage report --include="$$module" --fail-under=95 || failed=1; \
	done; exit $$failed

lint: $(BUILT) # style, types, and which module may import which
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports --no-cache --no-logo

bench: $(BUILT) # the ratios and rates of benchmarks/, with their gates, in under 4 minutes
	$(PYTHON) -m benchmarks

bench-full: $(BUILT) # all of them, some of them larger, with their plots; half an hour
	$(PYTHON) -m benchmarks --full

headline: $(BUILT) # how many entries an hour at the documented limits, and without a pace for events: one line
	@$(PYTHON) -m benchmarks.headline

bench-year: $(BUILT) # a year of a medium company: 2,500,000 entries, in under an hour
	$(PYTHON) -m benchmarks year --entries 2500000

drill: $(BUILT) # every plug pulled on generated histories, in under 5 minutes; a table of what became of them
	$(PYTHON) -m kiva_stream drill

drill-long: $(BUILT) # 20 kills of 50,000 entries, five seeds; long outages; the whole poison matrix; more of the model
	$(PYTHON) -m kiva_stream drill --entries 50000 --kills 20 --only kills --only kills-logs-late \
	    --seed 1 --seed 2 --seed 3 --seed 4 --seed 5
	$(PYTHON) -m kiva_stream drill --only activecampaign-down --outage-s 120
	$(PYTHON) -m kiva_stream drill --only key-refused --outage-s 60
	$(PYTHON) -m pytest -q -n 2 -m matrix tests/acceptance/test_poison_matrix.py
	$(PYTHON) -m pytest -q --hypothesis-profile search tests/unit/pipeline/test_troubles.py

lock: $(BUILT) # the newest versions that pyproject.toml allows, for every supported Python
	$(PYTHON) -m pip install --quiet uv
	$(PYTHON) -m uv pip compile --quiet --upgrade --universal --no-strip-extras --python-version 3.11 --generate-hashes \
	    --extra test --extra bench --custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

$(BUILT): pyproject.toml requirements.lock
	@$(PYTHON) -m pip --version >/dev/null 2>&1 && $(PYTHON) -c "$(SUPPORTED)" || { \
	    for python in python3 python3.15 python3.14 python3.13 python3.12 python3.11; do \
	        $$python -c "$(SUPPORTED)" 2>/dev/null && break; \
	        python=; \
	    done; \
	    test -n "$$python" || { echo "kiva_stream needs one of Python 3.11 to 3.15; python3 is" \
	        "$$(python3 --version 2>/dev/null || echo missing). Install one of them and run make again." >&2; exit 1; }; \
	    echo "$$python -m venv .venv"; \
	    $$python -m venv --clear .venv || { echo "$$python cannot build an environment:" \
	        "install its venv module (Debian and Ubuntu: apt install python3-venv) and run make again." >&2; exit 1; }; \
	}
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Needs nothing but make, sh and Python 3.11 or newer with its venv module.
# PYTHON=/path/to/python3.12 names the interpreter; VENV=… the environment's folder.

VENV ?= .venv
export VENV
PY = $(VENV)/bin/python

# Tests that ask for more than the machine has skip themselves, saying why;
# tests/require_all.py turns that into a failure under ROOMSCRIBE_REQUIRE_ALL=1, as CI runs it.
PYTEST = $(PY) -m pytest -p tests.require_all
FAST = -m "not slow and not browser and not talk and not whisperx and not faults" -n auto
# What runs in real time mostly waits, and so do calls: without coverage, which takes half as much
# of the processor again. What measures is kept from browsers.
REAL_TIME = -n 3 --dist worksteal --timeout-method=thread
SLOW = -m "(slow or browser) and not talk and not faults and not measures" $(REAL_TIME)
MEASURES = "(measures or faults) and not talk"
# A signal that ends a test is lost within uvloop: a thread ends its process.
CALLS = -m talk -n 3 --dist loadfile --timeout-method=thread
VENV_WHISPERX ?= .venv-whisperx
FUZZ_FOR ?= 1h

# No asyncio, sockets, clocks or logging in these, so nothing excuses an untested line.
PURE = media/jitter.py media/timeline.py media/pcm.py media/reports.py media/answer.py \
	media/networks.py \
	transcriber/types.py transcriber/segmenter.py transcriber/agreement.py \
	transcriber/scheduler.py transcriber/transcript.py transcriber/filters.py \
	transcriber/language.py transcriber/account.py transcriber/breaker.py \
	signaling/messages.py signaling/session.py signaling/hpb.py signaling/grant.py \
	signaling/bounds.py server/limits.py server/replay.py server/rules.py server/admission.py

empty =
comma = ,
PURE_LIST = $(subst $(empty) $(empty),$(comma),$(strip $(PURE)))

.DEFAULT_GOAL = help
.PHONY: help run test test-faults test-whisperx check lint scan soak soak-short bench-asr bench-media fuzz lock format clean setup-dev

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

# exec: the server itself gets Ctrl-C and SIGTERM, and its exit status is the answer
run: ## install into .venv where needed, and serve
	@.ci/setup && exec $(PY) -m server

test: lint scan ## every check and every test, with coverage
	@echo "roomscribe: fast tests"
	@$(PYTEST) -q $(FAST) --cov --cov-report=
	@echo "roomscribe: tests in calls of the real Janus and signaling server"
	@$(PYTEST) $(CALLS) --cov --cov-append --cov-report=
	@echo "roomscribe: coverage by these, at least 85 %"
	@$(PY) -m coverage report --skip-covered --fail-under=85
	@echo "roomscribe: coverage of the pure modules, at least 95 %"
	@$(PY) -m coverage report --include='$(PURE_LIST)' --fail-under=95
	@echo "roomscribe: tests in real time"
	@$(PYTEST) $(SLOW)
	@echo "roomscribe: tests that measure, and fifty speakers while something goes wrong"
	@$(PYTEST) -m $(MEASURES) $(REAL_TIME)

check: lint ## lint, and the fast tests
	@echo "roomscribe: fast tests"
	@$(PYTEST) -q $(FAST)

lint: setup-dev ## format, lint, types and the arrows between packages
	@echo "roomscribe: ruff format"
	@$(PY) -m ruff format --check .
	@echo "roomscribe: ruff check"
	@$(PY) -m ruff check .
	@echo "roomscribe: mypy"
	@$(PY) -m mypy
	@echo "roomscribe: import linter"
	@$(VENV)/bin/lint-imports --no-logo

scan: setup-dev ## known holes, and secrets
	@echo "roomscribe: bandit"
	@$(PY) -m bandit -q -c pyproject.toml -r server signaling media transcriber
	@echo "roomscribe: no secrets in the tree"
	@git rev-parse --git-dir >/dev/null || { echo "roomscribe: what to search is known to git alone: run it in a clone"; exit 1; }
	@git ls-files -z -- . ':!tests/fuzz/corpus' ':!*.lock' | \
		xargs -0 $(VENV)/bin/detect-secrets-hook --disable-plugin KeywordDetector

test-whisperx: ## the WhisperX engine for real, in an environment of its own (8 GB)
	@VENV=$(VENV_WHISPERX) .ci/setup whisperx-test
	@echo "roomscribe: the tests of the WhisperX engine"
	@$(VENV_WHISPERX)/bin/python -m pytest -p tests.require_all tests/engines/test_whisperx_for_real.py

test-faults: setup-dev ## fifty speakers while something goes wrong, some minutes
	@$(PYTEST) -m faults $(REAL_TIME)

soak: setup-dev ## 100 speakers for a day: memory, finals, what is left; a report
	@$(PY) -m soak day --for 24h

soak-short: setup-dev ## 800 joins and leaves in four minutes, under memray, held to its budget
	@$(PY) -m soak short --for 4m --memray

bench-asr: setup-dev ## many speakers on one engine, beside the usual ways, in one run
	@$(PY) -m tools.bench_asr --json bench-asr.json

bench-media: setup-dev ## what a speaker costs, beside the usual aiortc code, in one run
	@$(PY) -m soak.bench_media --json bench-media.json --plot docs/img/media-cost.png

fuzz: setup-dev ## every parser of what comes from outside, for an hour; FUZZ_FOR=10m
	@$(PY) -m tests.fuzz.run all --for $(FUZZ_FOR)

lock: setup-dev ## the newest versions that fit into requirements.lock, and their licences
	@printf 'setuptools>=70.1\n' | $(VENV)/bin/uv pip compile pyproject.toml - --universal --upgrade \
		--python-version 3.11 --generate-hashes --no-header --quiet -o requirements.lock
	@$(PY) -m tools.licences >docs/licences.md

format: setup-dev ## put the code into the house's format
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

clean: ## remove .venv and what the tools left behind
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup-dev:
	@.ci/setup dev

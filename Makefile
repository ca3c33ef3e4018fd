# Every target makes the virtual environment it needs first; Python 3.11 or newer with venv is enough to begin.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
SERVE_VENV ?= .venv-serve
DEMO := demo-catalogue
MINUTES ?= 5

# The recipe of the default bundle: one network from INIT (a file with a backbone's weights, or imagenet, which timm
# downloads), then rounds of two networks, each from the mean of the two before; the mean of the last four ships
LABELS ?=
INIT ?= imagenet
BUNDLE_NAME ?= apparel-lite0
BUNDLE_OPTIONS ?= --freeze 3 --decisions corrections
BUNDLE_START ?= --stages 8@128,6@160,2@192
BUNDLE_ROUNDS ?= 1 2 3 4
BUNDLE_ROUND ?= --stages 2@160,4@176 --lr 3e-4 --mixup 1 --drop-path 0.3 --dropout 0.4 --weight-decay 0.1
BUNDLE_LAST ?= --stages 0@176
BUNDLE_WORK ?= bundle-work
BUNDLE_DEFAULT ?= tagger/model/bundles/default

PIP_INSTALL := -m pip install -qq --disable-pip-version-check -c constraints.txt

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(SERVE_VENV)/.installed ## Draw a small catalogue, tag it, and show the tags on a page
	@rm -rf $(DEMO)
	@$(SERVE_VENV)/bin/tagger demo --out $(DEMO) --items 120
	@$(SERVE_VENV)/bin/tagger run $(DEMO)/manifest.csv --out $(DEMO)/tags
	@$(SERVE_VENV)/bin/tagger export $(DEMO)/tags --format html --output $(DEMO)/tags.html
	@echo
	@echo "Open the page: $(CURDIR)/$(DEMO)/tags.html"
	@echo "The photos are drawings: they show how the tool works and are no evidence of its accuracy."

.PHONY: test
test: $(VENV)/.installed ## Run the tests with coverage; below 90 % they fail
	@$(VENV)/bin/python -m pytest --ignore=tests/services --cov --cov-report=term --cov-fail-under=90

.PHONY: test-services
test-services: $(VENV)/.installed ## Run the suites with real services (Debian packages: tests/services/packages.txt)
	@$(VENV)/bin/python -m pytest tests/services

.PHONY: fuzz
fuzz: $(VENV)/.installed ## Try hostile input of every kind for MINUTES (5); what breaks something is kept in fuzz-found/
	@$(VENV)/bin/python fuzz/fuzz.py --minutes $(MINUTES)

.PHONY: test-s3
test-s3: $(VENV)/.installed ## Run the suite with a real S3 server, Ceph's (Debian packages: tests/services/packages.txt)
	@$(VENV)/bin/python -m pytest tests/services/test_s3.py

.PHONY: lint
lint: $(VENV)/.installed ## Check style and format
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

.PHONY: type
type: $(VENV)/.installed ## Check types
	@$(VENV)/bin/mypy

.PHONY: bundle
bundle: $(VENV)/.installed ## Train the default bundle, in hours: LABELS="a/labels.csv b/labels.csv" INIT=file; resumes
	@test -n "$(LABELS)" || { echo 'make bundle needs labels: make bundle LABELS="a/labels.csv b/labels.csv"' >&2; exit 2; }
	@mkdir -p $(BUNDLE_WORK)
	@train() { $(VENV)/bin/tagger train $(LABELS) $(BUNDLE_OPTIONS) --out $(BUNDLE_WORK)/$$1 "$${@:2}"; }; \
	part() { train "$$@" --no-label-errors; }; \
	init() { for name in "$$@"; do echo "--init $(BUNDLE_WORK)/$$name/model.safetensors"; done; }; \
	part start $(BUNDLE_START) --init $(INIT); \
	before= pair=start; \
	for round in $(BUNDLE_ROUNDS); do \
		for twin in 1 2; do part $$round-$$twin $(BUNDLE_ROUND) --seed $$round$$twin $$(init $$pair); done; \
		before=$$pair pair="$$round-1 $$round-2"; \
	done; \
	train $(BUNDLE_NAME) $(BUNDLE_LAST) $$(init $$before $$pair) --name $(BUNDLE_NAME)
	@rm -rf $(BUNDLE_DEFAULT).new
	@mkdir $(BUNDLE_DEFAULT).new
	@cp $(BUNDLE_DEFAULT)/MODEL_CARD.md $(BUNDLE_DEFAULT).new
	@cd $(BUNDLE_WORK)/$(BUNDLE_NAME) && cp *.safetensors model.onnx bundle.json $(abspath $(BUNDLE_DEFAULT)).new
	@rm -rf $(BUNDLE_DEFAULT)
	@mv $(BUNDLE_DEFAULT).new $(BUNDLE_DEFAULT)
	@echo "$(BUNDLE_DEFAULT) is the new bundle. Measure it with tagger evaluate, and bring MODEL_CARD.md up to date."
	@echo "What the labels gave: $(BUNDLE_WORK)/$(BUNDLE_NAME)/data_report.md; likely wrong ones: label_errors.csv there."

.PHONY: bench
bench: $(VENV)/.installed ## Measure how fast each stage is, alone and together
	@$(VENV)/bin/python bench/run_all.py

.PHONY: bench-compare
bench-compare: $(VENV)/.installed ## Compare this machine's ratios with the last recorded ones
	@$(VENV)/bin/python bench/compare.py

.PHONY: wheel
wheel: $(SERVE_VENV)/.installed ## Build the wheel into dist/
	@rm -rf build
	@$(SERVE_VENV)/bin/python -m pip wheel -qq --no-deps --wheel-dir dist .
	@ls -lh dist/*.whl

.PHONY: clean
clean: ## Remove what was built, drawn and cached; the virtual environments stay
	@rm -rf build dist $(DEMO) fuzz-found .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find tagger schemas tests jobs -name __pycache__ -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## Remove the virtual environments too
	@rm -rf .venv .venv-* *.egg-info

$(VENV)/.installed: setup.cfg constraints.txt
	@echo "Installing what training, tests and checks need into $(VENV): torch with CUDA, about 6 GB, some minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python $(PIP_INSTALL) -e '.[dev]'
	@touch $@

$(SERVE_VENV)/.installed: setup.cfg constraints.txt requirements-serve.txt
	@echo "Installing what tagging on a CPU needs into $(SERVE_VENV): about 0.4 GB, no torch."
	@$(PYTHON) -m venv $(SERVE_VENV)
	@$(SERVE_VENV)/bin/python $(PIP_INSTALL) -r requirements-serve.txt
	@$(SERVE_VENV)/bin/python $(PIP_INSTALL) --no-deps -e .
	@touch $@

# make run · make test · make test-slurm · make test-chaos · make report · make lint · make train-models · make unlock · make clean

PYTHON ?= python3
CORES ?= $(shell nproc)
VENV := .venv
BIN := $(VENV)/bin
# The name tells what is installed, so that only a changed list of packages installs again.
READY := $(VENV)/ready-$(shell cat pyproject.toml constraints.txt | sha256sum | cut -c1-12)
GPUS := $(shell nvidia-smi -L 2>/dev/null | grep -c '^GPU')
SNAKEMAKE = snakemake --cores $(CORES) $(if $(filter-out 0,$(GPUS)),--resources gpu=$(GPUS)) $(ARGS)
REPORT := results/report/index.html

export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: run report test test-slurm test-chaos lint train-models environment unlock clean
.DEFAULT_GOAL := run

run: $(READY)
	@# Lists of clips first: then a new clip recomputes only the shard that it falls into.
	$(SNAKEMAKE) --quiet rules -- shards
	$(SNAKEMAKE) --quiet rules
	@echo "Report: file://$(CURDIR)/$(REPORT)"

# The same items in Snakemake's own format, with the provenance of every file.
report: run
	$(SNAKEMAKE) --report results/snakemake-report.zip
	@echo "Snakemake's report: $(CURDIR)/results/snakemake-report.zip"

test: $(READY)
	@# A file stays in one process: its fixtures are what costs. OpenMP must not fight for the cores.
	OMP_NUM_THREADS=1 python -m pytest -n $(CORES) --dist loadfile --timeout 900 $(ARGS)

# The default run, killed 50 times at random moments: the same results, nothing twice. Over an hour; FOLDER must be empty.
FOLDER ?= build/chaos
test-chaos: $(READY)
	python -m tests.workflow.chaos $(FOLDER) --cores $(CORES) $(ARGS)

# Minutes on a SLURM of its own; as root, which installs SLURM from Debian's packages where it is missing.
test-slurm: $(READY)
	tests/slurm/install.sh
	OMP_NUM_THREADS=1 python -m pytest -m "" --timeout 2400 tests/slurm $(ARGS)

lint: $(READY)
	ruff check src tests
	ruff format --check src tests
	mypy
	snakefmt --check --line-length 110 Snakefile workflow/rules
	snakemake --lint

# The weights in models/, from nothing; hours on a CPU.
train-models: $(READY)
	CORES=$(CORES) models/train.sh

environment: $(READY)

$(READY):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v < (3, 13))' || \
	  { echo "Python 3.11 or 3.12 is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1); say PYTHON=python3.11 make ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing; on Debian: apt install python3-venv" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch first: resolved together with the rest, pip would look for builds with CUDA.
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev,slurm,download]'
	@rm -f $(VENV)/ready-*
	@touch $@

# After a killed Snakemake.
unlock: $(READY)
	snakemake --unlock

clean:
	rm -rf results .snakemake

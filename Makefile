# Set-up, walk and tests. Every target is one or two plain commands; README.md gives them for use without make.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
FLOORS = .venv-floors
PIP = python -m pip --disable-pip-version-check
# The chapters that nbval runs as they are: three short ones, and 06 for its loss. `make walk` runs every chapter whole.
WHOLE = $(wildcard notebooks/01_* notebooks/06_* notebooks/10_* notebooks/14_*)
VAE_2 = --vgg runs/vgg16.safetensors --lr 6e-4
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup walk site test floors compatibility bench lab notebook execute exercises stamp study models lint format clean

# $(call quietly,STAGE,COMMAND): print a line for a stage. What the command prints goes to the log.
LOG = build/setup.log
quietly = @mkdir -p $(dir $(LOG)); echo '$1 (log: $(LOG)) ...'; $2 >> $(LOG) 2>&1 || { tail -n 20 $(LOG) >&2; \
	  echo 'This failed: $1. The whole log is $(LOG).' >&2; exit 1; }

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv from requirements.lock (the other targets do it when it is missing or old)

# The stamp is written last: a set-up that was interrupted is done again.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " \
	  + sys.version.split()[0] + "; name another: make PYTHON=python3.12 ...")'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) lacks venv; on Debian: apt install python3-venv"; exit 1; }
	@rm -f $(LOG)
	$(call quietly,set-up 1/3: an environment in $(VENV),$(PYTHON) -m venv $(VENV))
	$(call quietly,set-up 2/3: the packages of requirements.lock; some minutes,$(BIN)/$(PIP) install -r requirements.lock)
	$(call quietly,set-up 3/3: this package,$(BIN)/$(PIP) install --no-deps --no-build-isolation -e .)
	@touch $@

walk: $(READY) ## run every notebook into build/walk/, and make the site of that run (ARGS="notebooks/00_start_here.ipynb -p SEED 1" for less)
	@$(BIN)/python -m tools.notebooks.walk $(ARGS)

site: $(READY) ## make the site from the committed chapters, without running them: build/site/index.html
	@$(BIN)/python -m tools.site.build $(ARGS)

# nbval runs the chapters of WHOLE; tests/notebooks runs every chapter with its quick values.
# nbval's own kernel choice is this environment's. A process a core, each with one thread, finishes sooner than
# one process with all of them; loadfile keeps a notebook's cells in one process, and without reordering the
# files with most tests don't come first, which are short, but the longest.
test: $(READY) ## run the tests and, as tests, the notebooks (ARGS="-k pgd" for less)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --maxprocesses 4 \
	  --nbval-lax --nbval-current-env --nbval-cell-timeout=600 $(WHOLE) tests $(ARGS)

# Also a torch with CUDA, some gigabytes: the oldest one is on PyPI in no other build.
floors: $(READY) ## run the tests with the oldest packages that pyproject.toml allows, in .venv-floors
	$(call quietly,an environment in $(FLOORS),$(PYTHON) -m venv $(FLOORS))
	@$(BIN)/python -m tools.release.floors > $(FLOORS)/constraints.txt
	$(call quietly,the oldest packages; some minutes,$(FLOORS)/bin/$(PIP) install -c $(FLOORS)/constraints.txt -e .[all])
	OMP_NUM_THREADS=1 $(FLOORS)/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --maxprocesses 4 tests $(ARGS)

compatibility: $(READY) ## try situations from other projects' bug reports, into docs/compatibility.md (under 10 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.compatibility $(ARGS)

bench: $(READY) ## measure speed into build/speed.md (ARGS=--quick for a look)
	$(BIN)/python -m tools.speed.bench $(ARGS)

lab: $(READY) ## open the notebooks in JupyterLab
	$(BIN)/python -m jupyterlab --notebook-dir=notebooks $(ARGS)

notebook: $(READY) ## start a chapter: make notebook NAME=12_mine
	@$(BIN)/python -m tools.notebooks.new $(NAME)
	@$(BIN)/python -m tools.notebooks.stamp
	@$(BIN)/python -m tools.notebooks.written

# Timings and widget state would make every run a change.
execute: $(READY) ## run the notebooks in place, as they are committed (NB="notebooks/00_start_here.ipynb" for one)
	$(BIN)/python -m nbconvert --to notebook --execute --inplace --ExecutePreprocessor.timeout=1800 \
	  --ExecutePreprocessor.record_timing=False --ExecutePreprocessor.store_widget_state=False \
	  --ExecutePreprocessor.extra_arguments=--log-level=ERROR \
	  $(or $(NB),notebooks/*.ipynb)
	$(BIN)/python -m tools.notebooks.shrink $(NB)

exercises: $(READY) ## write students' copies, solutions and an nbgrader course into build/ (ARGS=--check tries them instead)
	$(BIN)/python -m tools.notebooks.exercises $(ARGS)
	$(if $(filter --check,$(ARGS)),,$(BIN)/python -m tools.notebooks.grading $(filter %.ipynb,$(ARGS)))

stamp: $(READY) ## write badges and bootstrap cells (the repository's address), lists of chapters and points, tables of results
	$(BIN)/python -m tools.notebooks.stamp
	$(BIN)/python -m tools.notebooks.written

study: $(READY) ## go on with the benchmark behind data/results/study.csv (ARGS="--hours 2", ARGS=--list)
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.study.run $(ARGS)

# Each step goes on where it stopped and is quick once it is done. VGG16's features serve as a loss alone.
models: $(READY) ## train the small models again, in hours on two cores: into runs/, at the end into data/models
	$(BIN)/python -m tools.faces.render train runs/faces
	test -e runs/vgg16.safetensors || $(BIN)/python -m tools.models.get_lpips --vgg runs/vgg16.safetensors
	$(BIN)/python -m tools.models.ddpm runs/faces data/photos runs/ddpm
	$(BIN)/python -m tools.models.vae runs/faces runs/vae_1 --crop 64 --steps 6000
	$(BIN)/python -m tools.models.vae runs/faces runs/vae_2 --start runs/vae_1 $(VAE_2) --steps 1500
	$(BIN)/python -m tools.models.vae runs/faces runs/vae_3 --start runs/vae_2 $(VAE_2) --steps 2400
	$(BIN)/python -m tools.models.vae runs/faces runs/vae --start runs/vae_3 $(VAE_2) --steps 6000 --decoder-only
	$(BIN)/python -m tools.models.sd runs/faces runs/vae_2 runs/sd_1
	$(BIN)/python -m tools.models.sd runs/faces runs/vae runs/sd --start runs/sd_1 --steps 5000
	$(BIN)/python -m tools.models.export runs data/models

lint: $(READY) ## check style, the direction of imports, and notebooks
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/python -m tools.notebooks.check

format: $(READY) ## mend what can be mended of the style
	$(BIN)/python -m ruff check --fix
	$(BIN)/python -m ruff format

clean: ## remove what was built and the caches, but no environment
	rm -rf build dist .hypothesis .pytest_cache .ruff_cache
	find . -name '.venv*' -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -print0 | xargs -0 rm -rf

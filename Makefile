# Two commands do everything: make book, make test. `make` alone lists the rest.
# Needs Python 3.11 or newer, make and git. TORCH=cuda takes PyTorch's CUDA build.

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready$(if $(TORCH),-$(TORCH))
BOOK := _build/.book
PORT := 8000
SITE := _config.yml _toc.yml repository.yml index.md references.bib $(shell find chapters assignments colab offrl_nb _static _ext -type f \
	-not -path '*/.*' -not -name '*.pyc' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help env book test retest serve new chapter execute methods assignments colab claims results trials bench data set-repo lint format lab clean need-chapter

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(READY) ## make the environment in .venv

$(READY): requirements.txt pyproject.toml scripts/env.sh
	@TORCH="$(TORCH)" PYTHON="$(PYTHON)" sh scripts/env.sh $(VENV)
	@touch $@

book: $(BOOK) ## build the website at _build/html/index.html
	@echo "The book lies at _build/html/index.html (make serve shows it at http://localhost:$(PORT))."

# All pages are built anew: a second, partial build would not repeat the warnings of the first.
$(BOOK): $(READY) $(SITE)
	@$(VENV)/bin/jupyter-book build . --all -q -W -n --keep-going >/dev/null
	@touch $@

test: $(if $(filter unit notebooks gpu,$(PART)),$(READY),$(BOOK)) ## run all tests and re-execute every chapter (PART=unit, site, notebooks or gpu: only those)
	@sh scripts/test.sh $(PY) $(PART)

retest: $(BOOK) ## the same, even when nothing changed
	@sh scripts/test.sh $(PY) again

serve: $(BOOK) ## show the website at http://localhost:8000 (PORT=... for another port)
	@$(PY) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

lab: $(READY) ## open the chapters in JupyterLab
	@$(PY) -m jupyter lab chapters

new: $(READY) ## CH=sarsa: begin a chapter from the template (TITLE="SARSA", PART=Models: its title and part of the book)
	@$(PY) scripts/new.py "$(CH)" "$(TITLE)" "$(PART)"

chapter: need-chapter $(READY) ## CH=bc: run a copy of a chapter at the small size and build it, store nothing
	@sh scripts/chapter.sh $(PY) $(CH)

execute: $(READY) ## re-run the chapters and store their outputs (CH=bc: only that one)
	@OFFRL_SIZE=book sh scripts/execute.sh $(PY) $(CH)

methods: $(READY) ## write the chapters' method cells to offrl_nb/methods
	@$(PY) scripts/methods.py

assignments: colab ## write the student notebooks to assignments/chapters, and what `make colab` writes
	@$(PY) scripts/assignments.py

colab: $(READY) ## write the chapters as Colab opens them to colab/chapters
	@$(PY) scripts/colab.py

claims: need-chapter $(READY) ## CH=bc: re-run a chapter's claims with three other blocks of seeds
	@$(PY) scripts/claims.py chapters/$(CH).ipynb

results: $(READY) ## train every method on every shipped dataset (SIZE=paper: published settings; resumable)
	@$(PY) scripts/results.py --size $(or $(SIZE),book) $(ARGS)

trials: $(READY) ## choose settings on seeds 100-104, beside cloning (ARGS="--methods iql --datasets pendulum/mixed-v0")
	@OMP_NUM_THREADS=1 $(PY) scripts/trials.py $(ARGS)

bench: $(READY) ## measure speed beside other code, write benchmarks/README.md (CHAPTERS=1: the chapters too)
	@OMP_NUM_THREADS=1 $(PY) benchmarks/bench.py $(if $(CHAPTERS),--chapters)

data: $(READY) ## make the shipped datasets anew
	@set -e; for script in data/make_*.py; do echo "$$script"; $(PY) "$$script"; done

set-repo: ## URL=https://github.com/me/book TAG=v0.2.0: where the book is published, everywhere at once
	@$(or $(PYTHON),python3) scripts/set_repo.py "$(URL)" "$(TAG)"

lint: $(READY) ## check style and formatting
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

format: $(READY) ## put style and formatting right
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

clean: ## remove what was built (the environment stays)
	@rm -rf _build dist .pytest_cache .ruff_cache

need-chapter:
	@test -n "$(CH)" || { echo "Name a chapter, for instance: make $(firstword $(MAKECMDGOALS)) CH=bc" >&2; exit 1; }

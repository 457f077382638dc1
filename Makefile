# make demo   trains a short comparison of the networks and draws its figures
# make test   runs the tests
# make lint   checks the style of the code
# All of them make .venv and install what is needed first.

# The first of these that is one of the Pythons that Chainer runs on here.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	2>/dev/null && echo $$python && break; done)
VENV = .venv
RUN = $(VENV)/bin/python

.PHONY: demo test lint

demo: $(VENV)/installed
	$(RUN) train_mnist.py --study blog --dataset digits --optimizer SGD --epoch 10 --jobs 2 --out result/demo
	$(RUN) plot_results.py result/demo

test: $(VENV)/installed-dev
	$(RUN) -m pytest $(ARGS)

lint: $(VENV)/installed-dev
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check

$(VENV)/installed: requirements.txt chainer-build/backend.py chainer-build/pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: needs Python 3.11, 3.12 or 3.13 on PATH, or as PYTHON=/path/to/python"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -r requirements.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(RUN) -m pip install -r requirements-dev.txt
	touch $@

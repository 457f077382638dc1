# make demo   trains a short comparison of the networks and draws its figures
# make test   runs the tests
# make lint   checks the style of the code
# All of them make .venv and install what is needed first.

# The first of these commands that is a Python on which Chainer works.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c $(IS_SUPPORTED) 2>/dev/null && echo $$python && break; done)
IS_SUPPORTED = 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
VENV = .venv
RUN = $(VENV)/bin/python

.PHONY: demo test lint

demo: $(VENV)/installed
	$(RUN) train_mnist.py --study blog --dataset digits --optimizer SGD --epoch 8 --jobs 2 --out demo
	$(RUN) plot_results.py demo

test: $(VENV)/installed-dev
	$(RUN) -m pytest $(ARGS)

lint: $(VENV)/installed-dev
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check

$(VENV)/installed: requirements.txt chainer-build/backend.py chainer-build/pyproject.toml
	@$(PYTHON) -c $(IS_SUPPORTED) || \
	{ echo "make: needs Python 3.11, 3.12 or 3.13 on PATH, or as PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -r requirements.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(RUN) -m pip install -r requirements-dev.txt
	touch $@

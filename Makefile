# make demo        trains a short comparison of the networks and draws its figures
# make test        runs the tests
# make gpu-check   on a machine with a GPU, tests and measures all that needs one (CUDA=12: CuPy 13)
# make lint        checks the style and the types of the code
# make figures     draws the figures and tables of the runs in evidence/ anew, without training
# make docs        writes docs/settings.md anew, from the declarations in mnist_bn/config.py
# All of them first make .venv (gpu-check: .venv-cuda13 or .venv-cuda12) and install what is needed.

# The first of these commands that is a Python on which Chainer works.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c $(IS_SUPPORTED) 2>/dev/null && echo $$python && break; done)
IS_SUPPORTED = 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
VENV = .venv
RUN = $(VENV)/bin/python

CUDA = 13
# What pip installs to measure beside ours. Each build of PyTorch has its own CUDA, and finds no GPU
# where the driver is older than that, as it may be with CUDA=12. pytorch.org lists other builds and
# the index of each: make gpu-check CUDA=12 TORCH='torch==VERSION --extra-index-url INDEX'
TORCH = torch==2.13.0
MEASURED = gpu-results

.PHONY: demo test gpu-check lint docs figures

demo: $(VENV)/installed
	$(RUN) train_mnist.py --study blog --dataset digits --optimizer SGD --epoch 8 --jobs 2 --out demo
	$(RUN) plot_results.py demo

test: $(VENV)/installed-dev
	$(RUN) -m pytest $(ARGS)

# CuPy comes in a package for each CUDA, and only one of them may be installed.
gpu-check: VENV = .venv-cuda$(CUDA)
gpu-check:
	@nvidia-smi -L >/dev/null 2>&1 || \
	{ echo "make gpu-check: nvidia-smi finds no NVIDIA GPU here" >&2; exit 2; }
	@echo "$(TORCH)" | cmp -s - $(VENV)/installed-cuda$(CUDA) || rm -f $(VENV)/installed-cuda$(CUDA)
	$(MAKE) VENV=$(VENV) $(VENV)/installed-cuda$(CUDA)
	$(RUN) -m pytest -m gpu --require-gpu $(ARGS)
	mkdir -p $(MEASURED)
	$(RUN) benchmarks/gpu.py --json $(MEASURED)/gpu-float32.json
	$(RUN) benchmarks/gpu.py --tf32 --json $(MEASURED)/gpu-tf32.json
	$(RUN) benchmarks/gpu.py --roofline --json $(MEASURED)/gpu-roofline.json

lint: $(VENV)/installed-dev
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	$(RUN) -m mypy --platform win32

docs: $(VENV)/installed
	$(RUN) -m mnist_bn.terminal.settings_page docs/settings.md

# The pages show these of all that is drawn.
figures: $(VENV)/installed-dev
	$(RUN) plot_results.py evidence -o figures --paste REPRODUCTION.md \
		docs/studies/best-rate.md docs/studies/blog.md docs/studies/cs231n.md \
		docs/studies/dying-relu.md docs/studies/exercise.md \
		docs/studies/learning-rate.md docs/studies/original-paper.md \
		docs/studies/understanding-bn.md docs/studies/variance-shift.md
	$(RUN) plot_results.py evidence/blog -o figures/page --page docs/pages/blog.html
	mkdir -p docs/blog-2016 docs/blog-today
	cp figures/blog-2016/overview.png figures/blog-2016/network-*.png docs/blog-2016
	cp figures/blog/overview.png figures/blog/network-*.png docs/blog-today
	cp figures/best-rate/best-rate.png figures/cs231n-*/*.png figures/exercise/*.png docs
	cp figures/dying-relu/*.png docs
	cp figures/dying-relu-long/dying-relu.png docs/dying-relu-100.png
	cp figures/learning-rate/*.png docs
	cp figures/original-paper/*.png docs
	cp figures/understanding-bn-quick-*/*.png docs/understanding-bn
	cp figures/variance-shift/*.png docs

$(VENV)/installed: requirements.txt $(wildcard chainer-build/*.py chainer-build/package/*.py) \
		chainer-build/pyproject.toml
	@$(PYTHON) -c $(IS_SUPPORTED) || \
	{ echo "make: needs Python 3.11, 3.12 or 3.13 on PATH, or as PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -r requirements.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(RUN) -m pip install -r requirements-dev.txt
	touch $@

$(VENV)/installed-cuda%: $(VENV)/installed-dev requirements-cuda%.txt
	$(RUN) -m pip install -r requirements-cuda$*.txt $(TORCH)
	echo "$(TORCH)" >$@

# make demo    fill masked test digits                          make test    the tests (five minutes on two cores)
# make page    inkfill.html: paint holes in the browser         make quick   the core's tests (under 40 seconds)
# make docs    the site, in build/site                          make check   the slower tests
# make lint    ruff and mypy                                    make hard    a million broken files, all combinations
# make dist    wheel and sdist, tried in a clean environment    make names   names of registered methods for the help
PYTHON ?= python3
PIP := .venv/bin/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --no-build-isolation --no-deps --editable .

.PHONY: demo page docs dist kernels names test quick check hard gpu lint notebook clean

demo: .venv/installed
	.venv/bin/inkfill demo --out inkfill-demo

page: .venv/installed
	.venv/bin/inkfill page --out inkfill.html --overwrite

docs: .venv/installed-dev
	mkdir -p build/page
	.venv/bin/inkfill page --out build/page/inkfill.html --overwrite
	.venv/bin/python -m sphinx -q -W --keep-going -b html docs build/site
	@echo "open build/site/index.html"

dist: .venv/installed-dev
	rm -rf build/dist build/clean
	.venv/bin/python -m build --quiet --outdir build/dist
	.venv/bin/python -m venv build/clean
	build/clean/bin/python -m pip --disable-pip-version-check install --quiet -r requirements.lock build/dist/*.whl
	cd build/clean && bin/inkfill sample --count 8 --out new.png && bin/inkfill page --out page.html

kernels: .venv/installed-dev
	.venv/bin/python -m inkfill.web.build

names: .venv/installed
	.venv/bin/python -m inkfill.app.choices

test: .venv/installed-dev
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses auto -m "not check" --ignore tests/hard

quick: .venv/installed-dev
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses auto -m "not check" tests/core tests/methods

check: .venv/installed-dev
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses auto -m check --ignore tests/hard
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses auto tests/hard

hard: .venv/installed-dev
	INKFILL_HARD=1000000 OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses auto tests/hard

gpu: .venv/installed-dev
	.venv/bin/python tests/gpu.py

lint: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/mypy --config-file reports/mypy.ini

notebook: .venv/installed-dev
	$(PIP) install --quiet jupyterlab
	.venv/bin/jupyter lab notebooks/inpainting.ipynb

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "inkfill needs Python 3.11 or newer; say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: requirements.lock pyproject.toml | .venv/bin/python
	@echo "installing into .venv"
	$(PIP) install --quiet -r requirements.lock
	$(INSTALL)
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.lock
	$(PIP) install --quiet -r requirements-dev.lock
	@touch $@

clean:
	rm -rf .venv inkfill-demo inkfill.html

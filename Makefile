# make demo    the main job: see masked digits completed       make test    the test suite
# make page    inkfill.html: paint holes in the browser         make lint    ruff and mypy
# make docs    the site, in build/site                          make dist    wheel and sdist, tried in a clean environment
# make hard    a million broken files, every method on everything
PYTHON ?= python3
PIP := .venv/bin/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --no-build-isolation --no-deps --editable .

.PHONY: demo page docs dist kernels test hard lint shape notebook clean

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

test: .venv/installed-dev
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses auto

hard: .venv/installed-dev
	INKFILL_HARD=1000000 OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses auto tests/hard

lint: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/mypy --config-file reports/mypy.ini

shape: .venv/installed-dev
	.venv/bin/python tests/test_house.py

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

# make demo    see it work        make test    the tests
# make check   lint, types, docs  make install only set up .venv
# Everything runs in .venv; a second run installs nothing again.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test check format clean
install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

test: install
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff check pipeline tests benchmarks
	$(BIN)/ruff format --check pipeline tests benchmarks
	$(BIN)/mypy
	$(BIN)/pydoclint --quiet pipeline

format: install
	$(BIN)/ruff check --fix pipeline tests benchmarks
	$(BIN)/ruff format pipeline tests benchmarks

# Two short trainings, so that MLflow has something to compare; then the model in the box labels a PubMed file.
demo: install
	rm -rf out/demo out/demo-short out/demo.checkpoints out/demo-short.checkpoints out/labels
	$(BIN)/hepatag train configs/demo.yaml
	$(BIN)/hepatag train configs/demo.yaml training.epochs=2 training.loss=weighted output=out/demo-short
	$(BIN)/hepatag label data/sample/pubmed99n0001.xml --out out/labels
	$(BIN)/hepatag show out/labels
	@echo
	@echo "Compare the two runs:  $(BIN)/hepatag ui   then open http://127.0.0.1:5000"
	@echo "Label your own file:   $(BIN)/hepatag label FILE --out labels"

clean:
	rm -rf .venv out build *.egg-info .mypy_cache .ruff_cache

# make demo    see it work        make test    the tests
# make check   lint, types, docs  make install only set up .venv
# Everything runs in .venv; a second run installs nothing again.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-oldest check format clean
install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# One process per core; a file's tests stay together, since they share what they train.
test: install
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

# The long part of tests/abuse: 20,000 mutated inputs or HEPATAG_ABUSE=N, and gzip bombs of 2 GB.
abuse: install
	HEPATAG_ABUSE=$${HEPATAG_ABUSE:-20000} $(BIN)/python -m pytest tests/abuse

check: install
	$(BIN)/ruff check pipeline tests benchmarks
	$(BIN)/ruff format --check pipeline tests benchmarks
	$(BIN)/mypy
	$(BIN)/pydoclint --quiet pipeline
	$(BIN)/python .ci/audit.py

# The oldest direct dependencies that pyproject.toml allows, resolved by uv. torch keeps its pin: older ones may bring CUDA.
test-oldest:
	$(PYTHON) -m venv build/oldest
	build/oldest/bin/python -m pip install --quiet uv
	grep '^torch==' constraints.txt > build/oldest/torch.txt
	build/oldest/bin/uv pip compile --quiet --no-header --no-annotate --resolution lowest-direct --extra dev \
	  --override build/oldest/torch.txt pyproject.toml | grep -v -E '^(nvidia|cuda|triton)' > build/oldest/lowest.txt
	build/oldest/bin/python -m pip install --quiet --no-deps --requirement build/oldest/lowest.txt
	build/oldest/bin/python -m pip install --quiet --no-deps --editable .
	build/oldest/bin/python -m pytest

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

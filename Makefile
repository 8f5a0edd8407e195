# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m beam_asr transcribe

# MkDocs' theme otherwise prints a paragraph about MkDocs 2 at each build.
export NO_MKDOCS_2_WARNING := 1

.PHONY: demo test quick quick-audio quick-rest check docs site flink conformance lock release clean

demo: .venv/installed
	$(RUN) --input=samples/manifest.jsonl --output=out/demo --overwrite \
		--model_name=samples/model.nemo --runner=DirectRunner
	@$(BIN)/python samples/show.py out/demo

test: .venv/installed-test
	$(MAKE) check
	$(BIN)/python -m pytest -q tests

# For a change at hand: what needs no model, in under three minutes on two cores: two halves side by side, then the checks.
WITHOUT_MODELS := $(BIN)/python -m pytest -q -p tests.support.without_models -m "not model"
AUDIO := tests/unit/audio tests/unit/transforms tests/unit/storage
quick: .venv/installed-test
	$(MAKE) --jobs=2 --output-sync quick-audio quick-rest check

quick-audio:
	$(WITHOUT_MODELS) $(AUDIO)

quick-rest:
	$(WITHOUT_MODELS) tests/unit $(AUDIO:%=--ignore=%)

check: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell -D - -D tests/project/words.txt *.md beam_asr benchmarks docs examples findings samples scripts templates tests
	$(BIN)/mypy beam_asr
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --strict

# Shows the site of docs/ while you write. `make check` builds it in build/site, and fails on a dead link.
site: .venv/installed-test
	$(BIN)/mkdocs serve --strict

# Writes what the docs and the templates show of the code: the flags, the fields, the failures, the
# rooms, the signals, and the parameters of the Flex Template.
docs: .venv/installed-test
	$(BIN)/python -m tests.project.flag_table
	$(BIN)/python templates/dataflow/metadata.py > templates/dataflow/metadata.json
	$(BIN)/python -m tests.project.module_tree
	$(BIN)/python -m tests.project.signal_table
	$(BIN)/python -m tests.project.field_table
	WRITE_TABLE=1 $(BIN)/python -m pytest -q tests/project/test_readme.py -k table_of_failures

# What the tests run Flink with, which they otherwise fetch themselves.
flink: .venv/installed-test
	$(BIN)/python -m tests.runners.flink

# Writes the table of docs/runners.md.
conformance: .venv/installed-test
	WRITE_TABLE=1 $(BIN)/python -m pytest -q tests/runners/test_conformance.py

# uv installs the lock in a fraction of the time that pip takes, from the same registry.
.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; choose one with make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

.venv/installed-test: .venv/installed requirements-storage.txt requirements-test.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python \
		-r requirements-storage.txt -r requirements-test.txt
	touch $@

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-annotate \
	--custom-compile-command "make lock" pyproject.toml
# Leaves out of the last file what the others list, since it is installed beside them.
BESIDE := awk 'FILENAME != last { listed[$$0]; next } /^\#/ || !($$0 in listed)'

lock: .venv/installed
	$(COMPILE) --extra gcp -o requirements.txt
	$(COMPILE) --extra gcp --extra s3 --extra azure --extra hf \
		--constraint requirements.txt -o requirements-storage.txt
	$(BESIDE) last=requirements-storage.txt requirements.txt requirements-storage.txt > lock.new
	mv lock.new requirements-storage.txt
	$(COMPILE) --extra test --extra docs --constraint requirements.txt --constraint requirements-storage.txt \
		-o requirements-test.txt
	$(BESIDE) last=requirements-test.txt requirements.txt requirements-storage.txt \
		requirements-test.txt > lock.new
	mv lock.new requirements-test.txt

# Commits and tags a release, and builds what is uploaded; pushes nothing. make release VERSION=1.2.3
release: .venv/installed-test
	$(BIN)/python scripts/release.py $(VERSION)

clean:
	rm -rf .venv build dist out *.egg-info

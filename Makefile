TYPES = interp,beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))

.PHONY: check examples test test-all mutants report picture docs bench truth

check:            ## style, types, and who may import whom
	ruff check .
	ruff format --check .
	NODE_OPTIONS=--max-semi-space-size=64 pyright --threads 2  # it mostly collects garbage
	lint-imports

examples:         ## every example of the documentation, shapes and types checked as it runs
	pytest interp --jaxtyping-packages="$(TYPES)"

test:             ## what runs in minutes, on two cores
	pytest

test-all:         ## the slow ones too
	pytest -m "slow or not slow"

mutants:          ## faults put into a copy of the code, which the tests beside them must find
	python -m tests.mutants

report:           ## the embedded study, from pictures to page
	interp-report

picture: RESULT ?= interp-report
picture:          ## README's picture, from the embedded study's result
	interp-report export $(RESULT) --to build/picture --what png --figure answer
	cp build/picture/png/answer.png docs/answer.png

docs:             ## one offline site, into docs/site; with OPTIONS=--without-outputs in a minute
	OMP_NUM_THREADS=1 python -m docs.building $(OPTIONS)

bench:            ## ratios and studies that are measured, never asserted on a clock
	python -m tests.benchmarks

truth:            ## every measure of sharing on models whose answer is known; BLUEPRINTS=30 judges on
	python -m tests.benchmarks truth

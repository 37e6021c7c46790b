.PHONY: check test test-all report bench

check:            ## style, types, and who may import whom
	ruff check .
	ruff format --check .
	pyright
	lint-imports

test:             ## what runs in seconds
	pytest

test-all:         ## the slow ones too
	pytest -m "slow or not slow"

report:           ## the embedded study, from pictures to page
	interp-report

bench:            ## ratios and studies that are measured, never asserted on a clock
	python -m tests.benchmarks

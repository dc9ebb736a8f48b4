# SPDX-License-Identifier: Apache-2.0
#
# A thin front of the CMake presets (CMakePresets.json), for a machine that has only git and make: cmake/setup.sh brings
# what is missing, CMake included, and does nothing when nothing is. Everything made lies in build/.

PREFIX ?= /usr/local
# The preset of `test`: `make test PRESET=sanitize` (address and undefined-behaviour sanitizers), PRESET=fuzz (a minute of
# each fuzz target; needs clang), PRESET=ci (warnings are errors).
PRESET ?= test
# The problems of `bench`: names of files in bench/problems/ without their ending.
PROBLEMS ?=

cmake := build/venv/bin/cmake
build = $(cmake) --workflow --preset

# As many tests at once as there are cores; the tests that measure or start builds of their own say that they run alone.
export CTEST_PARALLEL_LEVEL ?= $(shell nproc 2>/dev/null || echo 2)

.DEFAULT_GOAL := help
.PHONY: help demo test bench kernel-cycles install clean distclean setup setup-bench

help:
	@echo 'make demo                   compile a trained GRU for every target, run it, show what came out'
	@echo 'make test [PRESET=sanitize] build everything and run all tests'
	@echo 'make bench [PROBLEMS=NAMES] measure next to other engines, all of bench/problems/ but deepbench or what is named; report'
	@echo 'make kernel-cycles          estimate the cycles of kernels on cores that are not here'
	@echo 'make install [PREFIX=DIR]   install to DIR (default: /usr/local; DESTDIR is honoured)'
	@echo 'make clean                  remove what was built; build/venv (CMake, Halide) stays'
	@echo 'make distclean              remove build/ altogether'

setup:
	@cmake/setup.sh

setup-bench:
	@cmake/setup.sh bench

demo: setup
	@$(build) demo

test: setup
	@$(build) $(PRESET)

bench: setup-bench
	@HRNN_BENCH_PROBLEMS='$(PROBLEMS)' $(build) bench

kernel-cycles: setup-bench
	@$(build) $@

install: setup
	@$(build) install
	@$(cmake) --install build --prefix '$(PREFIX)'

clean:
	@[ ! -d build ] || find build -mindepth 1 -maxdepth 1 ! -name venv -exec rm -rf {} +

distclean:
	rm -rf build

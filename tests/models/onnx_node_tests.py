#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The RNN and GRU cases of the onnx package's backend node tests, through `hrnn run`, on every usable variant.

The cases feed W, R and B as graph inputs; their expected outputs come from the package's own reference code.
"""
import pathlib
import sys
import tempfile
import warnings

import onnx

import common

EXPECTED_CASES = 12
TOLERANCE = 1e-6  # their values are of order one


def cases():
    with warnings.catch_warnings():  # other operators' cases overflow on purpose
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return [case for case in collect_testcases(None) if case.model.graph.node[0].op_type in ("RNN", "GRU")]


def main(hrnn):
    variants = common.usable_variants(hrnn)
    assert variants, "this build has no kernels that this machine can run"
    found, failures = cases(), 0
    for case in found:
        names = [value.name for value in case.model.graph.input], [value.name for value in case.model.graph.output]
        ((inputs, outputs),) = case.data_sets
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / f"{case.name}.onnx"
            onnx.save(case.model, path)
            for variant in variants:
                got = common.run(hrnn, path, dict(zip(names[0], inputs)), variant)
                worst = common.largest_difference(got, dict(zip(names[1], outputs)))
                passed = worst < TOLERANCE
                failures += not passed
                print(f"{'passed' if passed else 'FAILED'} {case.name} on {variant}: largest difference {worst:.1e}")
    print(f"{len(found)} cases on {', '.join(variants)}, {failures} failures")
    return failures > 0 or len(found) != EXPECTED_CASES


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Exported models, compared with what the framework computed, on every usable variant.

NAME.onnx with NAME.in.npz and NAME.expected.npz; the scripts export_*.py beside this one make them.
"""
import pathlib
import sys

import numpy as np

import common

HERE = pathlib.Path(__file__).parent
DIGITS = HERE.parent.parent / "examples" / "digits"
# Of the largest value of an output, or of one. float16 states are rounded once a step.
TOLERANCE = {np.float64: 1e-14, np.float32: 2e-6, np.float16: 4e-3}


def tolerance(expected):
    return max(TOLERANCE[value.dtype.type] for value in expected.values())


def models(prefix=""):
    """(name, path, inputs, expected outputs) of all whose name starts with it."""
    found = sorted(path for path in (HERE / "exported").glob("*.onnx") if path.stem.startswith(prefix))
    for path in found:
        yield path.stem, path, dict(np.load(path.with_suffix(".in.npz"))), dict(np.load(path.with_suffix(".expected.npz")))
    if not prefix:
        yield "digits_gru", DIGITS / "digits_gru.onnx", dict(np.load(DIGITS / "test.npz")), {
            "logits": np.load(DIGITS / "expected.npz")["logits"]}


def main(hrnn):
    variants = common.usable_variants(hrnn)
    assert variants, "this build has no kernels that this machine can run"
    count, failures = 0, 0
    for name, path, inputs, expected in models():
        count += 1
        size = max(1.0, *(np.max(np.abs(value), initial=0) for value in expected.values()))
        for variant in variants:
            worst = common.largest_difference(common.run(hrnn, path, inputs, variant), expected) / float(size)
            passed = worst < tolerance(expected)
            failures += not passed
            print(f"{'passed' if passed else 'FAILED'} {name} on {variant}: largest difference {worst:.1e}")
    print(f"{count} models on {', '.join(variants)}, {failures} failures")
    return failures > 0 or count < 100


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

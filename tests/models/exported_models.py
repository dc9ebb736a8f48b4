#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Models exported from PyTorch by both of its exporters, compared with what PyTorch computed, on every usable variant.

NAME.onnx with NAME.in.npz and NAME.expected.npz; the models with random weights are made by export_models.py.
"""
import pathlib
import sys

import numpy as np

import common

HERE = pathlib.Path(__file__).parent
DIGITS = HERE.parent.parent / "examples" / "digits"
TOLERANCE = {"digits_gru": 2e-5, "digits_torchscript": 2e-5}  # logits reach 14; states stay below one
STATES = 1e-6


def models():
    yield "digits_gru", DIGITS / "digits_gru.onnx", dict(np.load(DIGITS / "test.npz")), {
        "logits": np.load(DIGITS / "expected.npz")["logits"]}
    for path in sorted(HERE.glob("*.onnx")):
        yield path.stem, path, dict(np.load(path.with_suffix(".in.npz"))), dict(np.load(path.with_suffix(".expected.npz")))


def main(hrnn):
    variants = common.usable_variants(hrnn)
    assert variants, "this build has no kernels that this machine can run"
    count, failures = 0, 0
    for name, path, inputs, expected in models():
        count += 1
        for variant in variants:
            worst = common.largest_difference(common.run(hrnn, path, inputs, variant), expected)
            passed = worst < TOLERANCE.get(name, STATES)
            failures += not passed
            print(f"{'passed' if passed else 'FAILED'} {name} on {variant}: largest difference {worst:.1e}")
    return failures > 0 or count < 5


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

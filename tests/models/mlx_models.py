#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""examples/mlx/mlx_to_onnx.py: what it writes of MLX's layers through `hrnn run` gives MLX's numbers, and what it cannot
write is an error. (exported/ has models that it wrote once.)

    mlx_models.py HRNN

Skipped where MLX is not installed.
"""
import pathlib
import sys
import tempfile

import numpy as np
import onnx

import common
import exported_models


def refusals(export_mlx):
    """(what, layers, a part of the message)"""
    nn = export_mlx.nn
    yield "a layer it does not know", [nn.LSTM(4, 6)], "layer0 is LSTM, which is not supported"
    yield "a function it does not know", [nn.RNN(4, 6), nn.GELU()], "layer1 is GELU"
    yield "a nonlinearity it does not know", [nn.RNN(4, 6, nonlinearity=nn.gelu)], "is none of tanh, relu, sigmoid"


def main(hrnn):
    try:
        import export_mlx
    except ImportError as missing:
        print(f"skipped: {missing.name} is not installed (cmake/requirements-ci.txt)")
        return 77
    failures = count = 0
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.onnx"
        for name, model, given, expected in export_mlx.cases():
            onnx.save(model, path)
            try:
                worst = common.largest_difference(common.run(hrnn, path, given), expected)
                text = f"largest difference {worst:.1e}"
            except AssertionError as error:
                worst, text = np.inf, str(error)
            passed = worst < exported_models.tolerance(expected)
            count += 1
            failures += not passed
            print(f"{'passed' if passed else 'FAILED'} {name}: {text}")
    for what, layers, message in refusals(export_mlx):
        try:
            export_mlx.to_onnx(layers)
            said = "no error"
        except ValueError as error:
            said = str(error)
        failures += message not in said
        print(f"{'passed' if message in said else 'FAILED'} refused, {what}: {said}")
    print(f"{count} models, {failures} failures")
    return failures > 0 or count == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the mlx_*.onnx models in exported/: MLX layers with random weights, through examples/mlx/mlx_to_onnx.py.

    python export_mlx.py    (mlx[cpu] 0.32.4, onnx 1.23.2, numpy 2.4.6)
"""
import pathlib
import sys

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import onnx

HERE = pathlib.Path(__file__).parent
EXPORTED = HERE / "exported"
sys.path.insert(0, str(HERE.parent.parent / "examples" / "mlx"))

from mlx_to_onnx import to_onnx

BATCH, STEPS, INPUTS, UNITS = 3, 7, 4, 6
MODELS = {
    "gru": lambda: [nn.GRU(INPUTS, UNITS)],
    "gru_no_bias": lambda: [nn.GRU(INPUTS, UNITS, bias=False)],
    "gru_hidden": lambda: [nn.GRU(INPUTS, UNITS)],
    "rnn": lambda: [nn.RNN(INPUTS, UNITS)],
    "rnn_relu": lambda: [nn.RNN(INPUTS, UNITS, nonlinearity=nn.relu)],
    "rnn_no_bias_hidden": lambda: [nn.RNN(INPUTS, UNITS, bias=False)],
    "stack": lambda: [nn.GRU(INPUTS, UNITS), nn.Dropout(0.2), nn.RNN(UNITS, UNITS), nn.Linear(UNITS, 3), nn.Tanh()],
    "embedding": lambda: [nn.Embedding(10, INPUTS), nn.GRU(INPUTS, UNITS), nn.Linear(UNITS, 3), nn.Sigmoid()],
    "linear_first": lambda: [nn.Linear(INPUTS, UNITS, bias=False), nn.ReLU(), nn.RNN(UNITS, UNITS, nonlinearity=nn.sigmoid)],
    "stack_hidden": lambda: [nn.GRU(INPUTS, UNITS), nn.RNN(UNITS, UNITS)],
}


def cases():
    """(name, ONNX model, inputs, what MLX makes of them)"""
    mx.set_default_device(mx.cpu)
    for seed, (name, build) in enumerate(MODELS.items()):
        rng = np.random.default_rng(seed)
        model = nn.Sequential(*build())
        model.update(nn.utils.tree_map(lambda p: mx.array(rng.uniform(-0.7, 0.7, p.shape).astype(np.float32)), model.parameters()))
        model.eval()
        x = rng.integers(0, 10, (BATCH, STEPS)) if name == "embedding" else rng.standard_normal((BATCH, STEPS, INPUTS)).astype(np.float32)
        given, hidden = {"x": x}, name.endswith("_hidden")
        expected = model(mx.array(x))
        if hidden:
            expected = mx.array(x)
            for index, layer in enumerate(model.layers):
                given[f"hidden{index}"] = rng.uniform(-1, 1, (BATCH, UNITS)).astype(np.float32)
                expected = layer(expected, mx.array(given[f"hidden{index}"]))
        yield name, to_onnx(model.layers, hidden), given, {"y": np.array(expected)}


def main():
    for name, exported, given, expected in cases():
        path = EXPORTED / f"mlx_{name}.onnx"
        exported.producer_version = mx.__version__
        onnx.save(exported, path)
        np.savez(path.with_suffix(".in.npz"), **given)
        np.savez(path.with_suffix(".expected.npz"), **expected)


if __name__ == "__main__":
    main()

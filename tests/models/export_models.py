#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the torch_*.onnx models in exported/: PyTorch layers with random weights (fixed seeds), through both exporters.

Needs what examples/digits/requirements.txt lists. torchscript_digits is the trained classifier of examples/digits through
the older exporter; train.py makes the same weights again.
"""
import pathlib
import sys

import numpy as np
import torch
from torch import nn
from torch.export import Dim

EXPORTED = pathlib.Path(__file__).parent / "exported"
BATCH, STEPS, INPUTS, UNITS = 3, 7, 4, 6
torch.set_num_threads(1)
torch.fx.config.do_not_emit_stack_traces = True  # they would name the folders of whoever exports


class Wrapped(nn.Module):
    """A layer as a model of its own; the initial state is an input where the caller gives one."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, h0=None):
        return self.layer(x, h0)


class Packed(nn.Module):
    def __init__(self, enforce_sorted, **how):
        super().__init__()
        self.layer, self.sorted = nn.GRU(INPUTS, UNITS, batch_first=True, **how), enforce_sorted

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=self.sorted)
        y, h = self.layer(packed)
        y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
        return y, h


class Cells(nn.Module):
    """A loop of Python over a cell: what an exporter can only unroll."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(INPUTS, UNITS)

    def forward(self, x, h):
        steps = []
        for t in range(x.shape[0]):
            h = self.cell(x[t], h)
            steps.append(h)
        return torch.stack(steps), h


class Network(nn.Module):
    """What real models put around a layer: embedding, convolution, normalisation, a head."""

    def __init__(self):
        super().__init__()
        self.embedding, self.convolution = nn.Embedding(10, 5), nn.Conv1d(5, INPUTS, 3, padding=1)
        self.layer = nn.GRU(INPUTS, UNITS, batch_first=True)
        self.norm, self.head = nn.LayerNorm(UNITS), nn.Linear(UNITS, 3)

    def forward(self, tokens):
        x = torch.relu(self.convolution(self.embedding(tokens).transpose(1, 2))).transpose(1, 2)
        y, h = self.layer(x)
        return torch.softmax(self.head(self.norm(y)), -1), h


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.GRU(INPUTS, UNITS, batch_first=True), nn.Linear(UNITS, 3)

    def forward(self, x):
        y, h = self.layer(x)
        return torch.softmax(self.head(y[:, -1]), -1), h


def x_of(model, batch, steps):
    return torch.randn(batch, steps, INPUTS) if getattr(model, "batch_first", False) else torch.randn(steps, batch, INPUTS)


def layer(kind, **how):
    def build():
        inner = kind(INPUTS, UNITS, **how)
        first = 0 if how.get("batch_first") else 1
        return Wrapped(inner), lambda n, t: (x_of(inner, n, t),), [{first: "batch", 1 - first: "time"}]
    return build


def initial_state():
    inner = nn.GRU(INPUTS, UNITS, num_layers=2)
    return Wrapped(inner), lambda n, t: (x_of(inner, n, t), torch.randn(2, n, UNITS)), [{0: "time", 1: "batch"}, {1: "batch"}]


def packed(enforce_sorted=False, **how):
    lengths = {7: [7, 5, 2] if enforce_sorted else [7, 3, 5], 5: [5, 2]}
    return lambda: (Packed(enforce_sorted, **how), lambda n, t: (torch.randn(n, t, INPUTS), torch.tensor(lengths[t])),
                    [{0: "batch", 1: "time"}, {0: "batch"}])


def cells():
    return Cells(), lambda n, t: (torch.randn(STEPS, n, INPUTS), torch.randn(n, UNITS)), [{1: "batch"}, {0: "batch"}]


def network():
    return Network(), lambda n, t: (torch.randint(0, 10, (n, t)),), [{0: "batch", 1: "time"}]


def dense():
    return Dense(), lambda n, t: (torch.randn(n, t, INPUTS),), [{0: "batch", 1: "time"}]


def of_type(dtype):
    def build():
        inner = nn.GRU(INPUTS, UNITS).to(dtype)
        return Wrapped(inner), lambda n, t: (x_of(inner, n, t).to(dtype),), [{0: "time", 1: "batch"}]
    return build


def unbatched():
    return Wrapped(nn.GRU(INPUTS, UNITS)), lambda n, t: (torch.randn(t, INPUTS),), [{0: "time"}]


MODELS = {
    "gru": layer(nn.GRU), "gru_batch_first": layer(nn.GRU, batch_first=True), "gru_no_bias": layer(nn.GRU, bias=False),
    "gru_bidirectional_stack": layer(nn.GRU, num_layers=2, bidirectional=True, batch_first=True),
    "gru_initial_state": initial_state, "gru_unbatched": unbatched, "gru_float64": of_type(torch.float64),
    "gru_float16": of_type(torch.float16), "gru_packed": packed(), "gru_packed_sorted": packed(True), "gru_packed_bidirectional": packed(bidirectional=True),
    "rnn": layer(nn.RNN, batch_first=True), "rnn_relu": layer(nn.RNN, nonlinearity="relu"),
    "rnn_bidirectional_stack": layer(nn.RNN, num_layers=2, bidirectional=True),
    "gru_cells": cells, "dense_softmax": dense, "network": network,
}


def export(path, model, example, dynamic, dynamo):
    names = [f"in{i}" for i in range(len(example))]
    outputs = ["y", "hn"]
    if not dynamo:
        axes = dict(zip(names, dynamic))
        return torch.onnx.export(model, example, str(path), input_names=names, output_names=outputs, dynamic_axes=axes, dynamo=False)
    dims = {"batch": Dim("batch"), "time": Dim("time")}
    shapes = [{axis: dims[name] for axis, name in axes.items()} for axes in dynamic]
    torch.onnx.export(model, example, str(path), input_names=names, output_names=outputs, verbose=False, external_data=False,
                      dynamic_shapes=tuple(shapes), dynamo=True)


def save(name, build, dynamo, seed):
    torch.manual_seed(seed)
    model, arrays, dynamic = build()
    model.eval()
    example, probe = arrays(2, 5), arrays(BATCH, STEPS)
    if dynamo and isinstance(getattr(model, "layer", None), nn.RNN):  # is unrolled, and the steps are frozen
        example, dynamic = arrays(2, STEPS), [{axis: name for axis, name in dynamic[0].items() if name != "time"}]
    path = EXPORTED / f"{'dynamo' if dynamo else 'torchscript'}_{name}.onnx"
    try:
        export(path, model, example, dynamic, dynamo)
    except Exception as error:  # what an exporter cannot write is worth knowing
        print(f"{path.stem}: {type(error).__name__}: {str(error)[-400:]}", file=sys.stderr)
        return
    with torch.no_grad():
        result = model(*probe)
    np.savez(path.with_suffix(".in.npz"), **{f"in{i}": value.numpy() for i, value in enumerate(probe)})
    np.savez(path.with_suffix(".expected.npz"), **{key: value.numpy() for key, value in zip(["y", "hn"], result)})


def main(chosen):
    for seed, (name, build) in enumerate(MODELS.items()):
        for dynamo in (True, False):
            if not chosen or name in chosen:
                save(name, build, dynamo, seed)


if __name__ == "__main__":
    main(sys.argv[1:])

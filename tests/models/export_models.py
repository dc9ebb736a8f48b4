#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the models of this folder: PyTorch layers with random weights (fixed seeds), through both exporters.

Needs what examples/digits/requirements.txt lists. digits_torchscript is the trained classifier of examples/digits through
the older exporter; train.py makes the same weights again.
"""
import pathlib

import numpy as np
import torch
from torch import nn
from torch.export import Dim

HERE = pathlib.Path(__file__).parent
torch.set_num_threads(1)
torch.fx.config.do_not_emit_stack_traces = True  # they would name the folders of whoever exports


class Wrapped(nn.Module):
    """A layer as a model of its own; the initial state is an input where the caller gives one."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, h0=None):
        return self.layer(x, h0)


def save(name, model, example, probe, names, **how):
    model.eval()
    outputs = ["y", "hn"]
    torch.onnx.export(model, example, str(HERE / f"{name}.onnx"), input_names=names, output_names=outputs, **how)
    with torch.no_grad():
        result = model(*probe)
    np.savez(HERE / f"{name}.in.npz", **{key: value.numpy() for key, value in zip(names, probe)})
    np.savez(HERE / f"{name}.expected.npz", **{key: value.numpy() for key, value in zip(outputs, result)})


def main():
    dynamo = {"dynamo": True, "verbose": False, "external_data": False}
    torch.manual_seed(2)
    save("gru_bidirectional_2_layers", Wrapped(nn.GRU(5, 24, num_layers=2, bidirectional=True, batch_first=True)),
         (torch.zeros(2, 4, 5),), (torch.randn(3, 7, 5),), ["x"],
         dynamic_shapes={"x": {0: Dim("batch"), 1: Dim("time")}}, **dynamo)
    torch.manual_seed(3)
    save("rnn_tanh_torchscript", Wrapped(nn.RNN(6, 20, batch_first=True)), (torch.zeros(2, 4, 6),),
         (torch.randn(3, 9, 6),), ["x"], dynamo=False,
         dynamic_axes={"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "time"}, "hn": {1: "batch"}})
    torch.manual_seed(4)
    save("gru_initial_state", Wrapped(nn.GRU(7, 32)), (torch.zeros(4, 2, 7), torch.zeros(1, 2, 32)),
         (torch.randn(11, 3, 7), torch.randn(1, 3, 32)), ["x", "h0"],
         dynamic_shapes={"x": {0: Dim("time"), 1: Dim("batch")}, "h0": {1: Dim("batch")}}, **dynamo)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Writes an MLX model of recurrent layers as ONNX, which MLX itself cannot. Copy it into your project:

    import mlx.nn as nn
    from mlx_to_onnx import to_onnx

    model = nn.Sequential(nn.GRU(8, 64), nn.Linear(64, 10))
    ...                                                          # train it
    onnx.save(to_onnx(model.layers), "model.onnx")               # x [batch, time, 8] -> y [batch, time, 10]

Takes GRU, RNN, Linear, Embedding, Dropout (which does nothing here), ReLU, Tanh and Sigmoid; anything else is an error.
With hidden=True every recurrent layer gets an input hidden0, hidden1, ... [batch, units]: the state it starts from.
"""
import mlx.nn as nn
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FUNCTIONS = {nn.ReLU: "Relu", nn.Tanh: "Tanh", nn.Sigmoid: "Sigmoid"}
NONLINEARITIES = [(nn.tanh, "Tanh"), (nn.relu, "Relu"), (nn.sigmoid, "Sigmoid")]  # of nn.RNN


def update_gate_first(blocks):
    """MLX stacks the gates r, z, n; ONNX z, r, n. (h' = (1 - z) n + z h in both.)"""
    r, z, n = np.split(np.asarray(blocks), 3)
    return np.concatenate([z, r, n])


def gru_weights(layer):
    wx, wh = update_gate_first(layer.Wx), update_gate_first(layer.Wh)
    if layer.b is None:
        return wx, wh, None
    zeros = np.zeros(2 * layer.hidden_size, np.float32)  # r and z have one bias, n one more, inside of the reset
    return wx, wh, np.concatenate([update_gate_first(layer.b), zeros, np.asarray(layer.bhn)])


def rnn_weights(layer):
    bias = None if layer.bias is None else np.concatenate([np.asarray(layer.bias), np.zeros(layer.hidden_size, np.float32)])
    return np.asarray(layer.Wxh), np.asarray(layer.Whh), bias


def to_onnx(layers, hidden=False):
    nodes, initializers, states = [], [], []
    value, width = "x", None

    def constant(name, data):
        initializers.append(numpy_helper.from_array(np.ascontiguousarray(data), name))
        return name

    def node(operator, inputs, output, **attributes):
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def recurrent(layer, name, value):
        gru = isinstance(layer, nn.GRU)
        w, r, b = gru_weights(layer) if gru else rnn_weights(layer)
        if gru:
            attributes = {"linear_before_reset": 1}
        else:
            names = [text for function, text in NONLINEARITIES if function is layer.nonlinearity]
            if not names:
                raise ValueError(f"{name}: nonlinearity {layer.nonlinearity} is none of tanh, relu, sigmoid of mlx.nn")
            attributes = {"activations": names}
        inputs = [node("Transpose", [value], name + "_x", perm=[1, 0, 2]), constant(name + "_w", w[None]), constant(name + "_r", r[None]),
                  constant(name + "_b", b[None]) if b is not None else "", "", ""]
        if hidden:
            states.append((f"hidden{len(states)}", layer.hidden_size))
            inputs[5] = node("Unsqueeze", [states[-1][0], "zero"], name + "_h")
        y = node("GRU" if gru else "RNN", inputs, name + "_y", hidden_size=layer.hidden_size, **attributes)
        return node("Transpose", [node("Squeeze", [y, "one"], name + "_s")], name, perm=[1, 0, 2])

    constant("one", np.array([1]))
    if hidden:
        constant("zero", np.array([0]))
    first = layers[0]
    for index, layer in enumerate(layers):
        name = f"layer{index}"
        if isinstance(layer, (nn.GRU, nn.RNN)):
            value, width = recurrent(layer, name, value), layer.hidden_size
        elif isinstance(layer, nn.Linear):
            value, width = node("MatMul", [value, constant(name + "_w", np.asarray(layer.weight).T)], name), layer.weight.shape[0]
            if "bias" in layer:
                value = node("Add", [value, constant(name + "_b", np.asarray(layer.bias))], name + "_sum")
        elif isinstance(layer, nn.Embedding):
            value, width = node("Gather", [constant(name + "_w", np.asarray(layer.weight)), value], name), layer.weight.shape[1]
        elif type(layer) in FUNCTIONS:
            value = node(FUNCTIONS[type(layer)], [value], name)
        elif not isinstance(layer, nn.Dropout):
            raise ValueError(f"{name} is {type(layer).__name__}, which is not supported")
    node("Identity", [value], "y")
    if isinstance(first, nn.Embedding):
        inputs = [helper.make_tensor_value_info("x", TensorProto.INT64, ["batch", "time"])]
    else:
        weight = first.Wx if isinstance(first, nn.GRU) else first.Wxh if isinstance(first, nn.RNN) else first.weight
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "time", weight.shape[1]])]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", units]) for name, units in states]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "time", width])]
    graph = helper.make_graph(nodes, "mlx", inputs, outputs, initializers)
    model = helper.make_model(graph, producer_name="mlx_to_onnx", opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model

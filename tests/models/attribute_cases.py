# SPDX-License-Identifier: Apache-2.0
"""Random ONNX RNN and GRU models over every attribute, input and type: each case is one draw of all of them."""
import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

import onnx_reference

CASES = 360
TYPES = {"float32": (TensorProto.FLOAT, np.float32), "float64": (TensorProto.DOUBLE, np.float64),
         "float16": (TensorProto.FLOAT16, np.float16), "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16)}
# Of the largest value of an output, or of one. 16-bit types: two units in the last place of results near one.
TOLERANCE = {"float32": 4e-6, "float64": 1e-14, "float16": 2e-3, "bfloat16": 1.6e-2}


class Case:
    """`attributes`: what of the draw the page counts, as {name: value}."""

    def __init__(self, seed):
        self.seed, rng = seed, np.random.default_rng(seed)
        self.rng = rng
        self.kind = "GRU" if seed % 2 else "RNN"
        self.type = str(rng.choice(["float32"] * 6 + ["float64"] * 2 + ["float16", "bfloat16"]))
        self.opset = 22 if self.type == "bfloat16" else int(rng.choice([7, 14, 22]))
        self.direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
        self.directions = 2 if self.direction == "bidirectional" else 1
        self.layout = int(rng.integers(2)) if self.opset >= 14 else 0
        self.reset_after = bool(rng.integers(2)) and self.kind == "GRU"
        self.clip = float(np.float32(rng.uniform(0.2, 1.5))) if rng.random() < 0.3 else None
        self.steps, self.batch = int(rng.integers(1, 8)), int(rng.integers(1, 6))
        self.inputs, self.hidden = int(rng.integers(1, 10)), int(rng.integers(1, 18))
        self.has_bias, self.has_initial, self.has_lengths = rng.random() < 0.6, rng.random() < 0.5, rng.random() < 0.4
        self.has_hidden_size = rng.random() < 0.7
        self.outputs = str(rng.choice(["Y and Y_h", "Y", "Y_h"]))
        self.weights = str(rng.choice(["initializers", "graph inputs"]))
        self.dynamic = bool(rng.integers(2))
        self.draw_activations()
        self.draw_arrays()

    # ---- Drawing ----

    def draw_activations(self):
        rng, count = self.rng, 2 if self.kind == "GRU" else 1
        self.lists = "defaults"
        self.names = ["Sigmoid", "Tanh"] * self.directions if count == 2 else ["Tanh"] * self.directions
        self.given = {}
        if rng.random() < 0.75:
            self.names = [str(name) for name in rng.choice(list(onnx_reference.ACTIVATIONS), count * self.directions)]
            self.given["activations"] = self.names
            self.lists = str(rng.choice(["defaults", "one for each that takes one", "one for every activation"]))
        self.functions = [self.parameters(i) for i in range(len(self.names))]
        self.functions = [self.functions[d * count:(d + 1) * count] for d in range(self.directions)]

    def parameters(self, index):
        """(name, alpha, beta) of one activation; ScaledTanh has no defaults, so lists are given where it occurs."""
        if index == 0:
            scaled = "ScaledTanh" in self.names
            if scaled and self.lists == "defaults":
                self.lists = "one for every activation"
            self.drawn = [np.float32(self.rng.uniform(0.1, 1.2)).item() for _ in range(2 * len(self.names))]
            if self.lists != "defaults":
                for offset, attribute, takes in ((0, "activation_alpha", 1), (len(self.names), "activation_beta", 2)):
                    values = [self.drawn[offset + i] for i, name in enumerate(self.names)
                              if self.lists == "one for every activation" or onnx_reference.ACTIVATIONS[name][takes]]
                    if values:
                        self.given[attribute] = values
        name = self.names[index]
        _, _, _, alpha, beta = onnx_reference.ACTIVATIONS[name]
        if self.lists != "defaults":
            alpha, beta = self.drawn[index], self.drawn[len(self.names) + index]
        return name, alpha, beta

    def draw_arrays(self):
        rng, gates = self.rng, 3 if self.kind == "GRU" else 1
        dtype = TYPES[self.type][1]
        scale = 0.8 / np.sqrt(self.hidden)

        def draw(scale, *shape):
            return rng.uniform(-scale, scale, shape).astype(dtype)

        self.x = draw(1.0, self.steps, self.batch, self.inputs)
        self.w = draw(1.0 / np.sqrt(self.inputs), self.directions, gates * self.hidden, self.inputs)
        self.r = draw(scale, self.directions, gates * self.hidden, self.hidden)
        self.b = draw(0.4, self.directions, 2 * gates * self.hidden) if self.has_bias else None
        self.initial = draw(0.8, self.directions, self.batch, self.hidden) if self.has_initial else None
        self.lengths = rng.integers(0, self.steps + 1, self.batch).astype(np.int32) if self.has_lengths else None

    # ---- What the page counts ----

    def attributes(self):
        yield "direction", self.direction
        yield "layout", str(self.layout)
        yield "activations", "absent" if "activations" not in self.given else "given"
        for name in dict.fromkeys(self.names):
            yield "activation", name
        yield "activation_alpha, activation_beta", self.lists
        yield "clip", "absent" if self.clip is None else "given"
        if self.kind == "GRU":
            yield "linear_before_reset", str(int(self.reset_after))
        yield "hidden_size", "given" if self.has_hidden_size else "absent"
        yield "B", "given" if self.has_bias else "absent"
        yield "sequence_lens", "absent" if self.lengths is None else "with 0" if 0 in self.lengths else "given"
        yield "initial_h", "given" if self.has_initial else "absent"
        yield "outputs", self.outputs
        yield "type", self.type
        yield "opset", str(self.opset)
        yield "W, R, B as", self.weights
        yield "time and batch", "dynamic" if self.dynamic else "fixed"

    # ---- The model and its numbers ----

    def layout_of(self, value):
        return value if self.layout == 0 else np.ascontiguousarray(np.swapaxes(value, 0, 1))

    def arrays(self):
        """All inputs by name, in the node's order; None where absent."""
        return {"X": self.layout_of(self.x), "W": self.w, "R": self.r, "B": self.b, "sequence_lens": self.lengths,
                "initial_h": None if self.initial is None else self.layout_of(self.initial)}

    def model(self, kind_of_type=None):
        element = TYPES[self.type][0] if kind_of_type is None else kind_of_type
        attributes = dict(self.given)
        if self.direction != "forward":
            attributes["direction"] = self.direction
        if self.layout:
            attributes["layout"] = 1
        if self.clip is not None:
            attributes["clip"] = self.clip
        if self.reset_after:
            attributes["linear_before_reset"] = 1
        if self.has_hidden_size:
            attributes["hidden_size"] = self.hidden
        arrays = self.arrays()
        names = [name if value is not None else "" for name, value in arrays.items()]
        outputs = {"Y": ["Y"], "Y_h": ["", "Y_h"], "Y and Y_h": ["Y", "Y_h"]}[self.outputs]
        node = helper.make_node(self.kind, names, outputs, name="layer", **attributes)
        batch, time = ("batch", "time") if self.dynamic else (self.batch, self.steps)
        shapes = {"X": [time, batch, self.inputs] if self.layout == 0 else [batch, time, self.inputs],
                  "sequence_lens": [batch],
                  "initial_h": [self.directions, batch, self.hidden] if self.layout == 0 else [batch, self.directions, self.hidden]}
        inputs, initializers = [], []
        for name, value in arrays.items():
            if value is None:
                continue
            if name in shapes or self.weights == "graph inputs":
                kind = TensorProto.INT32 if name == "sequence_lens" else element
                inputs.append(helper.make_tensor_value_info(name, kind, shapes.get(name, list(value.shape))))
            else:
                initializers.append(helper.make_tensor(name, element, value.shape, value.tobytes(), raw=True))
        graph = helper.make_graph([node], "graph", inputs, [helper.make_tensor_value_info(n, element, None) for n in outputs if n],
                                  initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10 if self.opset == 22 else 8)

    def inputs_by_name(self):
        names = {value.name for value in self.model().graph.input}
        return {name: value for name, value in self.arrays().items() if name in names}

    def expected(self):
        reverse = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[self.direction]
        y, last = onnx_reference.recurrent(self.kind, self.x, self.w, self.r, self.b, self.lengths, self.initial, reverse,
                                           self.functions, self.clip, self.reset_after)
        if self.layout:
            y, last = y.transpose(2, 0, 1, 3), last.transpose(1, 0, 2)
        return {name: value for name, value in (("Y", y), ("Y_h", last)) if name in self.outputs.split(" and ")}


def all_cases():
    return [Case(seed) for seed in range(CASES)]

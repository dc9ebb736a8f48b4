#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Loops and scans that are a recurrent layer, in every way the equations can be written, and loops that are none.

    loop_models.py HRNN

The reference is the loop itself, in numpy and double precision. What is no layer must be an error that says why.
"""
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import common

STEPS, BATCH, INPUTS, HIDDEN = 6, 3, 4, 5
TOLERANCE = 1e-6  # states stay below one
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


class Body:
    """Writes nodes and computes them: each method returns a name, and `run` evaluates a step in double precision."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.steps, self.constants, self.count = [], [], {}, 0

    def constant(self, value, name=None):
        name = name or f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value, np.float32)
        return name

    def weights(self, rows, columns):
        return self.constant(self.rng.uniform(-0.6, 0.6, (rows, columns)))

    def row(self, columns):
        return self.constant(self.rng.uniform(-0.6, 0.6, columns))

    def integers(self, *values):
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(values, np.int64)
        return name

    def op(self, kind, compute, *inputs, outputs=1, **attributes):
        names = [f"v{self.count + i}" for i in range(outputs)]
        self.count += outputs
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        self.steps.append((compute, inputs, names))
        return names[0] if outputs == 1 else names

    def add(self, a, b): return self.op("Add", np.add, a, b)
    def sub(self, a, b): return self.op("Sub", np.subtract, a, b)
    def mul(self, a, b): return self.op("Mul", np.multiply, a, b)
    def div(self, a, b): return self.op("Div", np.divide, a, b)
    def matmul(self, a, b): return self.op("MatMul", np.matmul, a, b)
    def tanh(self, a): return self.op("Tanh", np.tanh, a)
    def sigmoid(self, a): return self.op("Sigmoid", sigmoid, a)
    def relu(self, a): return self.op("Relu", lambda v: np.maximum(v, 0), a)
    def absolute(self, a): return self.op("Abs", np.abs, a)
    def clip(self, a, low, high):
        return self.op("Clip", lambda v, l, h: np.clip(v, l, h), a, self.constant(low), self.constant(high))
    def gemm(self, a, w, b):
        return self.op("Gemm", lambda v, m, c: 0.5 * v @ m.T + c, a, w, b, alpha=0.5, transB=1)
    def concat(self, *parts):
        return self.op("Concat", lambda *v: np.concatenate(v, -1), *parts, axis=-1)
    def split(self, a, parts):
        return self.op("Split", lambda v: np.split(v, parts, -1), a, outputs=parts, axis=-1)
    def slice(self, a, begin, end):
        return self.op("Slice", lambda v, *_: v[:, begin:end], a, self.integers(begin), self.integers(end),
                       self.integers(1))

    def run(self, values):
        values = {**{k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in self.constants.items()}, **values}
        for compute, inputs, names in self.steps:
            made = compute(*(values[name] for name in inputs))
            values.update(zip(names, made if len(names) > 1 else [made]))
        return values


def affine(b, x, h, columns, bias=True):
    total = b.add(b.matmul(x, b.weights(INPUTS, columns)), b.matmul(h, b.weights(HIDDEN, columns)))
    return b.add(total, b.row(columns)) if bias else total


# ---- Cells: functions of a Body, the step's input and the state, that return the new state ----

def rnn(b, x, h): return b.tanh(affine(b, x, h, HIDDEN))
def rnn_relu(b, x, h): return b.relu(affine(b, x, h, HIDDEN, bias=False))
def rnn_linear(b, x, h): return affine(b, x, h, HIDDEN)
def rnn_residual(b, x, h): return b.tanh(b.add(affine(b, x, h, HIDDEN), h))
def rnn_gemm(b, x, h):
    return b.tanh(b.add(b.gemm(x, b.weights(HIDDEN, INPUTS), b.row(HIDDEN)), b.gemm(h, b.weights(HIDDEN, HIDDEN), b.row(HIDDEN))))
def rnn_scaled(b, x, h): return b.mul(b.constant(1.7159), b.tanh(b.mul(affine(b, x, h, HIDDEN), b.constant(0.6667))))
def rnn_concat(b, x, h): return b.tanh(b.add(b.matmul(b.concat(x, h), b.weights(INPUTS + HIDDEN, HIDDEN)), b.row(HIDDEN)))


def gates(b, x, h):
    return b.sigmoid(affine(b, x, h, HIDDEN)), b.sigmoid(affine(b, x, h, HIDDEN))


def candidate_after(b, x, h, r):
    inner = b.add(b.matmul(h, b.weights(HIDDEN, HIDDEN)), b.row(HIDDEN))
    return b.tanh(b.add(b.add(b.matmul(x, b.weights(INPUTS, HIDDEN)), b.mul(r, inner)), b.row(HIDDEN)))


def candidate_before(b, x, h, r):
    return b.tanh(b.add(b.add(b.matmul(x, b.weights(INPUTS, HIDDEN)), b.row(HIDDEN)), b.matmul(b.mul(h, r), b.weights(HIDDEN, HIDDEN))))


def one_minus(b, z): return b.sub(b.constant(1.0), z)


def gru(candidate, update):
    def cell(b, x, h):
        z, r = gates(b, x, h)
        return update(b, z, candidate(b, x, h, r), h)
    return cell


UPDATES = {
    "z*h + (1-z)*n": lambda b, z, n, h: b.add(b.mul(z, h), b.mul(one_minus(b, z), n)),
    "n + z*(h-n)": lambda b, z, n, h: b.add(n, b.mul(z, b.sub(h, n))),
    "n - n*z + h*z": lambda b, z, n, h: b.add(b.sub(n, b.mul(n, z)), b.mul(h, z)),
    "(1-z)*h + z*n": lambda b, z, n, h: b.add(b.mul(one_minus(b, z), h), b.mul(z, n)),
    "h + z*(n-h)": lambda b, z, n, h: b.add(h, b.mul(z, b.sub(n, h))),
}


def gru_fused(b, x, h):
    """Both products at once, split in three: torch's GRUCell."""
    gi = b.split(b.add(b.matmul(x, b.weights(INPUTS, 3 * HIDDEN)), b.row(3 * HIDDEN)), 3)
    gh = b.split(b.add(b.matmul(h, b.weights(HIDDEN, 3 * HIDDEN)), b.row(3 * HIDDEN)), 3)
    r, z = b.sigmoid(b.add(gi[0], gh[0])), b.sigmoid(b.add(gi[1], gh[1]))
    n = b.tanh(b.add(gi[2], b.mul(r, gh[2])))
    return b.add(n, b.mul(z, b.sub(h, n)))


def gru_block(b, x, h):
    """TensorFlow's GRUBlockCell: [x, h] joined, r and z in one sigmoid, reset before."""
    both = b.sigmoid(b.add(b.matmul(b.concat(x, h), b.weights(INPUTS + HIDDEN, 2 * HIDDEN)), b.row(2 * HIDDEN)))
    r, z = b.slice(both, 0, HIDDEN), b.slice(both, HIDDEN, 2 * HIDDEN)
    n = b.tanh(b.add(b.matmul(b.concat(x, b.mul(r, h)), b.weights(INPUTS + HIDDEN, HIDDEN)), b.row(HIDDEN)))
    return UPDATES["z*h + (1-z)*n"](b, z, n, h)


def gru_hard(flipped):
    def cell(b, x, h):
        def hard(a): return b.div(b.clip(b.add(a, b.constant(3.0)), 0.0, 6.0), b.constant(6.0))
        z, r = hard(affine(b, x, h, HIDDEN)), hard(affine(b, x, h, HIDDEN))
        update = UPDATES["(1-z)*h + z*n" if flipped else "z*h + (1-z)*n"]
        return update(b, z, candidate_after(b, x, h, r), h)
    return cell


def gru_min_max(b, x, h):
    """Keras 2's hard_sigmoid: max(min(0.2 a + 0.5, 1), 0)."""
    def hard(a):
        line = b.add(b.mul(a, b.constant(0.2)), b.constant(0.5))
        return b.op("Max", np.maximum, b.op("Min", np.minimum, line, b.constant(1.0)), b.constant(0.0))
    z, r = hard(affine(b, x, h, HIDDEN)), hard(affine(b, x, h, HIDDEN))
    return UPDATES["z*h + (1-z)*n"](b, z, candidate_before(b, x, h, r), h)


CELLS = {"rnn": rnn, "gru hard sigmoid of min and max": gru_min_max, "rnn relu, no bias": rnn_relu, "rnn linear": rnn_linear, "rnn h + x W + h R": rnn_residual,
         "rnn Gemm": rnn_gemm, "rnn a*tanh(b*x)": rnn_scaled, "rnn [x, h] W": rnn_concat,
         "gru fused": gru_fused, "gru block cell": gru_block, "gru hard sigmoid": gru_hard(False),
         "gru hard sigmoid, z and 1-z exchanged": gru_hard(True)}
for update_name, update in UPDATES.items():
    CELLS[f"gru reset after, {update_name}"] = gru(candidate_after, update)
    CELLS[f"gru reset before, {update_name}"] = gru(candidate_before, update)


# ---- Cells that are none ----

def lstm(b, x, h): return b.mul(b.sigmoid(affine(b, x, h, HIDDEN)), b.tanh(affine(b, x, h, HIDDEN)))
def wrong_update(b, x, h):
    z, r = gates(b, x, h)
    return b.add(b.mul(z, h), candidate_after(b, x, h, r))
def no_reset(b, x, h):
    z, _ = gates(b, x, h)
    return UPDATES["z*h + (1-z)*n"](b, z, b.tanh(affine(b, x, h, HIDDEN)), h)
def two_functions(b, x, h):
    z, r = b.sigmoid(affine(b, x, h, HIDDEN)), b.tanh(affine(b, x, h, HIDDEN))
    return UPDATES["z*h + (1-z)*n"](b, z, candidate_after(b, x, h, r), h)
def tanh_flipped(b, x, h):
    z, r = b.tanh(affine(b, x, h, HIDDEN)), b.tanh(affine(b, x, h, HIDDEN))
    return UPDATES["(1-z)*h + z*n"](b, z, candidate_after(b, x, h, r), h)
def square(b, x, h): return b.tanh(b.mul(affine(b, x, h, HIDDEN), h))
def other_operator(b, x, h): return b.absolute(affine(b, x, h, HIDDEN))
def no_input(b, x, h): return b.tanh(b.matmul(h, b.weights(HIDDEN, HIDDEN)))
def empty_row(b, x, h): return b.tanh(b.add(affine(b, x, h, HIDDEN), b.constant(np.zeros(0))))
def relu6(b, x, h): return b.clip(affine(b, x, h, HIDDEN), 0.0, 6.0)


REFUSED = {"an LSTM-like product": (lstm, "the update 'z*h + (1-z)*n' was expected, found"),
           "no (1-z)": (wrong_update, "the update 'z*h + (1-z)*n' was expected, found"),
           "no reset gate": (no_reset, "the candidate 'x W + r*(h R + b) + b"),
           "z and r of different functions": (two_functions, "the update gate's function is Sigmoid and the reset gate's Tanh"),
           "z and 1-z exchanged with tanh": (tanh_flipped, "Sigmoid or HardSigmoid"),
           "a product inside of the function": (square, "'x W + h R + b' was expected"),
           "another operator": (other_operator, "Abs node that makes 'v4': this operator has no place in a step of an RNN or GRU"),
           "no input": (no_input, "does not depend on a sequence of inputs"),
           "an empty row": (empty_row, "a step takes a row or a matrix"),
           "relu6": (relu6, "'x W + h R + b' was expected, found 'clip(")}


# ---- Models around a body ----

def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def initializers(body):
    return [numpy_helper.from_array(data, name) for name, data in body.constants.items()]


def loop_model(cell, reverse=False, initial=False, seed=0):
    """x [time, batch, inputs] -> y stacked in the order of the steps, last; the step is picked by Gather."""
    b = Body(seed)
    new = cell(b, "xt", "h")
    last_step = [helper.make_node("Sub", ["T", "one"], ["last"]), helper.make_node("Sub", ["last", "i"], ["at"])]
    pick = (last_step if reverse else []) + [helper.make_node("Gather", ["x", "at" if reverse else "i"], ["xt"])]
    nodes = pick + b.nodes + [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", [new], ["y_t"])]
    body = helper.make_graph(nodes, "body", [value("i", INT64, []), value("go", BOOL, []), value("h", FLOAT, None)],
                             [value("go_on", BOOL, []), value(new, FLOAT, None), value("y_t", FLOAT, None)], initializers(b))
    constants = [numpy_helper.from_array(np.array(0, np.int64), "zero"), numpy_helper.from_array(np.array(1, np.int64), "one"),
                 numpy_helper.from_array(np.array(True), "true"), numpy_helper.from_array(np.array([HIDDEN], np.int64), "H")]
    around = [helper.make_node("Shape", ["x"], ["shape"]), helper.make_node("Gather", ["shape", "zero"], ["T"]),
              helper.make_node("Gather", ["shape", "one"], ["n"]), helper.make_node("Unsqueeze", ["n", "axis"], ["N"]),
              helper.make_node("Concat", ["N", "H"], ["state"], axis=0),
              helper.make_node("ConstantOfShape", ["state"], ["zeros"]),
              helper.make_node("Loop", ["T", "true", "h0" if initial else "zeros"], ["last_h", "y"], name="loop", body=body)]
    constants.append(numpy_helper.from_array(np.array([0], np.int64), "axis"))
    inputs = [value("x", FLOAT, ["time", "batch", INPUTS])] + ([value("h0", FLOAT, ["batch", HIDDEN])] if initial else [])
    graph = helper.make_graph(around, "graph", inputs, [value("y", FLOAT, None), value("last_h", FLOAT, None)], constants)
    return b, new, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def counted_by_condition(cell, seed=0):
    """As Keras 2 writes it: no trip count, a counter, and i < T as the condition."""
    b, new, model = loop_model(cell, seed=seed)
    loop = model.graph.node[-1]
    body = loop.attribute[0].g
    body.node.append(helper.make_node("Add", ["at", "one"], ["at_next"]))
    body.node.append(helper.make_node("Less", ["at_next", "T"], ["more"]))
    body.node[0].input[1] = "at"
    body.input.append(value("at", INT64, []))
    body.output[0].name = "more"
    body.output.insert(2, value("at_next", INT64, []))
    loop.input[0], loop.input[1] = "", "any"
    loop.input.append("zero")
    loop.output.insert(1, "count")
    model.graph.node.insert(2, helper.make_node("Less", ["zero", "T"], ["any"]))
    return b, new, model


def scan_model(cell, reverse=False, prepend=False, in_axis=0, out_axis=0, seed=0):
    b = Body(seed)
    new = cell(b, "xt", "h")
    nodes = b.nodes + [helper.make_node("Identity", [new], ["y_t"])]
    body = helper.make_graph(nodes, "body", [value("h", FLOAT, None), value("xt", FLOAT, None)],
                             [value(new, FLOAT, None), value("y_t", FLOAT, None)], initializers(b))
    scan = helper.make_node("Scan", ["h0", "x"], ["last_h", "y"], name="scan", body=body, num_scan_inputs=1,
                            scan_input_axes=[in_axis], scan_output_axes=[out_axis], scan_input_directions=[int(reverse)],
                            scan_output_directions=[int(prepend)])
    shape = ["time", "batch", INPUTS] if in_axis == 0 else ["batch", "time", INPUTS]
    graph = helper.make_graph([scan], "graph", [value("x", FLOAT, shape), value("h0", FLOAT, ["batch", HIDDEN])],
                              [value("y", FLOAT, None), value("last_h", FLOAT, None)])
    return b, new, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def reference(b, new, x, h, reverse=False):
    """x [time, batch, inputs]; y in the order of the steps."""
    y = []
    for t in range(STEPS):
        h = b.run({"xt": x[STEPS - 1 - t if reverse else t].astype(np.float64), "h": h.astype(np.float64)})[new]
        y.append(h)
    return np.stack(y), h


def arrays(seed):
    rng = np.random.default_rng(1000 + seed)
    return (rng.standard_normal((STEPS, BATCH, INPUTS)).astype(np.float32),
            rng.uniform(-0.5, 0.5, (BATCH, HIDDEN)).astype(np.float32))


class Checks:
    def __init__(self, hrnn, folder, quiet):
        self.hrnn, self.folder, self.quiet = hrnn, pathlib.Path(folder), quiet
        self.cases, self.computed, self.refusals, self.largest, self.failed = 0, 0, 0, 0.0, []

    def save(self, model):
        path = self.folder / "model.onnx"
        onnx.save(model, path)
        return path

    def result(self, name, passed, text):
        self.cases += 1
        if not passed:
            self.failed.append((name, text))
        if not self.quiet:
            print(f"{'passed' if passed else 'FAILED'} {name}: {text}")

    def equal(self, name, model, inputs, y, last):
        self.computed += 1
        try:
            got = common.run(self.hrnn, self.save(model), inputs)
        except AssertionError as error:
            return self.result(name, False, str(error))
        want = {"y": y.astype(np.float32), "last_h": last.astype(np.float32)}
        worst = common.largest_difference(got, want)
        worst /= max(1, np.abs(y).max())
        self.largest = max(self.largest, worst)
        self.result(name, worst < TOLERANCE, f"largest difference {worst:.1e}")

    def refused(self, name, model, expected):
        self.refusals += 1
        done = subprocess.run([self.hrnn, "inspect", str(self.save(model))], capture_output=True, text=True)
        said = done.returncode == 1 and expected in done.stderr
        self.result(name, said, (done.stderr.strip().split("\n") + [""])[1][:300] if done.stderr else "no error")


def in_order(b, new, x, h0, reverse, prepend):
    y, last = reference(b, new, x, h0, reverse)
    return (y[::-1] if prepend else y), last


def stacked_cells(checks):
    """Two layers in one loop, as Keras' RNN([cell, cell]) writes them."""
    b = Body(7)
    first = b.tanh(affine(b, "xt", "h", HIDDEN))
    z = b.sigmoid(b.add(b.matmul(first, b.weights(HIDDEN, HIDDEN)), b.matmul("g", b.weights(HIDDEN, HIDDEN))))
    r = b.sigmoid(b.add(b.matmul(first, b.weights(HIDDEN, HIDDEN)), b.matmul("g", b.weights(HIDDEN, HIDDEN))))
    n = b.tanh(b.add(b.matmul(first, b.weights(HIDDEN, HIDDEN)), b.mul(r, b.matmul("g", b.weights(HIDDEN, HIDDEN)))))
    second = UPDATES["z*h + (1-z)*n"](b, z, n, "g")
    body = helper.make_graph(b.nodes + [helper.make_node("Identity", [second], ["y_t"])], "body",
                             [value("h", FLOAT, None), value("g", FLOAT, None), value("xt", FLOAT, None)],
                             [value(first, FLOAT, None), value(second, FLOAT, None), value("y_t", FLOAT, None)], initializers(b))
    scan = helper.make_node("Scan", ["h0", "h0", "x"], ["first_h", "last_h", "y"], name="scan", body=body, num_scan_inputs=1)
    graph = helper.make_graph([scan], "graph", [value("x", FLOAT, ["time", "batch", INPUTS]), value("h0", FLOAT, ["batch", HIDDEN])],
                              [value("y", FLOAT, None), value("last_h", FLOAT, None)])
    x, h0 = arrays(7)
    h = g = h0.astype(np.float64)
    y = []
    for t in range(STEPS):
        values = b.run({"xt": x[t].astype(np.float64), "h": h, "g": g})
        h, g = values[first], values[second]
        y.append(g)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checks.equal("two cells in one loop", model, {"x": x, "h0": h0}, np.stack(y), g)


def masked(checks, name, cell, arithmetic, zeros):
    """The mask is computed by the model; where it is 0 the state stays. `arithmetic`: m*a + (1-m)*b in place of Where."""
    b = Body(9)
    new = cell(b, "xt", "h")

    def choose(taken, other):
        if not arithmetic:
            return b.op("Where", lambda m, u, v: np.where(m, u, v), "mt", taken, other)
        yes = b.op("Cast", lambda m: m.astype(np.float64), "mt", to=FLOAT)
        no = b.op("Cast", lambda m: m.astype(np.float64), b.op("Not", np.logical_not, "mt"), to=FLOAT)
        return b.add(b.mul(yes, taken), b.mul(other, no))
    state = choose(new, "h")
    y_t = choose(new, b.constant(0.0)) if zeros else state
    body = helper.make_graph(b.nodes + [helper.make_node("Identity", [y_t], ["y_t"])], "body",
                             [value("h", FLOAT, None), value("xt", FLOAT, None), value("mt", BOOL, None)],
                             [value(state, FLOAT, None), value("y_t", FLOAT, None)], initializers(b))
    scan = helper.make_node("Scan", ["h0", "x", "mask"], ["last_h", "y"], name="scan", body=body, num_scan_inputs=2)
    nodes = [helper.make_node("Greater", ["m", "half"], ["mask"]), scan]
    graph = helper.make_graph(nodes, "graph", [value("x", FLOAT, ["time", "batch", INPUTS]), value("h0", FLOAT, ["batch", HIDDEN]),
                                               value("m", FLOAT, ["time", "batch", 1])],
                              [value("y", FLOAT, None), value("last_h", FLOAT, None)],
                              [numpy_helper.from_array(np.array(0.5, np.float32), "half")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x, h0 = arrays(9)
    m = (np.random.default_rng(9).random((STEPS, BATCH, 1)) < 0.6).astype(np.float32)
    if not arithmetic:  # what stands at the steps left out is of no consequence, but 0 * NaN is NaN
        x[m[:, :, 0] == 0, ::2] = np.nan
        x[m[:, :, 0] == 0, 1::2] = -np.inf
    h, y = h0.astype(np.float64), []
    for t in range(STEPS):
        values = b.run({"xt": x[t].astype(np.float64), "h": h, "mt": m[t] > 0.5})
        h = values[state]
        y.append(values[y_t])
    checks.equal(f"mask, {name}", model, {"x": x, "h0": h0, "m": m}, np.stack(y), h)
    if name.startswith("rnn"):
        text = subprocess.run([checks.hrnn, "inspect", str(checks.save(model))], capture_output=True, text=True).stdout
        checks.result("and costs no more than an RNN", f"rnn_masked {INPUTS + 1} -> {HIDDEN}" in text, "inspect")
    half_masked(checks, name, b, model, x, h0, m, state, y_t)


def half_masked(checks, name, b, model, x, h0, m, state, y_t):
    """The same in float16, whose weights are other numbers."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    body = next(a.g for a in half.graph.node[-1].attribute if a.name == "body")
    for graph in (half.graph, body):
        for info in (*graph.input, *graph.output):
            if info.type.tensor_type.elem_type == FLOAT:
                info.type.tensor_type.elem_type = TensorProto.FLOAT16
        for tensor in graph.initializer:
            if tensor.data_type == FLOAT:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for node in body.node:
        for attribute in node.attribute:
            if attribute.name == "to":
                attribute.i = TensorProto.FLOAT16
    rounded = Body()
    rounded.steps = b.steps
    rounded.constants = {k: v.astype(np.float16).astype(np.float32) if v.dtype == np.float32 else v for k, v in b.constants.items()}
    given = {"x": x.astype(np.float16), "h0": h0.astype(np.float16), "m": m.astype(np.float16)}
    h, y = given["h0"].astype(np.float64), []
    for t in range(STEPS):
        values = rounded.run({"xt": given["x"][t].astype(np.float64), "h": h, "mt": m[t] > 0.5})
        h = values[state]
        y.append(values[y_t])
    try:
        got = common.run(checks.hrnn, checks.save(half), given)
        worst = common.largest_difference(got, {"y": np.stack(y).astype(np.float16), "last_h": h.astype(np.float16)})
    except AssertionError as error:
        return checks.result(f"mask, float16, {name}", False, str(error))
    checks.result(f"mask, float16, {name}", worst <= np.finfo(np.float16).eps, f"largest difference {worst:.1e}")


def product_before(checks):
    """x W + b stands before the loop, as Keras on JAX writes it."""
    b = Body(8)
    gi = [b.slice("xt", i * HIDDEN, (i + 1) * HIDDEN) for i in range(3)]
    gh = b.split(b.add(b.matmul("h", b.weights(HIDDEN, 3 * HIDDEN)), b.row(3 * HIDDEN)), 3)
    z, r = b.sigmoid(b.add(gi[0], gh[0])), b.sigmoid(b.add(gi[1], gh[1]))
    new = UPDATES["z*h + (1-z)*n"](b, z, b.tanh(b.add(gi[2], b.mul(r, gh[2]))), "h")
    w = b.rng.uniform(-0.6, 0.6, (INPUTS, 3 * HIDDEN)).astype(np.float32)
    bias = b.rng.uniform(-0.6, 0.6, 3 * HIDDEN).astype(np.float32)
    body = helper.make_graph(b.nodes + [helper.make_node("Identity", [new], ["y_t"])], "body",
                             [value("h", FLOAT, None), value("xt", FLOAT, None)],
                             [value(new, FLOAT, None), value("y_t", FLOAT, None)], initializers(b))
    scan = helper.make_node("Scan", ["h0", "p"], ["last_h", "y"], name="scan", body=body, num_scan_inputs=1)
    nodes = [helper.make_node("MatMul", ["x", "W"], ["xw"]), helper.make_node("Add", ["bias", "xw"], ["p"]), scan]
    outputs = [value("y", FLOAT, None), value("last_h", FLOAT, None)]
    x, h0 = arrays(8)
    graph = helper.make_graph(nodes, "graph", [value("x", FLOAT, ["time", "batch", INPUTS]), value("h0", FLOAT, ["batch", HIDDEN])],
                              outputs, [numpy_helper.from_array(w, "W"), numpy_helper.from_array(bias, "bias")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    y, last = reference(b, new, x.astype(np.float64) @ w + bias, h0)
    checks.equal("x W + b before the loop", model, {"x": x, "h0": h0}, y, last)
    text = subprocess.run([checks.hrnn, "inspect", str(checks.save(model))], capture_output=True, text=True).stdout
    checks.result("and is made part of the layer", "Dense" not in text and f"gru {INPUTS} -> {HIDDEN}" in text, "inspect")


def loops_that_are_none(checks):
    _, _, model = loop_model(rnn)
    model.graph.node[-1].input[0] = ""
    checks.refused("no trip count", model, "has no trip count (input M), and its condition 'go_on' does not count steps")
    _, _, model = loop_model(rnn)
    del model.graph.node[-1].attribute[0].g.output[:2]
    checks.refused("a body with too few outputs", model, "its body takes 3 values and makes 1")
    _, _, model = loop_model(rnn)
    body = model.graph.node[-1].attribute[0].g
    body.node.append(helper.make_node("ReduceSum", ["y_t"], ["total"], keepdims=0))
    body.node.append(helper.make_node("Less", ["total", "limit"], ["go_on_2"]))
    body.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "limit"))
    body.output[0].name = "go_on_2"
    checks.refused("a loop that stops by its data", model, "it may stop before its last step (condition 'go_on_2')")
    _, _, model = loop_model(rnn)
    model.graph.node[-1].attribute[0].g.node[0].input[1] = "h"
    checks.refused("an index computed from data", model, "picks a step by an index that is computed from data")
    body = helper.make_graph([helper.make_node("Add", ["s", "s"], ["s2"]), helper.make_node("Identity", ["go"], ["go_on"])], "body",
                             [value("i", INT64, []), value("go", BOOL, []), value("s", FLOAT, None)],
                             [value("go_on", BOOL, []), value("s2", FLOAT, None)])
    graph = helper.make_graph([helper.make_node("Loop", ["n", "", "x"], ["y"], name="powers", body=body)], "graph",
                              [value("x", FLOAT, [3])], [value("y", FLOAT, None)],
                              [numpy_helper.from_array(np.array(4, np.int64), "n")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checks.refused("a loop that is no layer", model, "carries no state of shape [batch, hidden]")
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "branch", [], [value("b", FLOAT, None)])
    graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch)], "graph",
                              [value("x", FLOAT, [3]), value("c0", INT64, [1])], [value("y", FLOAT, None)],
                              [numpy_helper.from_array(np.array(True), "c")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checks.refused("If", model, "node 'choice' (If): chooses between two graphs")
    b, new, model = loop_model(rnn)
    model.graph.node[-1].attribute[0].g.output[2].name = b.steps[0][2][0]
    checks.refused("stacks something else", model, "only the new state itself is supported")


def run_all(hrnn, folder, quiet=False):
    checks = Checks(hrnn, folder, quiet)
    for seed, (name, cell) in enumerate(CELLS.items()):
        x, h0 = arrays(seed)
        b, new, model = loop_model(cell, initial=seed % 2 == 0, seed=seed)
        start = h0 if seed % 2 == 0 else np.zeros_like(h0)
        inputs = {"x": x, "h0": h0} if seed % 2 == 0 else {"x": x}
        checks.equal(f"Loop, {name}", model, inputs, *reference(b, new, x, start))
        b, new, model = scan_model(cell, seed=seed)
        checks.equal(f"Scan, {name}", model, {"x": x, "h0": h0}, *reference(b, new, x, h0))
    x, h0 = arrays(99)
    b, new, model = loop_model(gru_fused, reverse=True, seed=99)
    checks.equal("Loop from the last step", model, {"x": x}, *reference(b, new, x, np.zeros_like(h0), True))
    b, new, model = counted_by_condition(gru_fused, seed=99)
    checks.equal("Loop counted by its condition", model, {"x": x}, *reference(b, new, x, np.zeros_like(h0)))
    for reverse in (False, True):
        for prepend in (False, True):
            for in_axis, out_axis in ((0, 0), (1, 1), (0, 2), (1, 0)):
                b, new, model = scan_model(gru_fused, reverse, prepend, in_axis, out_axis, seed=99)
                y, last = in_order(b, new, x, h0, reverse, prepend)
                given = x if in_axis == 0 else np.ascontiguousarray(x.swapaxes(0, 1))
                checks.equal(f"Scan, directions {int(reverse)} {int(prepend)}, axes {in_axis} {out_axis}", model,
                             {"x": given, "h0": h0}, np.moveaxis(y, 0, out_axis), last)
    stacked_cells(checks)
    product_before(checks)
    masked(checks, "gru, Where", gru_fused, False, False)
    masked(checks, "gru, arithmetic", gru_fused, True, False)
    masked(checks, "gru hard sigmoid, Where, zeros in y", gru_hard(False), False, True)
    masked(checks, "gru reset before, z and 1-z exchanged", CELLS["gru reset before, (1-z)*h + z*n"], True, False)
    masked(checks, "rnn, arithmetic, zeros in y", rnn, True, True)
    masked(checks, "rnn relu, Where", rnn_relu, False, False)
    for name, (cell, message) in REFUSED.items():
        checks.refused(f"refused: {name}", loop_model(cell)[2], message)
    loops_that_are_none(checks)
    return checks


def main(hrnn):
    with tempfile.TemporaryDirectory() as folder:
        checks = run_all(hrnn, folder)
    print(f"{checks.cases} cases, {len(checks.failed)} failures")
    return len(checks.failed) > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

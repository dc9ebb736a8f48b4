#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Networks around recurrent layers, against the onnx package's reference evaluator: dynamic batch and time, 16-bit types,
functions of the model's own, and the recurrent part of a model that cannot be compiled as a whole.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnx.parser
import onnx.reference
from onnx import numpy_helper

import common

RANDOM = np.random.default_rng(5)


def weights(*shape, dtype=np.float32, scale=0.5):
    return (RANDOM.standard_normal(shape) * scale).astype(dtype)


def model(text, initializers, check=True):
    parsed = onnx.parser.parse_model(text)
    parsed.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in initializers.items())
    if check:
        onnx.checker.check_model(parsed)
    return parsed


def gru(prefix, inputs, hidden, dtype=np.float32):
    return {f"{prefix}w": weights(1, 3 * hidden, inputs, dtype=dtype), f"{prefix}r": weights(1, 3 * hidden, hidden, dtype=dtype),
            f"{prefix}b": weights(1, 6 * hidden, dtype=dtype)}


# Embedding, convolution, normalisation, two layers with a residual, attention with a mask over run-time tensors, a head.
TAGGER = """
<ir_version: 8, opset_import: ["": 18]>
tagger (int64[batch, time] words, bool[batch, time] kept, float[batch] heat) => (float[batch, tags] scores, int64[batch] best) {
  embedded = Gather <axis = 0> (table, words)
  rows = Transpose <perm = [0, 2, 1]> (embedded)
  seen = Conv <kernel_shape = [3], pads = [1, 1]> (rows, cw, cb)
  active = Relu (seen)
  normal = BatchNormalization (active, scale, shift, mean, variance)
  x = Transpose <perm = [2, 0, 1]> (normal)
  y, yh = GRU <hidden_size = 8, linear_before_reset = 1> (x, w, r, b)
  y3 = Squeeze (y, one)
  sum = Add (y3, x)
  z, zh = GRU <hidden_size = 8> (sum, w2, r2, b2)
  z3 = Squeeze (z, one)
  states = Transpose <perm = [1, 0, 2]> (z3)
  last = Transpose <perm = [1, 2, 0]> (zh)
  scores3 = MatMul (states, last)
  raw = Squeeze (scores3, two)
  masked = Where (kept, raw, low)
  weight = Softmax <axis = -1> (masked)
  weight3 = Unsqueeze (weight, one)
  context3 = MatMul (weight3, states)
  context = Squeeze (context3, one)
  even = LayerNormalization (context, ls, lb)
  heat2 = Unsqueeze (heat, one)
  warm = Mul (even, heat2)
  logits = Gemm <transB = 1> (warm, hw, hb)
  scores = LogSoftmax <axis = -1> (logits)
  best = ArgMax <axis = 1, keepdims = 0> (scores)
}
"""


def tagger():
    one, two = np.array([1]), np.array([2])
    parsed = model(TAGGER, {
        "table": weights(20, 6), "cw": weights(8, 6, 3), "cb": weights(8), "scale": weights(8), "shift": weights(8),
        "mean": weights(8), "variance": np.abs(weights(8)), **gru("", 8, 8), "ls": weights(8), "lb": weights(8),
        **{f"{key}2": value for key, value in gru("", 8, 8).items()}, "hw": weights(5, 8), "hb": weights(5),
        "one": one, "two": two, "low": np.array(-1e9, np.float32)})
    for batch, time in [(3, 7), (1, 1), (2, 12)]:
        kept = RANDOM.random((batch, time)) < 0.7
        kept[:, 0] = True
        yield parsed, {"words": RANDOM.integers(-20, 20, (batch, time)), "kept": kept, "heat": weights(batch)}, 5e-6


# Depthwise and dilated convolutions over two axes, pooling, and what is left over as a sequence.
SPECTROGRAM = """
<ir_version: 8, opset_import: ["": 17]>
spectrogram (float[batch, 2, time, 9] sound) => (float[batch, n, 6] y) {
  a = Conv <group = 2, kernel_shape = [3, 3], pads = [2, 1, 2, 1], dilations = [2, 1]> (sound, w1, b1)
  c = HardSwish (a)
  d = MaxPool <kernel_shape = [1, 2], strides = [1, 2]> (c)
  e = AveragePool <kernel_shape = [2, 1], pads = [1, 0, 0, 0], count_include_pad = 1> (d)
  f = Conv <kernel_shape = [2, 2], strides = [2, 1]> (e, w2, b2)
  g = Transpose <perm = [0, 2, 1, 3]> (f)
  s = Shape <end = 2> (g)
  t = Concat <axis = 0> (s, rest)
  h = Reshape (g, t)
  x = Transpose <perm = [1, 0, 2]> (h)
  z, zh = GRU <hidden_size = 6, linear_before_reset = 1> (x, w, r, b)
  z3 = Squeeze (z, one)
  y = Transpose <perm = [1, 0, 2]> (z3)
}
"""


def spectrogram():
    parsed = model(SPECTROGRAM, {"w1": weights(4, 1, 3, 3), "b1": weights(4), "w2": weights(3, 4, 2, 2), "b2": weights(3),
                                 "rest": np.array([-1]), "one": np.array([1]), **gru("", 9, 6)})
    for batch, time in [(2, 8), (1, 5)]:
        yield parsed, {"sound": weights(batch, 2, time, 9)}, 5e-6


# Normalisations that become part of a convolution, a product, and a product seen through a Transpose.
NORMALIZED = """
<ir_version: 8, opset_import: ["": 17]>
normalized (float[batch, 3, time] x) => (float[time, batch, 4] y, float[batch, 5] z) {
  a = Conv <kernel_shape = [3], pads = [1, 1]> (x, cw)
  n = BatchNormalization <epsilon = 0.01> (a, s6, t6, m6, v6)
  c = Relu (n)
  rows = Transpose <perm = [2, 0, 1]> (c)
  d = MatMul (rows, dw)
  turned = Transpose <perm = [1, 2, 0]> (d)
  e = BatchNormalization (turned, s4, t4, m4, v4)
  steps = Transpose <perm = [2, 0, 1]> (e)
  h, last = GRU <hidden_size = 4, linear_before_reset = 1> (steps, w, r, b)
  y = Squeeze (h, one)
  state = Squeeze (last, zero)
  f = Gemm <transB = 1> (state, gw, gb)
  z = BatchNormalization (f, s5, t5, m5, v5)
}
"""


def normalized():
    statistics = {f"{name}{count}": np.abs(weights(count)) if name == "v" else weights(count) for count in (4, 5, 6) for name in "stmv"}
    parsed = model(NORMALIZED, {
        "cw": weights(6, 3, 3), "dw": weights(6, 4), **gru("", 4, 4), "gw": weights(5, 4), "gb": weights(5), **statistics,
        "zero": np.array([0]), "one": np.array([1])})
    for batch, time in [(2, 6), (1, 1)]:
        yield parsed, {"x": weights(batch, 3, time)}, 2e-6


# Normalisations that become part of what follows: layers through views, a convolution without padding, a flattened product.
# One before padding stays.
SCALED = """
<ir_version: 8, opset_import: ["": 17]>
scaled (float[batch, 3, time] x, float[batch, 3, 5] v, int32[batch] lengths) => (float[time, d, batch, 5] y, float[d, batch, 5] state,
                                                           float[batch, 4] z, float[batch, 2, time] s) {
  a = BatchNormalization (x, s3, t3, m3, v3)
  steps = Transpose <perm = [2, 0, 1]> (a)
  y, yh = GRU <hidden_size = 5, linear_before_reset = 1, direction = "DIRECTION"> (steps, w, r, b, lengths)
  n = LayerNormalization (y, ls, lb)
  n0 = Gather <axis = 1> (n, first)
  u, state = RNN <hidden_size = 5, direction = "DIRECTION"> (n0, rw, rr)
  c = BatchNormalization (v, s3, t3, m3, v3)
  conv = Conv <kernel_shape = [2], strides = [2]> (c, cw, cb)
  d = Relu (conv)
  e = BatchNormalization (d, s4, t4, m4, v4)
  rows = Flatten (e)
  z = Gemm (rows, gw, gb)
  p = BatchNormalization (x, s3, t3, m3, v3)
  s = Conv <kernel_shape = [3], pads = [1, 1]> (p, pw)
}
"""


def scaled(direction="forward"):
    directions = 2 if direction == "bidirectional" else 1
    layers = {"w": weights(directions, 15, 3), "r": weights(directions, 15, 5), "b": weights(directions, 30),
              "rw": weights(directions, 5, 5), "rr": weights(directions, 5, 5)}
    statistics = {f"{name}{count}": np.abs(weights(count)) if name == "v" else weights(count) for count in (3, 4) for name in "stmv"}
    parsed = model(SCALED.replace("DIRECTION", direction), {
        **layers, **statistics, "ls": weights(5), "lb": weights(5), "cw": weights(4, 3, 2), "cb": weights(4), "pw": weights(2, 3, 3),
        "gw": weights(8, 4), "gb": weights(4), "first": np.array(0)})
    for batch, time in [(2, 6), (1, 4)]:
        yield parsed, {"x": weights(batch, 3, time), "v": weights(batch, 3, 5), "lengths": np.full(batch, time, np.int32)}, 5e-6


def check_scaled(hrnn):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "m.onnx"
        onnx.save(next(scaled())[0], path)
        text = subprocess.run([hrnn, "inspect", str(path)], check=True, capture_output=True, text=True).stdout
    assert text.count("MulAdd") == 1, text  # the one before padding
    for maker, reader in [("a", "y"), ("n", "u"), ("c", "conv"), ("e", "z")]:
        note = rf"node '{maker}' \(\w+\): its factor and shift a channel are part of the weights of node '{reader}'"
        assert re.search(note, text), f"{note} is not in {text}"


HALF = """
<ir_version: 9, opset_import: ["": 17]>
half (TYPE[time, batch, 4] x) => (TYPE[time, one, batch, 5] y, TYPE[one, batch, 5] yh) {
  doubled = Add (x, x)
  y, yh = GRU <hidden_size = 5, linear_before_reset = 1> (doubled, w, r, b)
}
"""


def half():
    """Weights, inputs and outputs of 16 bits. The reference computes in float32 and rounds once."""
    import ml_dtypes

    for text, dtype, tolerance in [("float16", np.float16, 5e-4), ("bfloat16", ml_dtypes.bfloat16, 4e-3)]:
        stored = {name: value.astype(dtype) for name, value in gru("", 4, 5).items()}
        x = weights(6, 2, 4).astype(dtype)
        wide = model(HALF.replace("TYPE", "float"), {name: value.astype(np.float32) for name, value in stored.items()})
        expected = onnx.reference.ReferenceEvaluator(wide).run(None, {"x": x.astype(np.float32)})
        narrow = model(HALF.replace("TYPE", text), stored)
        yield narrow, {"x": x}, tolerance, dict(zip(["y", "yh"], [value.astype(dtype) for value in expected]))


FUNCTIONS = """
<ir_version: 9, opset_import: ["": 18, "local": 1]>
functions (float[time, batch, 4] x) => (float[time, batch, 5] y) {
  a = local.scaled <factor = 0.5> (x)
  z, zh = GRU <hidden_size = 5> (a, w, r, b)
  z3 = Squeeze (z, one)
  y = local.twice (z3)
}
<domain: "local", opset_import: ["": 18]>
scaled <factor> (v) => (u) {
  f = Constant <value_float: float = @factor> ()
  u = Mul (v, f)
}
<domain: "local", opset_import: ["": 12, "local": 1]>
twice (v) => (u) {
  f = local.soft (v)
  u = local.soft (f)
}
<domain: "local", opset_import: ["": 12]>
soft (v) => (u) { u = Softmax <axis = 1> (v) }
"""


def functions():
    """Softmax of opset 12 in a function normalises over two axes, in a model of opset 18. (The package's checker allows
    only operators that did not change in between, and its evaluator takes them all as of one opset.)"""
    initializers, x = {"one": np.array([1]), **gru("", 4, 5)}, weights(3, 2, 4)
    layer = model("""<ir_version: 8, opset_import: ["": 18]>
layer (float[time, batch, 4] x) => (float[time, batch, 5] y) {
  z, zh = GRU <hidden_size = 5> (x, w, r, b)
  y = Squeeze (z, one)
}""", initializers)
    y = onnx.reference.ReferenceEvaluator(layer).run(None, {"x": x * np.float32(0.5)})[0]
    for _ in range(2):
        y = np.exp(y) / np.sum(np.exp(y), axis=(1, 2), keepdims=True)
    yield model(FUNCTIONS, initializers, check=False), {"x": x}, 2e-6, {"y": y}


# What stands around layers of sequences of several lengths: reversed by them, sorted by them and put back, the last step of
# each, a mean over the steps there are, a one in the place of the largest.
INDEXED = """
<ir_version: 8, opset_import: ["": 18]>
indexed (float[batch, time, 4] x, int64[batch] lengths) => (float[batch, 5] last, float[batch, 5] last_again, float[batch, time, 5] back,
                                                             float[batch, 5] mean, float[batch, 5] best, int64[2] ends) {
  turned = ReverseSequence <batch_axis = 0, time_axis = 1> (x, lengths)
  shape = Shape (lengths)
  sorted, order = TopK <axis = 0> (lengths, shape)
  rows = Gather (turned, order)
  steps = Transpose <perm = [1, 0, 2]> (rows)
  y, yh = GRU <hidden_size = 5, linear_before_reset = 1> (steps, w, r, b)
  y3 = Squeeze (y, one)
  states = Transpose <perm = [1, 0, 2]> (y3)
  count = Squeeze (shape)
  numbers = Range (zero, count, step)
  ends = Gather (numbers, first_and_last)
  blank = ConstantOfShape (shape)
  blanks = Cast <to = 7> (blank)
  places = ScatterElements (blanks, order, numbers)
  z = Gather (states, places)
  back = ReverseSequence <batch_axis = 0, time_axis = 1> (z, lengths)
  before = Sub (lengths, step)
  column = Unsqueeze (before, one)
  number_column = Unsqueeze (numbers, one)
  tuples = Concat <axis = 1> (number_column, column)
  last = GatherND (z, tuples)
  deep = Unsqueeze (column, one)
  five = Expand (deep, wide)
  picked = GatherElements <axis = 1> (z, five)
  last_again = Squeeze (picked, one)
  sum = ReduceSum <keepdims = 0> (z, one)
  long = Shape <start = 1, end = 2> (x)
  divisor = Cast <to = 1> (long)
  mean = Div (sum, divisor)
  largest = ArgMax <axis = 1> (last)
  empty = Mul (last, nothing)
  ones = Unsqueeze (number_column, one)
  place3 = Unsqueeze (largest, one)
  place = Concat <axis = 2> (ones, place3)
  update = Expand (unit, update_shape)
  best = ScatterND <reduction = "add"> (empty, place, update)
}
"""


def indexed():
    for batch, time in [(3, 7), (1, 1), (5, 4)]:
        parsed = model(INDEXED, {
            **gru("", 4, 5), "one": np.array([1]), "zero": np.array(0), "step": np.array(1),
            "first_and_last": np.array([0, -1]), "wide": np.array([1, 1, 5]),
            "nothing": np.zeros(1, np.float32), "unit": np.ones(1, np.float32), "update_shape": np.array([batch, 1])},
            check=False)
        x, lengths = weights(batch, time, 4), RANDOM.integers(1, time + 1, batch)
        lengths[0] = time
        yield parsed, {"x": x, "lengths": lengths}, 2e-6


EXTRACTED = """
<ir_version: 8, opset_import: ["": 17]>
extracted (float[batch, time, 4] sound, float[batch] other) => (float[batch, time, 5] found, float[n, n] odd) {
  spectrum = STFTLike <axis = 1> (sound)
  x = Transpose <perm = [1, 0, 2]> (spectrum)
  y, yh = GRU <hidden_size = 5> (x, w, r, b)
  y3 = Squeeze (y, one)
  found = Tanh (y3)
  top = Unknown (found)
  odd = Relu (top)
}
"""


def check_extraction(hrnn):
    """What stands around the layer is left out; what enters and leaves it keeps its names."""
    parsed = onnx.parser.parse_model(EXTRACTED)
    initializers = {"one": np.array([1]), **gru("", 4, 5)}
    parsed.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in initializers.items())
    x = weights(6, 2, 4)
    inner = model("""<ir_version: 8, opset_import: ["": 17]>
inner (float[time, batch, 4] x) => (float[time, batch, 5] found) {
  y, yh = GRU <hidden_size = 5> (x, w, r, b)
  y3 = Squeeze (y, one)
  found = Tanh (y3)
}""", initializers)
    with tempfile.TemporaryDirectory() as folder:
        path, given, made = (pathlib.Path(folder) / name for name in ["m.onnx", "in.npz", "out.npz"])
        onnx.save(parsed, path)
        np.savez(given, x=x)
        whole = subprocess.run([hrnn, "inspect", str(path)], capture_output=True, text=True)
        assert whole.returncode == 1 and "--extract" in whole.stderr and "STFTLike" in whole.stderr, whole.stderr
        assert "Unknown" in whole.stderr, whole.stderr
        command = [hrnn, "run", str(path), "--extract", "--inputs", str(given), "--outputs", str(made)]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        for name in ["STFTLike", "Unknown", "Relu"]:
            assert name in result.stderr, f"{name} is not said to be left out: {result.stderr}"
        want = dict(zip(["found"], onnx.reference.ReferenceEvaluator(inner).run(None, {"x": x})))
        assert common.largest_difference(dict(np.load(made)), want) < 2e-6
        # Nothing recurrent is left where the layer itself is in the way.
        node = next(node for node in parsed.graph.node if node.op_type == "GRU")
        node.op_type = "Mystery"
        onnx.save(parsed, path)
        none = subprocess.run([hrnn, "inspect", "--extract", str(path)], capture_output=True, text=True)
        assert none.returncode == 1 and "no recurrent part" in none.stderr, none.stderr


def check_gather_bounds(hrnn):
    """An index out of range is an error of the run, not a crash."""
    parsed = model("""<ir_version: 8, opset_import: ["": 17]>
g (int64[n] i) => (float[n, 3] y) { y = Gather (table, i) }""", {"table": weights(4, 3)})
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "m.onnx"
        onnx.save(parsed, path)
        assert common.run(hrnn, path, {"i": np.array([-4, 3])})["y"].shape == (2, 3)
        for index in [4, -5, 2**62]:
            try:
                common.run(hrnn, path, {"i": np.array([0, index])})
            except common.Refused as error:
                assert f"index {index} is out of range for dimension 0, which is 4" in str(error), error
            else:
                raise AssertionError(f"index {index} was taken")


def main(hrnn):
    failures, count = 0, 0
    for make in [tagger, spectrogram, normalized, scaled, half, functions, indexed]:
        for case in make():
            parsed, inputs, tolerance = case[:3]
            names = [value.name for value in parsed.graph.output]
            expected = case[3] if len(case) > 3 else dict(
                zip(names, onnx.reference.ReferenceEvaluator(parsed).run(None, inputs)))
            with tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder) / f"{make.__name__}.onnx"
                onnx.save(parsed, path)
                for variant in common.usable_variants(hrnn):
                    got = common.run(hrnn, path, inputs, variant)
                    worst = common.largest_difference(got, expected)
                    count += 1
                    failures += not worst < tolerance
                    print(f"{'passed' if worst < tolerance else 'FAILED'} {make.__name__} on {variant}: {worst:.1e}")
    check_extraction(hrnn)
    check_gather_bounds(hrnn)
    check_scaled(hrnn)
    print(f"{count} runs, {failures} failures")
    return failures > 0 or count == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

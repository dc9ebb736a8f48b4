# SPDX-License-Identifier: Apache-2.0
"""Writes seeds of the corpora: small models that use every operator, and arrays of every kind.

    make_seeds.py tests/fuzz/corpus

Then `fuzz_seed_programs corpus/onnx corpus/program` lowers the models; `-merge=1` keeps what adds coverage.
"""
import io
import os
import sys

import numpy as np
from onnx import TensorProto, helper, numpy_helper

F32, F64 = np.float32, np.float64


def save(model_name, nodes, inputs, outputs, weights, opset=17):
    types = {np.dtype(F32): TensorProto.FLOAT, np.dtype(F64): TensorProto.DOUBLE, np.dtype(np.int32): TensorProto.INT32,
             np.dtype(np.int64): TensorProto.INT64}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(n, types[np.dtype(t)], d) for n, t, d in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(v, n) for n, v in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    with open(os.path.join(sys.argv[1], "onnx", model_name), "wb") as file:
        file.write(model.SerializeToString())


def recurrent(name, op, gates, dtype=F32, directions=1, inputs="xwrbls", run_time_weights=False, time_major=True, opset=17,
              **attributes):
    hidden, size = 2, 3
    shapes = {"w": [directions, gates * hidden, size], "r": [directions, gates * hidden, hidden],
              "b": [directions, 2 * gates * hidden]}
    weights = {k: np.full(v, 0.25, dtype) for k, v in shapes.items() if k in inputs}
    node = helper.make_node(op, [i if i in inputs else "" for i in "xwrbls"], ["y", "h"], hidden_size=hidden, **attributes)
    graph_inputs = [("x", dtype, ["t", "n", size] if time_major else ["n", "t", size])]
    if "l" in inputs:
        graph_inputs.append(("l", np.int32, ["n"]))
    if "s" in inputs:
        graph_inputs.append(("s", dtype, [directions, "n", hidden] if time_major else ["n", directions, hidden]))
    if run_time_weights:
        graph_inputs += [(k, dtype, list(v.shape)) for k, v in weights.items()]
        weights = {}
    save(name, [node], graph_inputs, ["y", "h"], weights, opset)


def op_model(name, op, extra, shape=("n", 2, 3), opset=17, **attributes):
    save(name, [helper.make_node(op, ["x", *extra], ["y"], **attributes)], [("x", F32, list(shape))], ["y"], extra, opset)


def models():
    recurrent("gru", "GRU", 3, linear_before_reset=1)
    recurrent("gru_before", "GRU", 3, directions=2, direction="bidirectional", clip=1.5)
    recurrent("gru_f64", "GRU", 3, F64, inputs="xwr", direction="reverse")
    recurrent("gru_run_time", "GRU", 3, run_time_weights=True)
    recurrent("gru_layout", "GRU", 3, layout=1, time_major=False)
    recurrent("gru_activations", "GRU", 3, opset=14, activations=["HardSigmoid", "ScaledTanh"], activation_alpha=[0.2, 0.5],
              activation_beta=[0.5, 1.5])
    recurrent("rnn", "RNN", 1, opset=7)
    recurrent("rnn_relu", "RNN", 1, directions=2, direction="bidirectional", activations=["Relu", "Elu"], inputs="xwrb")
    i64 = lambda *v: np.array(v, np.int64)
    matrix = np.ones((3, 2), F32)
    op_model("gemm", "Gemm", {"w": matrix.T.copy(), "c": np.ones(2, F32)}, ("n", 3), transB=1)
    op_model("matmul", "MatMul", {"w": matrix})
    op_model("reshape", "Reshape", {"s": i64(0, -1)})
    op_model("transpose", "Transpose", {}, perm=[1, 0, 2])
    op_model("slice", "Slice", {"a": i64(0), "b": i64(2), "c": i64(2), "d": i64(-1)})
    op_model("slice_attributes", "Slice", {}, opset=9, axes=[1], starts=[-1], ends=[9])
    op_model("gather", "Gather", {"i": i64(-1).reshape(())}, axis=1)
    op_model("gather_elements", "GatherElements", {"i": np.array([[[0], [-1]]], np.int64)}, (1, 2, 3), axis=2)
    op_model("gather_nd", "GatherND", {"i": i64(0, -1).reshape(2, 1)}, (2, 3), batch_dims=1)
    op_model("scatter_elements", "ScatterElements", {"i": np.array([[0], [-1]], np.int32), "u": np.ones((2, 1), F32)}, (2, 3), axis=1)
    op_model("scatter_nd", "ScatterND", {"i": i64(0, -1).reshape(1, 2), "u": np.ones((1, 3), F32)}, ("n", 2, 3), opset=18, reduction="max")
    op_model("top_k", "TopK", {"k": i64(2)}, ("n", 3), largest=0)
    op_model("squeeze", "Squeeze", {"a": i64(1)}, ("n", 1, 3))
    op_model("unsqueeze", "Unsqueeze", {"a": i64(0, 2)})
    op_model("unsqueeze_attributes", "Unsqueeze", {}, opset=11, axes=[0])
    op_model("flatten", "Flatten", {}, axis=2)
    op_model("expand", "Expand", {"s": i64(2, 1, 2, 3)})
    op_model("concat", "Concat", {"c": np.ones((1, 2, 3), F32)}, (1, 2, 3), axis=-1)
    op_model("add", "Add", {"c": np.ones(3, F32)})
    op_model("hard_sigmoid", "HardSigmoid", {}, alpha=0.3)
    op_model("identity", "Identity", {})
    op_model("dropout", "Dropout", {}, opset=11, ratio=0.5)
    node = helper.make_node
    save("reverse_sequence", [node("ReverseSequence", ["x", "l"], ["y"], batch_axis=0, time_axis=1)],
         [("x", F32, ["n", "t", 2]), ("l", np.int64, ["n"])], ["y"], {})
    save("range", [node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["t"]), node("Range", ["zero", "t", "one"], ["r"]),
                   node("Gather", ["table", "r"], ["g"]), node("Cast", ["t"], ["f"], to=TensorProto.FLOAT), node("Div", ["g", "f"], ["y"])],
         [("x", F32, ["t", 2])], ["y"], {"zero": i64(0).reshape(()), "one": i64(1).reshape(()), "table": np.ones((3, 2), F32)})
    shape_arithmetic = [
        node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["n"]), node("Unsqueeze", ["n", "axis"], ["n1"]),
        node("Concat", ["n1", "rest"], ["to"], axis=0), node("ConstantOfShape", ["to"], ["zeros"]),
        node("Mul", ["n1", "rest"], ["product"]), node("Equal", ["product", "rest"], ["same"]),
        node("Where", ["same", "n1", "rest"], ["chosen"]), node("Cast", ["n1"], ["cast"], to=TensorProto.INT32),
        node("Size", ["x"], ["size"]), node("Constant", [], ["k"], value_ints=[1]), node("Reshape", ["x", "k2"], ["flat"]),
        node("Identity", ["zeros"], ["y"]),
    ]
    save("shapes", shape_arithmetic, [("x", F32, ["n", 2, 3])], ["y", "flat"],
         {"zero": i64(0).reshape(()), "axis": i64(0), "rest": i64(2), "k2": i64(-1)})


def arrays():
    folder = os.path.join(sys.argv[1], "npz")
    some = {"a": np.arange(6, dtype=F32).reshape(2, 3), "b": np.array(3, np.int64), "c": np.zeros((0, 2), F64)}
    np.savez(os.path.join(folder, "stored.npz"), **some)
    np.savez_compressed(os.path.join(folder, "deflated.npz"), **some)
    kinds = {"f4": some["a"], "fortran": np.asfortranarray(some["a"]), "i4": np.arange(3, dtype=np.int32), "scalar": some["b"],
             "empty": some["c"], "big_endian": some["a"].astype(">f8"), "bool": np.ones(3, bool), "f2": np.ones(2, np.float16)}
    for name, array in kinds.items():
        np.save(os.path.join(folder, name + ".npy"), array)
    for version in ((2, 0), (3, 0)):
        with open(os.path.join(folder, f"version{version[0]}.npy"), "wb") as file:
            np.lib.format.write_array(file, some["a"], version=version)


models()
arrays()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The onnx package's backend node tests, through `hrnn run`: every case all of whose operators this compiler claims, and
whose inputs and outputs have types it takes.

Expected outputs come from the package's own reference code. Cases of recurrent operators run on every usable variant,
the others on the one that is chosen. A case that cannot be compiled stands in onnx_node_tests_unsupported.txt, with a
part of the error it must give; it is a failure when it starts to pass.

onnx_node_tests.py HRNN [REGULAR_EXPRESSION]: only the cases whose names match.
"""
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
import onnx.numpy_helper

import common

HERE = pathlib.Path(__file__).parent
LEAST_CASES = 700  # fewer: the package changed, or operators are no longer found
RECURRENT = {"RNN", "GRU"}
TYPES = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16,
         onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.BOOL}
# Inputs that say the shape of a result. They must be known when a model is compiled, so the cases that feed them get them
# as initializers.
OF_SHAPE = {"Reshape": [1], "Expand": [1], "ConstantOfShape": [0], "Squeeze": [1], "Unsqueeze": [1], "Tile": [1],
            "Split": [1], "Slice": [1, 2, 3, 4], "Pad": [1, 2, 3], "Dropout": [2], "Range": [0, 1, 2], "TopK": [1],
            **{f"Reduce{name}": [1] for name in ["Sum", "Mean", "Max", "Min", "Prod", "SumSquare", "L1", "L2", "LogSum",
                                                 "LogSumExp"]}}
# Relative to the largest expected value, at least to 1. Those of 16-bit types are their spacing; the package computes
# in them, this compiler in float32.
TOLERANCE = {np.dtype(np.float32): 2e-6, np.dtype(np.float64): 1e-7, np.dtype(np.float16): 2e-3, "bfloat16": 2e-2}
ROUNDED = {"test_averagepool_2d_ceil_last_window_starts_on_pad": 1e-4}  # expected values of four digits


def claimed_operators(hrnn):
    """What `hrnn` lists when it meets an operator it does not know."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("NoSuchOperator", ["x"], ["y"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value], [onnx.helper.make_tensor_value_info(
        "y", onnx.TensorProto.FLOAT, [1])]), opset_imports=[onnx.helper.make_opsetid("", 17)])
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "unknown.onnx"
        onnx.save(model, path)
        error = subprocess.run([hrnn, "inspect", str(path)], capture_output=True, text=True).stderr
    return set(re.search(r"supported operators: (.*)", error).group(1).split(", "))


def operators(model):
    yield from ((node.domain, node.op_type) for node in model.graph.node)


def has_types(model):
    for value in [*model.graph.input, *model.graph.output]:
        if not value.type.HasField("tensor_type") or value.type.tensor_type.elem_type not in TYPES:
            return False
    return True


def cases(claimed):
    with warnings.catch_warnings():  # some cases overflow on purpose
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        for case in collect_testcases(None):
            opset = next((entry.version for entry in case.model.opset_import if entry.domain in ("", "ai.onnx")), 0)
            known = opset >= 7 and all(domain in ("", "ai.onnx") and name in claimed for domain, name in operators(case.model))
            if known and has_types(case.model):
                yield case


def expected_errors():
    """Case -> a part of its error message, from lines `name: part`."""
    lines = (HERE / "onnx_node_tests_unsupported.txt").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines if line and not line.startswith("#"))


def difference(got, want):
    """The largest difference in units of the tolerance; infinities and NaN must be at the same places."""
    worst = 0.0
    assert set(got) == set(want), f"outputs {sorted(got)}, expected {sorted(want)}"
    for name, expected in want.items():
        value = got[name]
        kind = "bfloat16" if expected.dtype.name == "bfloat16" else expected.dtype
        assert value.shape == expected.shape, f"{name} has shape {value.shape}, expected {expected.shape}"
        assert value.dtype == expected.dtype, f"{name} has type {value.dtype}, expected {expected.dtype}"
        if kind not in TOLERANCE:  # integers and bools
            assert np.array_equal(value, expected), f"{name} differs"
            continue
        value, expected = value.astype(np.float64), expected.astype(np.float64)
        finite = np.isfinite(expected)
        assert np.array_equal(np.isfinite(value), finite), f"{name}: not finite elsewhere"
        assert np.array_equal(value[~finite], expected[~finite], equal_nan=True), f"{name}: another infinity or NaN"
        size = max(1.0, np.max(np.abs(expected[finite]), initial=0.0))
        worst = max(worst, np.max(np.abs(value[finite] - expected[finite]), initial=0.0) / size / TOLERANCE[kind])
    return worst


def as_array(value):
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def fix_shapes(model, given):
    """Makes initializers of the graph inputs that OF_SHAPE names."""
    fixed = {node.input[i] for node in model.graph.node for i in OF_SHAPE.get(node.op_type, []) if i < len(node.input)}
    for value in [value for value in model.graph.input if value.name in fixed]:
        model.graph.input.remove(value)
        model.graph.initializer.append(onnx.numpy_helper.from_array(given.pop(value.name), value.name))


def check(hrnn, case, variants, unsupported):
    """Failures of a case, as text."""
    names = [value.name for value in case.model.graph.input], [value.name for value in case.model.graph.output]
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"{case.name}.onnx"
        for inputs, outputs in case.data_sets:
            model = onnx.ModelProto()
            model.CopyFrom(case.model)
            given = {name: as_array(value) for name, value in zip(names[0], inputs)}
            fix_shapes(model, given)
            onnx.save(model, path)
            wanted = {name: as_array(value) for name, value in zip(names[1], outputs)}
            for variant in variants:
                try:
                    worst = difference(common.run(hrnn, path, given, variant), wanted)
                    if not worst <= ROUNDED.get(case.name, 0) / 2e-6 + 1:
                        failures.append(f"{case.name} on {variant or 'the chosen variant'}: differs by {worst:.1f} tolerances")
                except AssertionError as error:
                    failures.append(f"{case.name}: {error}")
    if case.name not in unsupported:
        return failures
    if not failures:
        return [f"{case.name}: is listed as unsupported, but passes"]
    return [failure for failure in failures if unsupported[case.name] not in failure]


def main(hrnn, pattern=""):
    variants, unsupported = common.usable_variants(hrnn), expected_errors()
    assert variants, "this build has no kernels that this machine can run"
    found = [case for case in cases(claimed_operators(hrnn)) if re.search(pattern, case.name)]
    unknown = set(unsupported) - {case.name for case in found}

    def run(case):
        recurrent = any(name in RECURRENT for _, name in operators(case.model))
        return check(hrnn, case, variants if recurrent else [""], unsupported)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        failures = [failure for case in pool.map(run, found) for failure in case]
    if not pattern:
        failures += [f"{name}: is listed as unsupported, but is no case" for name in sorted(unknown)]
    for failure in failures:
        print(f"FAILED {failure}")
    listed = len(unsupported) - len(unknown)
    print(f"{len(found)} cases, {listed} of them listed as unsupported, {len(failures)} failures")
    return len(failures) > 0 or (not pattern and len(found) < LEAST_CASES)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

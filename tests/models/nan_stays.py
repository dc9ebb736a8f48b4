#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A NaN in one sequence stays there: the other sequences come out bit for bit as without it, and so do its earlier steps."""
import pathlib
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import common

STEPS, BATCH, INPUTS, HIDDEN, WHERE, WHEN = 9, 5, 6, 20, 2, 4


def layer(kind, direction, **attributes):
    rng, gates, directions = np.random.default_rng(0), 3 if kind == "GRU" else 1, 2 if direction == "bidirectional" else 1
    weights = {"w": rng.uniform(-0.4, 0.4, (directions, gates * HIDDEN, INPUTS)).astype(np.float32),
               "r": rng.uniform(-0.2, 0.2, (directions, gates * HIDDEN, HIDDEN)).astype(np.float32)}
    node = helper.make_node(kind, ["x", "w", "r"], ["y", "last"], direction=direction, **attributes)
    graph = helper.make_graph([node], "graph", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [STEPS, BATCH, INPUTS])],
                              [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "last")],
                              [numpy_helper.from_array(value, name) for name, value in weights.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def wrong(clean, dirty, direction):
    """What of `dirty` is not as it must be."""
    others = [n for n in range(BATCH) if n != WHERE]
    for name, axis in (("y", 2), ("last", 1)):
        if not np.array_equal(np.take(clean[name], others, axis), np.take(dirty[name], others, axis)):
            yield f"{name} of another sequence"
    for d, reverse in enumerate({"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[direction]):
        before = slice(WHEN + 1, None) if reverse else slice(0, WHEN)
        from_then = slice(0, WHEN + 1) if reverse else slice(WHEN, None)
        if not np.array_equal(clean["y"][before, d, WHERE], dirty["y"][before, d, WHERE]):
            yield f"steps made before the NaN, direction {d}"
        if not np.isnan(dirty["y"][from_then, d, WHERE]).all() or not np.isnan(dirty["last"][d, WHERE]).all():
            yield f"the NaN was lost, direction {d}"


def main(hrnn):
    x = np.random.default_rng(1).standard_normal((STEPS, BATCH, INPUTS)).astype(np.float32)
    with_nan = x.copy()
    with_nan[WHEN, WHERE, 1] = np.nan
    kinds = [("RNN", {}), ("RNN", {"activations": ["Relu"]}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("GRU", {"clip": 0.5})]
    failures = cases = 0
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.onnx"
        for variant in common.usable_variants(hrnn):
            for kind, attributes in kinds:
                for direction in ("forward", "reverse", "bidirectional"):
                    attributes = dict(attributes)
                    if kind == "RNN" and "activations" in attributes and direction == "bidirectional":
                        attributes["activations"] = ["Relu", "Relu"]
                    onnx.save(layer(kind, direction, **attributes), path)
                    problems = list(wrong(common.run(hrnn, path, {"x": x}, variant), common.run(hrnn, path, {"x": with_nan}, variant), direction))
                    cases += 1
                    failures += len(problems) > 0
                    if problems:
                        print(f"FAILED {kind} {attributes} {direction} on {variant}: {'; '.join(problems)}")
    print(f"{cases} cases, {failures} failures")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

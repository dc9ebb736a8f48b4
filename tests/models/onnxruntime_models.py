#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Operators and whole models through ONNX Runtime and through `hrnn run`, compared with each other.

onnxruntime_models.py HRNN

Operators: the first cases of the onnx package for every operator that is not recurrent, of one node each. Whole models:
all of exported/, and the networks of whole_models.py. Both programs compute in the model's type with other roundings,
so differences are measured as in onnx_node_tests.py. What ONNX Runtime cannot run is listed below with the reason;
anything else that it refuses is a failure. Skipped where ONNX Runtime is not installed.
"""
import concurrent.futures
import os
import pathlib
import sys
import tempfile

import numpy as np
import onnx
import onnx.reference

import common
import exported_models
import onnx_node_tests
import whole_models

CASES = 3  # an operator
LEAST_OPERATORS, LEAST_MODELS = 100, 110
# A part of the name -> a part of the message with which ONNX Runtime refuses it.
REFUSED = {"gru_float64": "GRU operator does not support double"}
# Of what onnx_node_tests.py allows (for float32 2e-6 of the largest value); the largest difference seen is 0.2 of that.
LIMIT = 0.5
NEWEST_OPSET, IR_VERSION = 26, 11  # that this ONNX Runtime reads


def operator_cases(hrnn):
    unsupported, seen = onnx_node_tests.expected_errors(), {}
    for case in onnx_node_tests.cases(onnx_node_tests.claimed_operators(hrnn)):
        nodes = list(onnx_node_tests.operators(case.model))
        if len(nodes) != 1 or nodes[0][1] in onnx_node_tests.RECURRENT or case.name in unsupported:
            continue
        if case.model.opset_import[0].version > NEWEST_OPSET:
            continue
        operator = nodes[0][1]
        seen[operator] = seen.get(operator, 0) + 1
        if seen[operator] > CASES:
            continue
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        model.ir_version = min(model.ir_version, IR_VERSION)
        names = [value.name for value in model.graph.input]
        given = {name: onnx_node_tests.as_array(value) for name, value in zip(names, case.data_sets[0][0])}
        onnx_node_tests.fix_shapes(model, given)
        yield case.name, operator, model, given


def model_cases():
    for name, path, inputs, _ in exported_models.models():
        yield name, "", onnx.load(path), inputs
    for make in [whole_models.tagger, whole_models.spectrogram, whole_models.normalized, whole_models.indexed]:
        for index, (model, inputs, _) in enumerate(make()):
            yield f"{make.__name__} {index}", "", model, inputs
    for index, (model, inputs, _) in enumerate(whole_models.scaled("bidirectional")):
        inputs["lengths"][0] -= 2
        yield f"scaled, both directions {index}", "", model, inputs


def main(hrnn):
    try:
        import onnxruntime
    except ImportError:
        print("skipped: ONNX Runtime is not installed (cmake/requirements-ci.txt)")
        return 77
    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1

    def check(case):
        """(operator, compared, worst, failure)"""
        name, operator, model, given = case
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            taken = {value.name for value in session.get_inputs()}
            theirs = session.run(None, {key: value for key, value in given.items() if key in taken})
        except Exception as error:
            known = any(part in name and text in str(error) for part, text in REFUSED.items())
            return operator, False, 0.0, None if known else f"{name}: ONNX Runtime: {str(error)[:300]}"
        theirs = dict(zip([value.name for value in session.get_outputs()], theirs))
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "model.onnx"
            onnx.save(model, path)
            try:
                worst = onnx_node_tests.difference(common.run(hrnn, path, given), theirs)
            except AssertionError as error:
                return operator, False, 0.0, f"{name}: {str(error)[:300]}"
        return operator, True, worst, None if worst <= LIMIT else f"{name}: differs by {worst:.2f} tolerances"

    cases = [*operator_cases(hrnn), *model_cases()]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(check, cases))
    failures = [failure for *_, failure in results if failure]
    operators = {operator for operator, compared, *_ in results if compared and operator}
    models = sum(compared for operator, compared, *_ in results if not operator)
    for failure in failures:
        print("FAILED", failure)
    worst = sorted(((worst, case[0]) for case, (_, compared, worst, _) in zip(cases, results) if compared), reverse=True)[:5]
    print("nearest to the tolerance:", ", ".join(f"{name} {value:.2f}" for value, name in worst))
    print(f"ONNX Runtime {onnxruntime.__version__}: {len(operators)} operators, {models} models compared, "
          f"{sum(not compared for _, compared, *_ in results)} not, {len(failures)} failures")
    return len(failures) > 0 or len(operators) < LEAST_OPERATORS or models < LEAST_MODELS


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

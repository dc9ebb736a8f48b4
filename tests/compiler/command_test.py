# SPDX-License-Identifier: Apache-2.0
"""The hrnn command as a user meets it: exit codes, what messages name, and JSON that parses.

    command_test.py HRNN
"""
import json
import os
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HRNN = sys.argv.pop(1)


def hrnn(*arguments):
    return subprocess.run([HRNN, *arguments], capture_output=True, text=True, timeout=120)


def gru_model(opset=17, **attributes):
    """x [time, batch, 3], h [1, batch, 5] -> y, yh."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((1, 15, 3)), "r": rng.standard_normal((1, 15, 5)) / 3}
    node = helper.make_node("GRU", ["x", "w", "r", "", "", "h"], ["y", "yh"], name="layer", **attributes)
    graph = helper.make_graph(
        [node], "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", 3]),
         helper.make_tensor_value_info("h", TensorProto.FLOAT, [1, "batch", 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
         helper.make_tensor_value_info("yh", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


class Command(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def model(self, **attributes):
        onnx.save(gru_model(**attributes), self.path("net.onnx"))
        return self.path("net.onnx")

    def run_model(self, arrays, *options, **attributes):
        np.savez(self.path("in.npz"), **arrays)
        return hrnn("run", self.model(**attributes), "--inputs", self.path("in.npz"), "--outputs", self.path("out.npz"),
                    *options)

    def expect_error(self, result, *names):
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertTrue(result.stderr.startswith("hrnn: error: "), result.stderr)
        self.assertEqual(result.stdout, "")
        for name in names:
            self.assertIn(name, result.stderr)

    arrays = {"x": np.ones((4, 2, 3), np.float32), "h": np.zeros((1, 2, 5), np.float32)}

    # ---- Usage ----

    def test_threads(self):
        self.run_model(self.arrays)
        alone = dict(np.load(self.path("out.npz")))
        result = self.run_model(self.arrays, "--threads", "2")
        self.assertEqual(result.returncode, 0, result.stderr)
        for name, array in np.load(self.path("out.npz")).items():
            np.testing.assert_array_equal(array, alone[name])
        result = self.run_model(self.arrays, "--threads", "0")
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("--threads: Value 0 not in range", result.stderr)

    def test_usage_errors_exit_with_2(self):
        for arguments in ([], ["bogus"], ["inspect"], ["inspect", "a.onnx", "--bogus"], ["run", "a.onnx"],
                          ["explain", "a.onnx", "--dim", "batch"], ["bench"], ["bench", "a.onnx", "--rounds", "0"],
                          ["bench", "a.onnx", "--dim", "batch=2", "--inputs", "in.npz"]):
            result = hrnn(*arguments)
            self.assertEqual(result.returncode, 2, arguments)
            self.assertTrue(result.stderr.startswith("hrnn: error: "), result.stderr)
            self.assertIn("--help", result.stderr)

    def test_unknown_command_is_named_with_those_there_are(self):
        for arguments, fault in ((["foo"], "there is no command 'foo'"), ([], "a command is missing")):
            self.assertIn(fault + "; the commands are compile, run, inspect, explain, kernels, bench, tune", hrnn(*arguments).stderr)

    def test_help_and_version(self):
        for command in ([], ["compile"], ["run"], ["inspect"], ["explain"], ["kernels"], ["bench"], ["tune"]):
            result = hrnn(*command, "--help")
            self.assertEqual(result.returncode, 0)
            self.assertIn("Usage: hrnn", result.stdout)
        self.assertRegex(hrnn("--version").stdout, r"^hrnn \d+\.\d+\.\d+")

    # ---- run ----

    def test_run(self):
        result = self.run_model(self.arrays)
        self.assertEqual((result.returncode, result.stderr, result.stdout), (0, "", ""))
        with np.load(self.path("out.npz")) as outputs:
            self.assertEqual({key: outputs[key].shape for key in outputs}, {"y": (4, 1, 2, 5), "yh": (1, 2, 5)})
            np.testing.assert_array_equal(outputs["y"][-1], outputs["yh"])
            self.assertEqual(outputs["y"].dtype, np.float32)

    def test_column_major_input(self):
        self.run_model({"x": np.arange(24, dtype=np.float32).reshape(4, 2, 3) / 24, "h": self.arrays["h"]})
        with np.load(self.path("out.npz")) as outputs:
            expected = outputs["y"]
        self.run_model({"x": np.asfortranarray(np.arange(24, dtype=np.float32).reshape(4, 2, 3) / 24),
                        "h": self.arrays["h"]})
        with np.load(self.path("out.npz")) as outputs:
            np.testing.assert_array_equal(outputs["y"], expected)

    def test_missing_and_extra_keys(self):
        self.expect_error(self.run_model({"x": self.arrays["x"]}), "in.npz", "'h'", "'x'")
        self.expect_error(self.run_model({**self.arrays, "z": np.ones(1)}), "in.npz", "'z'", "'x', 'h'")

    def test_wrong_types(self):
        self.expect_error(self.run_model({**self.arrays, "x": np.ones((4, 2, 3))}), "'x'", "float64", "float32")
        self.expect_error(self.run_model({**self.arrays, "x": np.ones((4, 2, 3), np.float16)}), "'x'", "float16", "float32")
        self.expect_error(self.run_model({**self.arrays, "x": np.ones((4, 2, 3), np.uint16)}), "'x'", "'<u2'")
        self.expect_error(self.run_model({**self.arrays, "x": np.ones((4, 2, 3), ">f4")}), "'x'", "big-endian")

    def test_wrong_shapes(self):
        self.expect_error(self.run_model({**self.arrays, "x": np.ones((4, 2, 4), np.float32)}), "'x'", "[4, 2, 4]",
                          "[time, batch, 3]")
        self.expect_error(self.run_model({**self.arrays, "x": np.ones((4, 3), np.float32)}), "'x'", "[4, 3]")
        self.expect_error(self.run_model({**self.arrays, "h": np.zeros((1, 7, 5), np.float32)}), "'h'", "7", "'batch'",
                          "'x'", "2")

    def test_files_that_are_not_there_or_damaged(self):
        self.expect_error(hrnn("inspect", self.path("gone.onnx")), "gone.onnx", "No such file")
        self.expect_error(hrnn("inspect", self.folder.name), self.folder.name)
        result = hrnn("run", self.model(), "--inputs", self.path("gone.npz"), "--outputs", self.path("out.npz"))
        self.expect_error(result, "gone.npz")
        with open(self.path("bad.npz"), "wb") as file:
            file.write(b"PK\x03\x04 no zip at all")
        result = hrnn("run", self.model(), "--inputs", self.path("bad.npz"), "--outputs", self.path("out.npz"))
        self.expect_error(result, "bad.npz")
        self.assertFalse(os.path.exists(self.path("out.npz")))

    def test_outputs_that_cannot_be_written(self):
        np.savez(self.path("in.npz"), **self.arrays)
        result = hrnn("run", self.model(), "--inputs", self.path("in.npz"), "--outputs", self.path("no/folder/out.npz"))
        self.expect_error(result, "no/folder/out.npz")

    def test_models_that_are_wrong(self):
        self.expect_error(self.run_model(self.arrays, direction="sideways"), "net.onnx", "node 'layer' (GRU)",
                          "'direction'", "'sideways'")
        self.expect_error(self.run_model(self.arrays, opset=13, layout=1), "net.onnx", "'layout'", "opset 13")
        self.expect_error(self.run_model(self.arrays, hidden_size=6), "'hidden_size' is 6", "means 5")

    def test_every_usable_variant_can_be_forced(self):
        kernels = json.loads(hrnn("kernels", "--json").stdout)["kernels"]
        targets = {kernel["target"] for kernel in kernels if kernel["usable"]}
        self.assertTrue(targets)
        results = []
        for target in sorted(targets):
            self.assertEqual(self.run_model(self.arrays, "--variant", target).returncode, 0, target)
            with np.load(self.path("out.npz")) as outputs:
                results.append(outputs["y"])
        for result in results:
            np.testing.assert_allclose(result, results[0], atol=1e-6)
        self.expect_error(self.run_model(self.arrays, "--variant", "nonsense"), "nonsense")

    # ---- inspect, explain, kernels ----

    def test_inspect(self):
        attributes = {"linear_before_reset": 1, "clip": 3.0, "activations": ["HardSigmoid", "Elu"],
                      "activation_alpha": [0.25, 2.0], "activation_beta": [0.75]}
        text = hrnn("inspect", self.model(**attributes)).stdout
        for part in ("gru 3 -> 5, forward", "HardSigmoid(alpha=0.25, beta=0.75)", "Elu(alpha=2)", "clip 3", "opset 17",
                     "[time, batch, 3]"):
            self.assertIn(part, text)
        parsed = json.loads(hrnn("inspect", self.path("net.onnx"), "--json").stdout)
        self.assertEqual(parsed["inputs"][0], {"name": "x", "type": "float32", "dims": ["time", "batch", 3]})
        layer = parsed["layers"][0]
        self.assertEqual((layer["cell"], layer["hidden_size"], layer["clip"]), ("gru", 5, 3))
        self.assertEqual(layer["operands"]["initial_h"], "at run time")
        self.assertEqual(parsed["parameters"], 15 * 3 + 15 * 5)

    def test_explain(self):
        model = self.model()
        self.assertIn("because", hrnn("explain", model).stdout)
        small = json.loads(hrnn("explain", model, "--json").stdout)
        large = json.loads(hrnn("explain", model, "--json", "--dim", "batch=64", "--dim", "time=100").stdout)
        self.assertTrue(small["layers"][0]["reason"])
        self.assertGreater(large["memory"]["session_bytes"], small["memory"]["session_bytes"])
        team = json.loads(hrnn("explain", model, "--json", "--threads", "2").stdout)
        self.assertGreater(team["memory"]["session_bytes"], small["memory"]["session_bytes"])
        self.expect_error(hrnn("explain", model, "--threads", "0"), "--threads", "between 1 and 256")
        self.expect_error(hrnn("explain", model, "--dim", "depth=3"), "'depth'", "'time', 'batch'")

    def test_kernels(self):
        text = hrnn("kernels").stdout
        parsed = json.loads(hrnn("kernels", "--json").stdout)
        self.assertTrue(parsed["kernels"])
        for kernel in parsed["kernels"]:
            self.assertIn(kernel["symbol"], text)

    # ---- bench ----

    def bench(self, *arguments):
        result = hrnn("bench", "--json", "--rounds", "3", *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    def test_bench(self):
        with open(self.path("layers.txt"), "w") as file:
            file.write("# two layers\nsmall = gru:lbr:i8h8:b1:t1:fwd:f32\n\ngru:rbl:i64h256l2:b4:t20:bidi:f32  # large\n")
        report = self.bench(self.model(), self.path("layers.txt"), "--dim", "time=400", "--threads", "2")
        self.assertEqual([(row["name"], row["unit"], row["threads"]) for row in report["results"]],
                         [(self.path("net.onnx"), "run", 2), ("small", "step", 2),
                          ("gru:rbl:i64h256l2:b4:t20:bidi:f32", "step", 2)])
        model, small, large = report["results"]
        self.assertEqual(small["of"], "gru:lbr:i8h8:b1:t1:fwd:f32")
        for row in report["results"]:
            self.assertGreater(row["us"], 0)
            self.assertLessEqual(row["us_p10"], row["us"])
            self.assertLessEqual(row["us"], row["us_p90"])
            self.assertAlmostEqual(row["share"], row["limit_us"] / row["us"])
        self.assertGreater(large["us"], 20 * small["us"])
        self.assertGreater(model["us"], 20 * self.bench(self.model(), "--dim", "time=2")["results"][0]["us"])
        # What a step of 2 directions x 2 layers must compute: 4 rows x 3 gates x 256 units x (64 or 512 + 256) x 2, at the
        # peak that is told beside it, on 2 threads.
        flops = 2 * 4 * 3 * 256 * 2 * (64 + 256 + 512 + 256)
        at_peak = flops / (2 * max(report["limits"]["gflops"].values()) * 1e3)
        self.assertGreater(large["limit_us"], 0.5 * at_peak)
        self.assertLess(large["limit_us"], 4 * at_peak)
        self.assertEqual([level["level"] for level in report["limits"]["read"]][-1], "DRAM")

    def test_bench_as_text(self):
        result = hrnn("bench", "--rounds", "1", "name = rnn:tanh:i8h8:b1:t3:rev:f32", "--variant", "rnn.f32.sse41")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("| name | rnn.f32.sse41 | step |", result.stdout)
        self.assertIn("GFLOP/s", result.stdout)

    def test_bench_made_up_inputs(self):
        model = gru_model()
        model.graph.node[0].input[4] = "lengths"
        model.graph.input.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]))
        onnx.save(model, self.path("net.onnx"))
        self.expect_error(hrnn("bench", self.path("net.onnx")), "'lengths'", "int32", "--inputs")
        np.savez(self.path("in.npz"), lengths=np.array([4, 1], np.int32), **self.arrays)
        self.assertGreater(self.bench(self.path("net.onnx"), "--inputs", self.path("in.npz"))["results"][0]["us"], 0)
        np.savez(self.path("in.npz"), **self.arrays)
        self.expect_error(hrnn("bench", self.path("net.onnx"), "--inputs", self.path("in.npz")), "in.npz", "'lengths'")

    def test_bench_errors(self):
        model = self.model()
        self.expect_error(hrnn("bench", model, "--dim", "depth=3"), "'depth'", "'time', 'batch'")
        self.expect_error(hrnn("bench", model, "--variant", "avx9"), "net.onnx", "avx9")
        self.expect_error(hrnn("bench", self.path("gone.onnx")), "gone.onnx", "No such file")
        self.expect_error(hrnn("bench", "nothing"), "'nothing'")
        for descriptor, fault in (("gru:lbr:i8h8:b1:t1:fwd", "6 fields"), ("gru:lbr:i8h8:b1:t1:up:f32", "'up'"),
                                  ("lstm:lbr:i8h8:b1:t1:fwd:f32", "'lstm:lbr'"), ("gru:lbr:i8h8l0:b1:t1:fwd:f32", "'l0'"),
                                  ("gru:lbr:i8h8l2:b2:t1:fwd:f32:ragged", "one layer"),
                                  ("gru:lbr:i8h8:b1:t1:fwd:f64", "'f64'"), ("= gru:lbr:i8h8:b1:t1:fwd:f32", "no name")):
            self.expect_error(hrnn("bench", descriptor), fault)
        with open(self.path("layers.txt"), "w") as file:
            file.write("gru:lbr:i8h8:b1:t1:fwd:f32\n\nx = gru:lbr:i8:b1:t1:fwd:f32\n")
        self.expect_error(hrnn("bench", self.path("layers.txt")), "layers.txt:3:", "'h'")

    # ---- compile ----

    def test_compile_errors(self):
        model = self.model()
        self.expect_error(hrnn("compile", model, "-o", self.path("out"), "--name", "not-a-name"), "'not-a-name'",
                          "--name")
        self.expect_error(hrnn("compile", model, "-o", self.path("out"), "--targets", "vax"), "vax")
        self.assertEqual(hrnn("compile", model).returncode, 2)


if __name__ == "__main__":
    unittest.main()

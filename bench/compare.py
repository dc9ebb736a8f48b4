# SPDX-License-Identifier: Apache-2.0
"""Measures hrnn next to ONNX Runtime, one thread each, and prints a Markdown table.

Both run pinned to the same core, in turns of a few milliseconds: what disturbs one disturbs the other. First their
outputs are compared. Then the time of one step is the median of the turns, of time that the processes really ran.

The share of the limit is the time that a step would take at the core's own limits, measured in the same turns:
multiply-adds at the peak rate of the instruction set, weights read at the bandwidth of a buffer of their size. It can
pass 100 % where a large buffer is read slower than the weights are.

ONNX Runtime is called through its Python interface, the faster way of two: with inputs and outputs bound once, or with
arrays at each call.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

try:
    import onnx
    import onnxruntime as ort
except ImportError as error:
    sys.exit(f"compare: {error}: install cmake/requirements-bench.txt into this Python's environment")

TOLERANCE = 1e-5
BURST_SECONDS = 0.003
LOOK_SECONDS = 0.00005  # between two looks at the clock


class Bench:
    """bench_gru, waiting for commands."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *words):
        try:
            print(*words, file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            sys.exit(f"compare: {' '.join(words)}: bench_gru ended (its message stands above)")
        return json.loads(answer)


def tensor_info(name, *shape):
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def serialized(nodes, inputs, outputs, weights=()):
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in weights]
    graph = onnx.helper.make_graph(nodes, "peer", inputs, outputs, tensors)
    opset = onnx.helper.make_opsetid("", 14)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def layer_model(layer, directory):
    """The layer that bench_gru wrote: all its states from zeros, or, streaming, a state that comes in and goes out."""
    gates = 1 if layer["cell"] == "rnn" else 3
    d, i, h, t, b = (layer[name] for name in ("directions", "input", "hidden", "time", "batch"))
    weights = [
        (name, np.fromfile(directory / name.lower(), np.float32).reshape(shape))
        for name, shape in (("W", (d, gates * h, i)), ("R", (d, gates * h, h)), ("B", (d, 2 * gates * h)))
    ]
    direction = "bidirectional" if d == 2 else "reverse" if layer["reverse"] else "forward"
    attributes = {"hidden_size": h, "direction": direction}
    if gates == 3:
        attributes["linear_before_reset"] = int(layer["cell"] == "gru")
    inputs, outputs = [tensor_info("X", t, b, i)], [tensor_info("Y", t, d, b, h)]
    names = ["X", "W", "R", "B"], ["Y"]
    if layer["streaming"]:
        inputs, outputs = [*inputs, tensor_info("H", d, b, h)], [tensor_info("Y", d, b, h)]
        names = ["X", "W", "R", "B", "", "H"], ["", "Y"]
    if layer["lengths"]:
        weights.append(("lengths", np.array(layer["lengths"], np.int32)))
        names[0][4:] = ["lengths"]
    node = onnx.helper.make_node("RNN" if gates == 1 else "GRU", *names, **attributes)
    return serialized([node], inputs, outputs, weights)


class Peer:
    """The same layer in ONNX Runtime."""

    def __init__(self, layer, directory):
        d, h, t, b = (layer[name] for name in ("directions", "hidden", "time", "batch"))
        self.streaming, self.steps = layer["streaming"], layer["steps"]
        self.session = self.open(layer_model(layer, directory))
        self.x = np.fromfile(directory / "x", np.float32).reshape(t, b, layer["input"])
        self.state = np.zeros((d, b, h), np.float32)

        # Streaming alternates between two states, each bound as the output of one call and the input of the next.
        shape = (d, b, h) if self.streaming else (t, d, b, h)
        bound = [ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)) for _ in range(1 + self.streaming)]
        self.bindings = []
        for call, output in enumerate(bound):
            binding = self.session.io_binding()
            binding.bind_ortvalue_input("X", ort.OrtValue.ortvalue_from_numpy(self.x))
            if self.streaming:
                binding.bind_ortvalue_input("H", bound[1 - call])
            binding.bind_ortvalue_output("Y", output)
            self.bindings.append(binding)

    def output(self):
        """What the first run gives, from zeros."""
        return self.session.run(None, {"X": self.x, **({"H": self.state} if self.streaming else {})})[0]

    def choose(self):
        """Takes the faster way of calling."""
        self.run = min(
            (self.run_bound, self.run_plain),
            key=lambda run: statistics.median(self.burst(run) for _ in range(5)),
        )

    @staticmethod
    def open(model):
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run_bound(self):
        self.session.run_with_iobinding(self.bindings[0])
        self.bindings.reverse()

    def run_plain(self):
        if self.streaming:
            (self.state,) = self.session.run(None, {"X": self.x, "H": self.state})
        else:
            self.session.run(None, {"X": self.x})

    def burst(self, run=None):
        """Microseconds a step: the median of the runs of one turn, after one that warms the caches again."""
        run = run or self.run
        begin = time.process_time()
        run()
        last = time.process_time()
        if last - begin > 4 * BURST_SECONDS:
            return (last - begin) / self.steps * 1e6
        runs = range(1 + int(LOOK_SECONDS / (last - begin)))
        end = last + BURST_SECONDS
        times = []
        while last < end:
            for _ in runs:
                run()
            at = time.process_time()
            times.append((at - last) / len(runs))
            last = at
        return statistics.median(times) / self.steps * 1e6


def call_overhead():
    """Microseconds that a call of ONNX Runtime takes from Python when there is nothing to do."""
    identity = onnx.helper.make_node("Identity", ["X"], ["Y"])
    session = Peer.open(serialized([identity], [tensor_info("X", 1)], [tensor_info("Y", 1)]))
    binding = session.io_binding()
    binding.bind_cpu_input("X", np.zeros(1, np.float32))
    binding.bind_output("Y")
    calls = 2000
    begin = time.process_time()
    for _ in range(calls):
        session.run_with_iobinding(binding)
    return (time.process_time() - begin) / calls * 1e6


def measure(bench, descriptor, directory, seconds):
    layer = bench.ask("problem", descriptor, str(directory))
    peer = Peer(layer, directory)
    difference = float(np.abs(np.fromfile(directory / "y", np.float32) - peer.output().ravel()).max())
    if not difference <= TOLERANCE:
        sys.exit(
            f"compare: {descriptor}: {layer['variant']} and ONNX Runtime differ by {difference:.1e}, more than "
            f"{TOLERANCE:.0e}: one of them is wrong, so nothing is measured"
        )
    peer.choose()
    ours, floors, theirs = [], [], []
    end = time.perf_counter() + seconds
    while len(ours) < 5 or (len(ours) < 51 and time.perf_counter() < end):
        sample = bench.ask("burst")
        ours.append(sample["us"])
        floors.append(sample["floor"])
        theirs.append(peer.burst())
    us, peer_us = statistics.median(ours), statistics.median(theirs)
    return {
        "problem": descriptor,
        **layer,
        "us": us,
        "gflops": layer["flops"] / us / 1e3,
        "share": statistics.median(floors) / us,
        "peer_us": peer_us,
        "ratio": peer_us / us,
        "difference": difference,
    }


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def read_problems(arguments):
    """Descriptors, and those in files: one a line, # begins a comment. bench_gru checks them."""
    lines = []
    for argument in arguments:
        lines += [argument] if ":" in argument else pathlib.Path(argument).read_text().splitlines()
    return [line for line in (line.split("#")[0].strip() for line in lines) if line]


def number(value):
    return f"{value:.3f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def limits_line(limits):
    parts = [f"{isa} {value:.1f} GFLOP/s" for isa, value in limits["gflops"].items()]
    parts += [f"{level['level']} {level['gbs']:.1f} GB/s" for level in limits["read"]]
    return ", ".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="+", help="descriptors, or files with one a line (bench/problems)")
    parser.add_argument("--bench", required=True, help="the program bench_gru")
    parser.add_argument("--variant", default="", help="force a variant of hrnn (avx2, gru.f32.avx512, ...)")
    parser.add_argument("--core", type=int, help="the core to use (default: the last one)")
    parser.add_argument("--seconds", type=float, default=3, help="for each problem (default: %(default)s)")
    parser.add_argument("--json", help="also write all figures to this file")
    args = parser.parse_args()
    problems = read_problems(args.problems)

    core = args.core if args.core is not None else max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})  # inherited by bench_gru and by every thread made from here on
    bench = Bench([args.bench, "--serve", *(["--variant", args.variant] if args.variant else [])])
    limits = bench.ask("limits")
    print(f"{cpu_name()}, core {core}, one thread. Limits: {limits_line(limits)}.")
    print(f"ONNX Runtime {ort.__version__}; a call of it from Python with nothing to do: {call_overhead():.1f} us.\n")
    columns = ["T", "lengths", "B", "I", "H", "variant", "us/step", "GFLOP/s", "share of limit", "ONNX Runtime us/step", "ratio"]
    print("| " + " | ".join([*columns, "largest difference"]) + " |")
    print("|--:|---|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|", flush=True)
    results = []
    for descriptor in problems:
        with tempfile.TemporaryDirectory() as directory:
            r = measure(bench, descriptor, pathlib.Path(directory), args.seconds)
        results.append(r)
        cells = [r["time"], "ragged" if r["lengths"] else "full", r["batch"], r["input"], r["hidden"], r["variant"], number(r["us"]), f"{r['gflops']:.1f}"]
        cells += [f"{100 * r['share']:.0f} %", number(r["peer_us"]), f"{r['ratio']:.2f}", f"{r['difference']:.0e}"]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    if args.json:
        report = {"cpu": cpu_name(), "limits": limits, "results": results}
        pathlib.Path(args.json).write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()

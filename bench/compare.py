# SPDX-License-Identifier: Apache-2.0
"""Measures hrnn next to other engines and keeps the figures as JSON, for report.py.

hrnn and its peers are programs of their own on the same cores, which take turns of a few milliseconds: what disturbs one
disturbs all. First their outputs are compared; a peer whose differ is not timed. Then the time of one step is the median of
the turns: of time that the program really ran, or with several threads of time on the wall.

The share of the limit is the time that a step would take at the cores' own limits, measured in the same turns:
multiply-adds at the peak rate of the instruction set, weights read at the bandwidth of a buffer of their size. It can
pass 100 % where a large buffer is read slower than the weights are.

`DESCRIPTOR # beside OTHER` has hrnn compute another layer in the same turns, on the same cores: ratios of two layers are as
good as those to a peer.

A run that is cut short, or stops after --budget, goes on where it was when it is started again.
"""

import argparse
import hashlib
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx

PROBLEMS = pathlib.Path(__file__).parent / "problems"
GRID = ["stream", "sequence", "small_batch", "batch", "rnn", "parallel", "ragged", "reset", "workloads"]
TOLERANCE = 1e-5
DISTURBED = 0.05  # where other programs take more of the cores than this share, turns are taken again,
TRIES = 3  # times at most
POOL_SECONDS = 0.02  # a pool of threads spins for so long before it sleeps
MORE_TO_DO = 3  # exit status when the budget is used up


class Ended(Exception):
    pass


class Program:
    """hrnn or a peer, waiting for commands."""

    def __init__(self, command, cores):
        environment = {**os.environ, "OMP_NUM_THREADS": str(len(cores)), "OMP_PROC_BIND": "false"}
        self.command = command
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),  # inherited by every thread it makes
        )

    def ask(self, *words):
        try:
            print(*words, file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise Ended(f"{pathlib.Path(self.command[0]).name} ended at '{' '.join(words)}'")
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


# ---- The layer as a model, for the engines that read one ----


def tensor_info(name, *shape):
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def write_model(layer, directory):
    """layer.onnx: all its states from zeros, or, streaming, a state that comes in and goes out."""
    gates = 1 if layer["cell"] == "rnn" else 3
    d, h, t, b, layers = (layer[name] for name in ("directions", "hidden", "time", "batch", "layers"))
    arrays = {name: np.fromfile(directory / name, np.float32) for name in "wrb"}
    direction = "bidirectional" if d == 2 else "reverse" if layer["reverse"] else "forward"
    attributes = {"hidden_size": h, "direction": direction}
    if gates == 3:
        attributes["linear_before_reset"] = int(layer["cell"] == "gru")
    nodes, weights = [], []
    x, i = "X", layer["input"]
    for index in range(layers):
        shapes = {"w": (d, gates * h, i), "r": (d, gates * h, h), "b": (d, 2 * gates * h)}
        for name, shape in shapes.items():
            values, arrays[name] = np.split(arrays[name], [int(np.prod(shape))])
            weights.append((f"{name}{index}", values.reshape(shape)))
        inputs = [x, f"w{index}", f"r{index}", f"b{index}"]
        if layer["lengths"]:
            weights.append(("lengths", np.array(layer["lengths"], np.int32)))
            inputs.append("lengths")
        operator = "RNN" if gates == 1 else "GRU"
        if layer["streaming"]:  # forward, one step: a state is an input of the next layer as it is
            nodes.append(onnx.helper.make_node(operator, [*inputs, "", f"before{index}"], ["", f"after{index}"], **attributes))
            x, i = f"after{index}", h
            continue
        y = "Y" if index == layers - 1 else f"y{index}"
        nodes.append(onnx.helper.make_node(operator, inputs, [y], **attributes))
        if y != "Y":  # [time, directions, batch, hidden] as [time, batch, directions * hidden]
            nodes.append(onnx.helper.make_node("Transpose", [y], [f"turned{index}"], perm=[0, 2, 1, 3]))
            weights.append((f"shape{index}", np.array([t, b, d * h])))
            nodes.append(onnx.helper.make_node("Reshape", [f"turned{index}", f"shape{index}"], [f"x{index}"]))
            x, i = f"x{index}", d * h
    inputs, outputs = [tensor_info("X", t, b, layer["input"])], [tensor_info("Y", t, d, b, h)]
    if layer["streaming"]:
        inputs, outputs = [*inputs, tensor_info("H", layers, b, h)], [tensor_info("Y", layers, b, h)]
        nodes.insert(0, onnx.helper.make_node("Split", ["H"], [f"before{index}" for index in range(layers)], axis=0))
        nodes.append(onnx.helper.make_node("Concat", [f"after{index}" for index in range(layers)], ["Y"], axis=0))
        if layers == 1:  # nothing between the layer and what is bound to it
            nodes = [nodes[1]]
            nodes[0].input[5], nodes[0].output[1] = "H", "Y"
    graph = onnx.helper.make_graph(
        nodes, "layer", inputs, outputs, [onnx.numpy_helper.from_array(array, name) for name, array in weights]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    onnx.save(model, directory / "layer.onnx")


# ---- Measuring ----


class Table:
    """hrnn and its peers on the same cores."""

    def __init__(self, args, threads):
        self.threads, cores = threads, set(args.cores[:threads])
        self.commands = {name: [path] for name, path in args.peers.items()}
        self.cores, self.peers = cores, {}
        self.serve = [args.hrnn, "bench", "--serve", *(["--variant", args.variant] if args.variant else [])]
        self.hrnn, self.beside = Program(self.serve, cores), None

    def peer(self, name):
        if name not in self.peers:
            self.peers[name] = Program(self.commands[name], self.cores)
        return self.peers[name]

    def open_beside(self, problem, directory):
        if self.beside is None:
            self.beside = Program(self.serve, self.cores)
        directory.mkdir()
        self.beside.ask("problem", problem, str(directory), str(self.threads))

    def open(self, layer, directory):
        """What each peer says to the layer that hrnn wrote."""
        (directory / "problem.json").write_text(json.dumps(layer))
        expected = np.fromfile(directory / "y", np.float32)
        answers = {}
        for name in self.commands:
            (directory / "y").unlink(missing_ok=True)
            try:
                answer = self.peer(name).ask("open", str(directory))
            except Ended as why:
                answer = {"refused": str(why)}
                del self.peers[name]
            if "refused" not in answer:
                y = np.fromfile(directory / "y", np.float32)[-len(expected):]  # streaming, the last layer's state
                difference = float(np.abs(expected - y).max())
                answer["difference"] = difference
                if not difference <= TOLERANCE:
                    answer["refused"] = f"its output differs by {difference:.1e}, more than {TOLERANCE:.0e}: not timed"
            answers[name] = answer
        return answers

    def turn(self, program):
        if self.threads > 1:
            time.sleep(POOL_SECONDS)
        return program.ask("burst")

    def programs(self):
        return [self.hrnn, *([self.beside] if self.beside else []), *self.peers.values()]

    def close(self):
        for program in self.programs():
            program.close()


class Others:
    """The share of the cores' time that goes to programs that are none of ours."""

    def __init__(self, table):
        self.table, self.begin = table, time.perf_counter()
        self.busy, self.own = self.look()

    def look(self):
        names = {f"cpu{core}" for core in self.table.cores}
        lines = [line.split() for line in pathlib.Path("/proc/stat").read_text().splitlines()]
        busy = sum(sum(map(int, line[1:9])) - int(line[4]) - int(line[5]) for line in lines if line[0] in names)
        pids = [os.getpid(), *(program.process.pid for program in self.table.programs())]
        fields = [pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids]
        return busy, sum(int(field[11]) + int(field[12]) for field in fields)

    def share(self):
        busy, own = self.look()
        ticks = (time.perf_counter() - self.begin) * os.sysconf("SC_CLK_TCK") * len(self.table.cores)
        return max(0.0, (busy - self.busy - (own - self.own)) / ticks)


def measure(table, problem, beside, directory, seconds):
    layer = table.hrnn.ask("problem", problem, str(directory), str(table.threads))
    write_model(layer, directory)
    answers = table.open(layer, directory)
    if beside:
        table.open_beside(beside, directory / "beside")
    rows = []
    while len(rows) < TRIES and (not rows or disturbed(rows[-1])):
        others = Others(table)
        row = take_turns(table, layer, answers, bool(beside), seconds)
        rows.append({**row, "others": others.share()})
    return min(rows, key=lambda row: row["others"])


def disturbed(row):
    return row["others"] > DISTURBED


def take_turns(table, layer, answers, beside, seconds):
    timed = [name for name, answer in answers.items() if "refused" not in answer]
    samples, times, ratios = [], {name: [] for name in timed}, []
    begin = time.perf_counter()
    while True:
        samples.append(table.turn(table.hrnn))
        if beside:
            ratios.append(samples[-1]["us"] / table.turn(table.beside)["us"])
        for name in timed:
            times[name].append(table.turn(table.peer(name))["us"])
        spent, rounds = time.perf_counter() - begin, len(samples)
        if rounds >= 51 or (rounds >= 5 and spent > seconds) or (rounds >= 2 and spent > 6 * seconds):
            break
    ours = [sample["us"] for sample in samples]
    row = {
        **layer,
        "us": statistics.median(ours),
        "quartiles": list(np.quantile(ours, [0.25, 0.75])),
        "floor": statistics.median(sample["floor"] for sample in samples),
        "peak": statistics.median(sample["gflops"] for sample in samples),
        "gbs": statistics.median(sample["gbs"] for sample in samples),
        "rounds": rounds,
        "peers": {name: dict(answer) for name, answer in answers.items()},
    }
    if beside:
        row["to_beside"] = statistics.median(ratios)
    row["gflops"] = layer["flops"] / row["us"] / 1e3
    row["share"] = row["floor"] / row["us"]  # on a GPU there is no limit to compare with: 0
    for name in timed:
        us = statistics.median(times[name])
        row["peers"][name].update(us=us, ratio=us / row["us"])
    return row


# ---- What is measured, and where it is kept ----


def read_problems(path):
    """(name, descriptor, descriptor of what is computed beside it or "", threads) a line; `# threads: 1 2` says for the lines
    after it. hrnn checks the rest."""
    threads = [1]
    for line in path.read_text().splitlines():
        directive = re.fullmatch(r"# threads:((?: \d+)+)", line.strip())
        if directive:
            threads = [int(count) for count in directive[1].split()]
        line, _, comment = line.partition("#")
        beside = re.fullmatch(r" beside (\S+)", comment.rstrip())
        if line.strip():
            name, _, descriptor = line.rpartition("=")
            yield from ((name.strip(), descriptor.strip(), beside[1] if beside else "", count) for count in threads)


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def fingerprint(args, versions):
    """Figures of one of these stay together."""
    binary = hashlib.sha256(pathlib.Path(args.hrnn).read_bytes()).hexdigest()[:16]
    return {"hrnn": binary, "peers": versions, "cpu": cpu_name(), "variant": args.variant}


def stored(path, key):
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError):
        report = {}
    return report if report.get("key") == key else {"key": key, "rows": []}


def keep(rows, row):
    """In place of what was measured before, where that was disturbed more."""
    before = [other for other in rows if (other["problem"], other["threads"]) == (row["problem"], row["threads"])]
    if not before:
        rows.append(row)
    elif row["others"] < before[0]["others"]:
        rows[rows.index(before[0])] = row


def save(path, report):
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(report, indent=1))
    temporary.replace(path)


def number(value):
    return f"{value:.3f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def print_row(row, versions):
    ratios = [
        f"{name} {row['peers'][name]['ratio']:.2f}x" if "ratio" in row["peers"].get(name, {}) else f"{name} -"
        for name in versions
    ]
    name = f" ({row['name']})" if row["name"] else ""
    print(
        f"{row['problem']}{name}, threads {row['threads']}: {number(row['us'])} us, "
        + (f"{100 * row['share']:.0f} % of the limit; " if row["share"] else "")
        + ", ".join(ratios)
        + (f" (disturbed: other programs took {100 * row['others']:.0f} % of the cores)" if disturbed(row) else ""),
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", help="files of problems, or names of those in bench/problems (default: "
                        f"HRNN_BENCH_PROBLEMS of the environment, or {' '.join(GRID)})")
    parser.add_argument("--hrnn", required=True, help="the program hrnn")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PROGRAM", help="one of bench/peers")
    parser.add_argument("--results", type=pathlib.Path, required=True, help="folder for the figures, a file for each of problems")
    parser.add_argument("--variant", default="", help="force a variant of hrnn (avx2, gru.f32.avx512, ...)")
    parser.add_argument("--cores", default="", help="the cores to use, e.g. 0,1 (default: the last ones)")
    parser.add_argument("--seconds", type=float, default=1.5, help="for each problem, at least (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="measure again what other programs disturbed, once")
    parser.add_argument("--budget", type=float, default=float("inf"), help=f"stop after so many seconds with status {MORE_TO_DO}")
    args = parser.parse_args()
    usable = sorted(os.sched_getaffinity(0), reverse=True)
    args.cores = [int(core) for core in args.cores.split(",")] if args.cores else usable
    names = args.problems or os.environ.get("HRNN_BENCH_PROBLEMS", "").split() or GRID
    files = [pathlib.Path(name) if name.endswith(".txt") else PROBLEMS / f"{name}.txt" for name in names]
    args.peers = dict(peer.split("=", 1) for peer in args.peer)
    end = time.perf_counter() + args.budget
    args.results.mkdir(parents=True, exist_ok=True)

    versions = {}
    for name, path in list(args.peers.items()):
        try:
            program = Program([path], set(args.cores))
            versions[name] = program.ask("version")["version"]
            program.close()
        except (Ended, OSError) as why:
            print(f"compare: {name} is left out: {why}", file=sys.stderr)
            del args.peers[name]
    key = fingerprint(args, versions)
    work = []  # (file of results, its report, name, descriptor, what is beside it, threads)
    for path in files:
        to = args.results / f"{path.stem}.json"
        report = stored(to, key)
        done = {(row["problem"], row["threads"]) for row in report["rows"] if not (args.again and disturbed(row))}
        for name, descriptor, beside, threads in read_problems(path):
            if threads > len(args.cores):
                print(f"compare: {descriptor} on {threads} threads is left out: there are {len(args.cores)} cores", file=sys.stderr)
            elif (descriptor, threads) not in done:
                work.append((to, report, name, descriptor, beside, threads))
                done.add((descriptor, threads))
    if not work:
        return

    limits_file = args.results / "limits.json"
    if "limits" not in stored(limits_file, key):
        program = Program([args.hrnn, "bench", "--serve"], set(args.cores))
        save(limits_file, {"key": key, "cores": len(args.cores), "limits": program.ask("limits")})
        program.close()

    # One number of threads after the other: the programs' pools are made for it.
    for threads in sorted({item[-1] for item in work}):
        table = Table(args, threads)
        for to, report, name, descriptor, beside, count in work:
            if count != threads:
                continue
            if time.perf_counter() > end:
                table.close()
                sys.exit(MORE_TO_DO)
            with tempfile.TemporaryDirectory() as directory:
                row = measure(table, descriptor, beside, pathlib.Path(directory), args.seconds)
                row = {"problem": descriptor, "name": name, **row}
            keep(report["rows"], row)
            save(to, report)
            print_row(row, versions)
        table.close()


if __name__ == "__main__":
    try:
        main()
    except Ended as why:
        sys.exit(f"compare: {why} (its message stands above)")

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs every case of docs/compatibility.md through `hrnn run`, and compares the page's tables with what came out.

    compatibility.py HRNN [--write]

Counts, versions and messages must be the page's; an error may differ by one power of ten from machine to machine. A wrong
number is a failure whatever the page says. --write puts the tables of this run into the page. The table about ONNX
Runtime is compared only where the version that the page names is installed.
"""
import collections
import pathlib
import re
import sys
import tempfile

import numpy as np
import onnx

import attribute_cases
import common
import exported_models
import loop_models

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "compatibility.md"


class Tally:
    """Cases, and the largest error of those that passed; what could not be compiled, by message."""

    def __init__(self):
        self.passed, self.cases, self.error, self.refused = 0, 0, 0.0, collections.Counter()

    def add(self, error, refusal=None):
        self.cases += 1
        if refusal:
            self.refused[refusal] += 1
        else:
            self.passed += 1
            self.error = max(self.error, error)

    def cells(self):
        refused = "; ".join(f"{text} ({count})" if self.cases > 1 else text for text, count in sorted(self.refused.items()))
        return f"{self.passed} of {self.cases} | {bound(self.error) if self.passed else '-'} | {refused}"


def bound(error):
    """The power of ten above it, or 0."""
    return "0" if error == 0 else f"1e{int(np.ceil(np.log10(error)))}"


def relative_error(got, want):
    """Of the largest value, or of one where all are smaller; infinite where names, shapes or NaNs differ."""
    if set(got) != set(want) or any(got[name].shape != value.shape for name, value in want.items()):
        return np.inf
    worst = 0.0
    for name, value in want.items():
        if value.size:
            worst = np.maximum(worst, np.max(np.abs(got[name].astype(np.float64) - value)) / max(1.0, np.max(np.abs(value))))
    return worst if np.isfinite(worst) else np.inf


def refusal_of(message):
    """What an error of the compiler is about: operators, or the words after the name of what they concern."""
    nodes = re.findall(r"^  (?:node '[^']*' \((\w+)\)|the (\w+) node)", message, re.M)
    if nodes:
        names = list(dict.fromkeys(a or b for a, b in nodes))
        roots = [name for name in names if name != "Loop"] or names
        return ", ".join(roots)
    return message.strip().split(": ", 2)[-1].rsplit(": ", 1)[-1].split(";")[0]


# ---- The attributes of RNN and GRU ----

def attribute_table(hrnn, failures):
    rows = collections.OrderedDict()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.onnx"
        for case in attribute_cases.all_cases():
            onnx.save(case.model(), path)
            error, refusal = 0.0, None
            try:
                error = relative_error(common.run(hrnn, path, case.inputs_by_name()), case.expected())
            except common.Refused as problem:
                refusal = refusal_of(problem.message)
            if error > attribute_cases.TOLERANCE[case.type]:
                failures.append(f"attribute case {case.seed} ({case.kind}, {case.type}): error {error:.1e}")
            for key in [("", "all"), *case.attributes()]:
                rows.setdefault(key, Tally()).add(error if case.type == "float32" or key[0] == "type" else 0.0, refusal)
    order = list(dict.fromkeys(name for name, _ in rows))
    lines = ["| attribute, input or output | value | passed | error up to | not supported |", "|---|---|--:|--:|---|"]
    for name in order:
        for (_, value), tally in sorted((item for item in rows.items() if item[0][0] == name), key=lambda item: item[0][1].zfill(2)):
            lines.append(f"| {name or 'all cases'} | {value} | {tally.cells()} |")
    return lines


# ---- The same cases through ONNX Runtime ----

def runtime_refuses(case):
    if case.type != "float32":
        return f"type {case.type}"
    if case.layout == 1:
        return "layout 1"
    return None if case.has_hidden_size else "hidden_size absent"


def runtime_deviates(case):
    takes = [name for name in case.names if name in ("Affine", "ThresholdedRelu")]
    if case.lists == "defaults" and takes:
        return "default alpha and beta of Affine or ThresholdedRelu (it takes 0)"
    if case.lists == "one for every activation":
        return "alpha and beta lists with a value for every activation (it takes them in order)"
    return "elsewhere"


def runtime_table(failures):
    try:
        import onnxruntime
    except ImportError:
        return None
    onnxruntime.set_default_logger_severity(4)
    counts = collections.Counter()
    errors = collections.defaultdict(float)
    for case in attribute_cases.all_cases():
        try:
            session = onnxruntime.InferenceSession(case.model().SerializeToString())
            got = dict(zip([output.name for output in session.get_outputs()], session.run(None, case.inputs_by_name())))
        except Exception:
            counts["refused: " + (runtime_refuses(case) or "other")] += 1
            continue
        error = relative_error(got, case.expected())
        agrees = error <= attribute_cases.TOLERANCE["float32"]
        key = "agrees" if agrees else "differs: " + runtime_deviates(case)
        counts[key] += 1
        errors[key] = max(errors[key], error)
    lines = [f"| ONNX Runtime {onnxruntime.__version__} | cases | difference up to |", "|---|--:|--:|"]
    lines += [f"| {key} | {count} | {bound(errors[key]) if key in errors else '-'} |" for key, count in sorted(counts.items())]
    return lines


# ---- Loops ----

def loop_table(hrnn, failures):
    with tempfile.TemporaryDirectory() as folder:
        checks = loop_models.run_all(hrnn, folder, quiet=True)
    failures += [f"loop: {name}: {text}" for name, text in checks.failed]
    return ["| loops | cases | error up to |", "|---|--:|--:|",
            f"| Loop and Scan that are a layer | {checks.computed} | {bound(checks.largest)} |",
            f"| loops that are none: the error names the reason | {checks.refusals} | - |"]


# ---- Exporters ----

EXPORTERS = {"torchscript": "torch.onnx.export(dynamo=False)", "dynamo": "torch.onnx.export(dynamo=True)",
             "keras_tensorflow": "Keras on TensorFlow", "keras_jax": "Keras on JAX",
             "tf_keras": "tf_keras (Keras 2), tf2onnx", "flax": "Flax cells in lax.scan", "mlx": "MLX, examples/mlx"}


def exporter_table(hrnn, failures):
    lines = ["| exporter | written by, opset | model | error up to | not supported |", "|---|---|---|--:|---|"]
    totals = []
    for prefix, title in EXPORTERS.items():
        total = Tally()
        for name, path, inputs, expected in exported_models.models(prefix):
            error, refusal, tally = 0.0, None, Tally()
            try:
                error = relative_error(common.run(hrnn, path, inputs), expected)
            except common.Refused as problem:
                refusal = refusal_of(problem.message)
            if error > exported_models.tolerance(expected):
                failures.append(f"exported model {name}: error {error:.1e}")
            tally.add(error, refusal)
            total.add(error, refusal)
            model = onnx.load(path, load_external_data=False)
            writer = f"{model.producer_name} {model.producer_version.split(' ')[0]}, {model.opset_import[0].version}"
            cells = tally.cells().split(" | ", 1)[1]
            lines.append(f"| {title} | {writer} | {name[len(prefix) + 1:].replace('_', ' ')} | {cells} |")
        totals.append(f"| {title} | {total.passed} of {total.cases} | {bound(total.error)} |")
    return ["| exporter | passed | error up to |", "|---|--:|--:|", *totals, "", *lines]


# ---- The page ----

def block(text, name):
    found = re.search(rf"(<!-- {name} -->\n)(.*?)(<!-- /{name} -->)", text, re.S)
    assert found, f"{PAGE} has no part between <!-- {name} --> and <!-- /{name} -->"
    return found


def same_line(page, run):
    """Equal but for errors, which may be one power of ten apart."""
    pattern = re.compile(r"(?<=\| )(0|1e[+-]?\d+)(?= \|)")
    if pattern.sub("E", page) != pattern.sub("E", run):
        return False
    pairs = zip(pattern.findall(page), pattern.findall(run))
    return all(a == b or ("0" in (a, b) and max(float(a), float(b)) < 1e-5) or
               (float(a) > 0 and float(b) > 0 and 0.09 < float(a) / float(b) < 11) for a, b in pairs)


def compare(text, name, lines):
    page = block(text, name).group(2).strip().split("\n")
    if name == "runtime" and lines is not None and page[0] != lines[0]:
        return []  # another version of ONNX Runtime than the page's
    if lines is None:
        return []
    differences = [f"the page has '{a}', the run '{b}'" for a, b in zip(page, lines) if not same_line(a, b)]
    if len(page) != len(lines):
        differences.append(f"the page has {len(page)} lines in '{name}', the run {len(lines)}")
    return differences


def main(hrnn, write):
    failures = []
    tables = {"attributes": attribute_table(hrnn, failures), "runtime": runtime_table(failures),
              "loops": loop_table(hrnn, failures), "exporters": exporter_table(hrnn, failures)}
    for failure in failures:
        print("FAILED", failure)
    text = PAGE.read_text()
    if write:
        for name, lines in tables.items():
            if lines is not None:
                found = block(text, name)
                text = text[:found.start(2)] + "\n" + "\n".join(lines) + "\n\n" + text[found.end(2):]
        PAGE.write_text(text)
        return len(failures) > 0
    differences = [line for name, lines in tables.items() for line in compare(text, name, lines)]
    for difference in differences[:20]:
        print("FAILED", difference)
    if differences:
        print(f"{len(differences)} differences; where they are right, run: {sys.argv[0]} {hrnn} --write")
    print(f"{len(failures)} wrong results, {len(differences)} differences from {PAGE.name}")
    return len(failures) + len(differences) > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], "--write" in sys.argv[2:]))

# SPDX-License-Identifier: Apache-2.0
"""Turns the figures of compare.py into reports: Markdown, one self-contained HTML page with plots, docs/performance.md.

    report.py build/bench/results --markdown report.md --html report.html
"""

import argparse
import dataclasses
import html
import io
import json
import pathlib
import re
import string
import sys

ORDER = ["stream", "sequence", "small_batch", "batch", "rnn", "parallel", "ragged", "reset", "workloads", "deepbench"]
TITLES = {
    "stream": "One step a call, one sequence",
    "sequence": "Whole sequences, one at a time",
    "small_batch": "A few sequences at once",
    "batch": "Batches",
    "rnn": "Vanilla RNN",
    "parallel": "Both directions, two layers",
    "ragged": "Sequences of different lengths",
    "reset": "Reset gate before the product",
    "workloads": "Layers of models that people run",
    "deepbench": "DeepBench, inference",
}
SHORT = {"onnxruntime": "ONNX Runtime", "onednn": "oneDNN", "openvino": "OpenVINO", "pytorch": "PyTorch"}


def number(value):
    return f"{value:.3f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


class Results:
    def __init__(self, folder):
        path = folder / "limits.json"
        if not path.exists():
            raise SystemExit(f"report: there are no results in {folder}")
        latest, self.files = json.loads(path.read_text()), {}
        self.key, self.limits = latest["key"], latest["limits"]
        for path in sorted(folder.glob("*.json")):
            report = json.loads(path.read_text())
            if report["key"] != self.key:
                print(f"report: {path} is left out: it was measured with another program or machine", file=sys.stderr)
            elif report.get("rows"):
                self.files[path.stem] = report["rows"]
        self.files = {name: self.files[name] for name in sorted(self.files, key=lambda n: (ORDER + [n]).index(n))}
        self.peers = list(self.key["peers"])
        self.rtneural = {}

    def rows(self, *files, **fields):
        """Rows of these files whose fields are these: a value, or what a value must satisfy."""
        def fits(row):
            return all(want(row[name]) if callable(want) else row[name] == want for name, want in fields.items())

        return [row for file in files for row in self.files.get(file, []) if fits(row)]


# ---- What is to be reached ----


@dataclasses.dataclass
class Goal:
    what: str
    bound: str  # "<= 1.25"
    cases: list  # (name, ratio)

    def reached(self, ratio):
        limit = float(self.bound.split()[1])
        return ratio <= limit if self.bound.startswith("<=") else ratio >= limit

    def count(self):
        return sum(self.reached(ratio) for _, ratio in self.cases)


def ratio_to(peer, row):
    return row["peers"].get(peer, {}).get("ratio")


def best_ratio(row):
    """Of the engines that have a fast call."""
    ratios = [ratio_to(peer, row) for peer in ("onnxruntime", "onednn", "openvino")]
    return min((ratio for ratio in ratios if ratio), default=None)


def case_name(row, cell=False):
    size = f"H={row['hidden']}"
    parts = [size if row["batch"] == 1 else f"B={row['batch']} {size}"]
    if row["directions"] == 2:
        parts.append("bidirectional")
    if row["layers"] > 1:
        parts.append(f"{row['layers']} layers")
    if row["time"] == 1:
        parts.append("T=1")
    return " ".join(parts)


def cases(rows, value):
    pairs = ((case_name(row), value(row)) for row in rows)
    return [(name, ratio) for name, ratio in pairs if ratio is not None]


def one_and_two_threads(rows):
    """(row of one thread, row of two) of each problem."""
    for row in rows:
        two = next((other for other in rows if (other["problem"], other["threads"]) == (row["problem"], 2)), None)
        if row["threads"] == 1 and two:
            yield row, two


def time_to_limit(row):
    return row["us"] / row["floor"]


def to_beside(row):
    """Time to that of the layer that was computed in the same turns."""
    return row.get("to_beside")


def share_of_peak(row):
    return row["gflops"] / row["peak"]


def layer_goals(r, name, single, small, batch, stream):
    """For a cell: rows of whole single sequences, few sequences, batches and single steps."""
    one = [row for row in single if row["threads"] == 1 and row["hidden"] >= 64]
    large = [row for row in one if row["held_in"] not in ("L1", "L2")]
    yield Goal(f"{name}, one step a call, H >= 128: time to limit", "<= 1.25",
               cases([row for row in stream if row["hidden"] >= 128], time_to_limit))
    yield Goal(f"{name}, one step a call, H = 256: the fastest engine's time to ours", ">= 2",
               cases([row for row in stream if row["hidden"] == 256], best_ratio))
    yield Goal(f"{name}, one step a call, H 16 to 64: the fastest engine's time to ours", ">= 5",
               cases([row for row in stream if 16 <= row["hidden"] <= 64], best_ratio))
    yield Goal(f"{name}, whole sequences: time to limit", "<= 1.2", cases(one, time_to_limit))
    yield Goal(f"{name}, whole sequences, weights larger than L2: time to limit", "<= 1.0", cases(large, time_to_limit))
    for peer, bound in (("onnxruntime", 1.3), ("onednn", 2), ("pytorch", 3)):
        yield Goal(f"{name}, whole sequences: {SHORT[peer]}'s time to ours", f">= {bound}",
                   cases(one, lambda row, peer=peer: ratio_to(peer, row)))
    two = [row for row in single if row["threads"] == 2 and row["hidden"] == 512]
    for peer, bound in (("onnxruntime", 1.3), ("onednn", 4)):
        yield Goal(f"{name}, two threads, H = 512: {SHORT[peer]}'s time on two threads to ours", f">= {bound}",
                   cases(two, lambda row, peer=peer: ratio_to(peer, row)))
    yield Goal(f"{name}, two threads: time to that of one (5 % are noise)", "<= 1.05",
               [(case_name(two), two["us"] / one["us"]) for one, two in one_and_two_threads(single)])
    yield Goal(f"{name}, B 2 to 8: time to limit", "<= 1.3", cases(small, time_to_limit))
    large = [row for row in batch if row["hidden"] >= 128]
    yield Goal(f"{name}, B 16 to 64, H >= 128: share of the multiply-add peak", ">= 0.85", cases(large, share_of_peak))
    yield Goal(f"{name}, B 16 to 64, H >= 128: oneDNN's time to ours", ">= 1",
               cases(large, lambda row: ratio_to("onednn", row)))


def goals(r):
    found = []
    if r.rtneural:
        found.append(Goal("GRU, one step a call: time to RTNeural's static layer (measured apart, in turns)", "<= 0.9",
                          [(f"H={hidden} T=1", ours / its) for hidden, (its, ours) in r.rtneural.items()]))
    if r.limits.get("call_ns"):
        found.append(Goal("a call of hrnn_stream that has nothing to do, ns", "<= 50", [("", r.limits["call_ns"])]))
    found += layer_goals(r, "GRU", r.rows("sequence"), r.rows("small_batch"), r.rows("batch"), r.rows("stream"))
    rnn = dict(cell="rnn")
    found += layer_goals(
        r, "RNN", r.rows("rnn", batch=1, time=100, **rnn), r.rows("rnn", batch=lambda b: 2 <= b <= 8, **rnn),
        r.rows("rnn", batch=lambda b: b >= 16, **rnn), r.rows("rnn", batch=1, time=1, **rnn))
    both = one_and_two_threads(r.rows("parallel"))
    found.append(Goal("directions and layers on two threads: one thread's time to theirs", ">= 1.8",
                      [(case_name(two), one["us"] / two["us"]) for one, two in both]))
    found.append(Goal("different lengths: time to that of as many steps in full batches", "<= 1.1", cases(r.rows("ragged"), to_beside)))
    found.append(Goal("GRU, reset before the product: time to reset after", "<= 1.3", cases(r.rows("reset"), to_beside)))
    return [goal for goal in found if goal.cases]


# ---- Tables: a header and rows of text, for both formats ----


@dataclasses.dataclass
class Table:
    header: list
    rows: list
    text_columns: int = 1  # the first ones; the others are numbers

    def markdown(self):
        rule = ["---"] * self.text_columns + ["--:"] * (len(self.header) - self.text_columns)
        return "\n".join("| " + " | ".join(cells) + " |" for cells in [self.header, rule, *self.rows])

    def html(self):
        def line(cells, tag):
            kinds = [' class="text"' if i < self.text_columns else "" for i in range(len(cells))]
            return "<tr>" + "".join(f"<{tag}{kind}>{html.escape(cell)}</{tag}>" for cell, kind in zip(cells, kinds)) + "</tr>"

        body = "".join(line(cells, "td") for cells in self.rows)
        return f'<div class="wide"><table><thead>{line(self.header, "th")}</thead><tbody>{body}</tbody></table></div>'


def layer_text(row):
    cell = {"gru": "GRU", "gru_reset_before": "GRU, reset before", "rnn": "RNN"}[row["cell"]]
    extra = "".join([f", {row['layers']} layers" if row["layers"] > 1 else "", ", bidirectional" if row["directions"] == 2 else "",
                     ", reverse" if row["reverse"] else "", ", lengths 1 to T" if row["lengths"] else ""])
    return cell + extra


def peer_text(answer):
    if answer is None or "ratio" not in answer:
        return "-"
    return f"{number(answer['us'])} ({answer['ratio']:.2f}x)"


def figures_table(r, rows):
    named, threaded = any(row["name"] for row in rows), any(row["threads"] > 1 for row in rows)
    header = (["Workload"] if named else []) + ["Layer", "T", "B", "I", "H"] + (["Threads"] if threaded else [])
    header += ["hrnn us", "of limit", "GFLOP/s", *(SHORT.get(peer, peer) for peer in r.peers), "Difference"]
    lines = []
    for row in rows:
        differences = [answer["difference"] for answer in row["peers"].values() if "difference" in answer]
        line = ([row["name"]] if named else []) + [layer_text(row)] + [str(row[name]) for name in ("time", "batch", "input", "hidden")]
        line += [str(row["threads"])] if threaded else []
        line += [number(row["us"]), f"{100 * row['share']:.0f} %", f"{row['gflops']:.1f}"]
        line += [peer_text(row["peers"].get(peer)) for peer in r.peers]
        lines.append(line + [f"{max(differences):.0e}" if differences else "-"])
    return Table(header, lines, 2 if named else 1)


def refusals(r):
    """Why a peer has no figure: {(peer, reason): how many}."""
    counts = {}
    for rows in r.files.values():
        for row in rows:
            for peer, answer in row["peers"].items():
                if "refused" in answer:
                    counts[peer, answer["refused"]] = counts.get((peer, answer["refused"]), 0) + 1
    return counts


def limits_table(limits):
    rows = [[f"multiply-add, float32, {isa}", f"{value:.1f} GFLOP/s"] for isa, value in limits["gflops"].items()]
    if limits["int8"]:
        rows.append([f"multiply-add, 8-bit integers, {limits['int8']['isa']}", f"{limits['int8']['gops']:.0f} GOP/s"])
    for level in limits["read"]:
        size = level["bytes"] / 1024
        text = f"{size:.0f} KiB" if size < 2048 else f"{size / 1024:.0f} MiB"
        rows.append([f"read from {level['level']} ({text})", f"{level['gbs']:.1f} GB/s"])
    if limits["flag_ns"]:
        rows.append(["until another core sees a flag", f"{limits['flag_ns']:.0f} ns"])
    if limits.get("call_ns"):
        rows.append(["a call of hrnn_stream that has nothing to do", f"{limits['call_ns']:.0f} ns"])
    return Table(["One core", "at best"], rows)


def goals_table(found):
    rows = []
    for goal in found:
        texts = [f"{name} {number(ratio) if ratio >= 10 else f'{ratio:.2f}'}{'' if goal.reached(ratio) else ' (no)'}".strip()
                 for name, ratio in goal.cases]
        verdict = "yes" if goal.count() == len(goal.cases) else f"{goal.count()} of {len(goal.cases)}"
        rows.append([goal.what, goal.bound.replace("<=", "≤").replace(">=", "≥"), verdict, ", ".join(texts)])
    return Table(["Ratio", "to reach", "reached", "measured"], rows, 4)


# ---- Plots ----

COLORS = {"hrnn": "#c2410c", "onnxruntime": "#2563eb", "onednn": "#0f766e", "openvino": "#7c3aed", "pytorch": "#6b7280"}


def plot_svg(draw, width=5.2, height=3.7):
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({
        "svg.fonttype": "none", "font.family": "sans-serif", "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
        "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e5e7eb",
        "axes.axisbelow": True, "legend.frameon": False, "svg.hashsalt": "hrnn"})
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    draw(axes)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    svg = text.getvalue()
    return svg[svg.index("<svg"):]


def draw_lines(axes, r, rows, x, scale, label, ticks_label):
    """Time against a size: hrnn, its limit, the peers."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    rows = sorted(rows, key=lambda row: row[x])
    sizes = [row[x] for row in rows]
    for peer in r.peers:
        points = [(row[x], row["peers"][peer]["us"] * scale(row)) for row in rows if "us" in row["peers"].get(peer, {})]
        if points:
            axes.plot(*zip(*points), marker="o", markersize=3.5, linewidth=1.3, color=COLORS.get(peer), label=SHORT.get(peer, peer))
    axes.plot(sizes, [row["us"] * scale(row) for row in rows], marker="o", markersize=4.5, linewidth=2.2, color=COLORS["hrnn"], label="hrnn")
    axes.plot(sizes, [row["floor"] * scale(row) for row in rows], linestyle=(0, (4, 3)), linewidth=1.4, color="black", label="limit")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes], rotation=45 if len(sizes) > 8 else 0)
    axes.minorticks_off()
    bottom, top = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if top / bottom < 300 else (1,), numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(ticks_label)
    axes.set_ylabel(label)
    axes.legend(fontsize=9)


def draw_roofline(axes, r, rows):
    """GFLOP/s against operations for a byte of weights read."""
    peak = max(r.limits["gflops"].values())
    bottom, top = 0.3, 200.0
    for level in r.limits["read"]:
        gbs, knee = level["gbs"], peak / level["gbs"]
        axes.plot([bottom, knee, top], [bottom * gbs, peak, peak], linewidth=1, color="#9ca3af")
        axes.annotate(level["level"], (bottom, bottom * gbs), textcoords="offset points", xytext=(-3, 0), ha="right", va="center",
                      fontsize=9, color="#4b5563")
    axes.annotate(f"{peak:.0f} GFLOP/s", (top, peak), textcoords="offset points", xytext=(-2, 4), ha="right", fontsize=9, color="#4b5563")

    def points(us):
        for row in rows:
            if us(row):
                weights = 4 * row["layers"] * row["directions"] * (1 if row["cell"] == "rnn" else 3) * row["hidden"] * (
                    row["hidden"] + (row["input"] if row["streaming"] else 0))
                yield row["flops"] / weights, row["flops"] / us(row) / 1e3

    for peer in r.peers:
        found = list(points(lambda row, peer=peer: row["peers"].get(peer, {}).get("us")))
        if found:
            axes.scatter(*zip(*found), s=14, color=COLORS.get(peer), alpha=0.55, linewidth=0, label=SHORT.get(peer, peer))
    axes.scatter(*zip(*points(lambda row: row["us"])), s=26, color=COLORS["hrnn"], linewidth=0, label="hrnn", zorder=3)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(bottom, top)
    axes.set_ylim(bottom=1)
    axes.set_xlabel("operations for each byte of weights read in a step")
    axes.set_ylabel("GFLOP/s", labelpad=14)
    axes.tick_params(axis="y", pad=22)
    axes.legend(loc="lower right", fontsize=9)


def plots(r):
    """(title, what it shows, svg)"""
    def lines(rows, x, label, ticks, scale=lambda row: 1):
        return plot_svg(lambda axes: draw_lines(axes, r, rows, x, scale, label, ticks))

    gru = dict(cell="gru", threads=1, layers=1, directions=1)
    found = []
    stream = r.rows("stream", **gru)
    if len(stream) > 1:
        found.append(("One step a call", "GRU, T = 1, B = 1, I = H, one thread; the state stays from call to call.",
                      lines(stream, "hidden", "microseconds a step", "hidden size H")))
    for threads in (1, 2):
        rows = r.rows("sequence", cell="gru", threads=threads)
        if len(rows) > 1:
            found.append((f"Whole sequences, {'one thread' if threads == 1 else 'two threads'}", "GRU, T = 100, B = 1, I = H.",
                          lines(rows, "hidden", "microseconds a step", "hidden size H")))
    for hidden in (128, 256, 512):
        rows = {row["batch"]: row for row in r.rows("sequence", "small_batch", "batch", hidden=hidden, time=100, **gru)}
        if len(rows) > 2:
            found.append((f"Batches, H = {hidden}", "GRU, T = 100, I = H, one thread: time for each sequence of the batch.",
                          lines(rows.values(), "batch", "microseconds a step and sequence", "batch size B", lambda row: 1 / row["batch"])))
    rows = r.rows("rnn", cell="rnn", batch=1, time=100, threads=1)
    if len(rows) > 1:
        found.append(("Vanilla RNN, whole sequences", "RNN (tanh), T = 100, B = 1, I = H, one thread.",
                      lines(rows, "hidden", "microseconds a step", "hidden size H")))
    rows = r.rows("stream", "sequence", "small_batch", "batch", **gru)
    if rows:
        found.append(("Roofline", "GRU, one thread: the lines are what one core can do with weights from each cache.",
                      plot_svg(lambda axes: draw_roofline(axes, r, rows))))
    return found


# ---- The reports ----


def cpu_line(r):
    sizes = [(size / 1024, "KiB") if size < 1 << 20 else (size / 1048576, "MiB") for size in r.limits.get("cache_bytes", []) if size]
    caches = "".join(f", L{level} {size:.0f} {unit}" for level, (size, unit) in enumerate(sizes, 1))
    return f"{r.key['cpu']}{caches}; " + ", ".join(r.key["peers"].values())


def explanation(r):
    return (
        "A time is for one step of all sequences of the batch, in microseconds: the median of turns of a few milliseconds that "
        "hrnn and the other engines take on the same cores. \"Of limit\" is the time that the step would take at the cores' own "
        "limits, measured in the same turns, to the time it took: multiply-adds at the peak rate, weights read once from the "
        "cache that holds them. It passes 100 % where part of the weights is found in a nearer cache. In parentheses: an "
        "engine's time to hrnn's. \"Difference\" is the largest one between the engines' outputs and hrnn's.")


def refusal_lines(r):
    noisy = sum(row["others"] > 0.05 for rows in r.files.values() for row in rows)
    if noisy:
        yield f"Other programs took more than 5 % of the cores while {noisy} of the figures were measured; compare.py --again measures those again."
    for (peer, reason), count in sorted(refusals(r).items()):
        yield f"{SHORT.get(peer, peer)} is not timed in {count} {'case' if count == 1 else 'cases'}: {reason}."


def markdown(r):
    parts = ["# hrnn next to other engines", cpu_line(r) + ".", limits_table(r.limits).markdown(), explanation(r)]
    found = goals(r)
    if found:
        parts += ["## Reached", goals_table(found).markdown()]
    for name, rows in r.files.items():
        parts += [f"## {TITLES.get(name, name)}", figures_table(r, rows).markdown()]
    parts += ["\n".join(f"- {line}" for line in refusal_lines(r))]
    return "\n\n".join(part for part in parts if part) + "\n"


def page(r):
    template = string.Template((pathlib.Path(__file__).parent / "report.html").read_text())
    found = goals(r)
    reached = sum(goal.count() == len(goal.cases) for goal in found)
    figures = "".join(
        f"<figure><h3>{html.escape(title)}</h3>{svg}<figcaption>{html.escape(what)}</figcaption></figure>" for title, what, svg in plots(r))
    tables = "".join(
        f"<details><summary>{html.escape(TITLES.get(name, name))} ({len(rows)})</summary>{figures_table(r, rows).html()}</details>"
        for name, rows in r.files.items())
    goal_rows = []
    for goal, row in zip(found, goals_table(found).rows):
        done = goal.count() == len(goal.cases)
        values = ", ".join(
            f'<span class="{"in" if goal.reached(ratio) else "out"}">{html.escape(name)} <b>{number(ratio) if ratio >= 10 else f"{ratio:.2f}"}</b></span>'
            for name, ratio in goal.cases)
        goal_rows.append(f'<tr class="{"yes" if done else "part"}"><td class="text">{html.escape(row[0])}</td><td>{html.escape(row[1])}</td>'
                         f'<td>{html.escape(row[2])}</td><td class="text">{values}</td></tr>')
    return template.substitute(
        cpu=html.escape(r.key["cpu"]), engines=html.escape(", ".join(r.key["peers"].values())), limits=limits_table(r.limits).html(),
        explanation=html.escape(explanation(r)), plots=figures, goals="".join(goal_rows), reached=reached, goal_count=len(found),
        tables=tables, refusals="".join(f"<li>{html.escape(line)}</li>" for line in refusal_lines(r)))


def document(r, path):
    """Fills in what stands between <!-- NAME --> and <!-- end --> in a document."""
    blocks = {
        "machine": cpu_line(r) + ".\n\n" + limits_table(r.limits).markdown(),
        "goals": goals_table(goals(r)).markdown(),
        "refusals": "\n".join(f"- {line}" for line in refusal_lines(r)),
        **{name: figures_table(r, rows).markdown() for name, rows in r.files.items()},
    }
    text = path.read_text()
    for name, block in blocks.items():
        text = re.sub(rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda match: f"{match[1]}\n{block}\n\n{match[2]}", text, flags=re.S)
    path.write_text(text)


def read_times(path):
    """Lines of "H, RTNeural's nanoseconds, hrnn's nanoseconds"."""
    times = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            hidden, its, ours = (float(word) for word in line.split())
        except ValueError:
            sys.exit(f"{path}, line {number}: '{line}' is not three numbers: H, RTNeural's nanoseconds and hrnn's")
        times[int(hidden)] = its, ours
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=pathlib.Path, help="the folder that compare.py filled")
    parser.add_argument("--markdown", type=pathlib.Path, help="write a report")
    parser.add_argument("--html", type=pathlib.Path, help="write a page with plots")
    parser.add_argument("--document", type=pathlib.Path, help="put the tables where this document has them (docs/performance.md)")
    parser.add_argument("--rtneural", type=pathlib.Path, help="times of RTNeural's GRU and of hrnn's, measured in turns on one core: H and both in nanoseconds a line")
    args = parser.parse_args()
    results = Results(args.results)
    if args.rtneural:
        results.rtneural = read_times(args.rtneural)
    for goal in goals(results):
        print(f"{goal.what}, to reach {goal.bound}: {goal.count()} of {len(goal.cases)}")
        print("    " + ", ".join(f"{name} {ratio:.2f}{'' if goal.reached(ratio) else ' (no)'}".strip() for name, ratio in goal.cases))
    if args.markdown:
        args.markdown.write_text(markdown(results))
        print(f"report: {args.markdown}")
    if args.html:
        args.html.write_text(page(results))
        print(f"page with plots: {args.html}")
    if args.document:
        document(results, args.document)


if __name__ == "__main__":
    main()

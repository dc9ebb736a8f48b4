# SPDX-License-Identifier: Apache-2.0
"""compare.py and report.py, with peers that answer as one that is right, one that is wrong and one that ends would.

    bench_test.py HRNN FOLDER
"""
import json
import pathlib
import stat
import subprocess
import sys
import tempfile
import textwrap
import unittest

FOLDER = pathlib.Path(sys.argv.pop(2))
HRNN = sys.argv.pop(1)

# The layer once more, step by step from the model that compare.py wrote for it.
PEER = """\
    #!{python}
    import json, pathlib, sys
    import numpy as np
    import onnx
    from onnx.reference import ReferenceEvaluator

    for line in sys.stdin:
        command, *folder = line.split()
        answer = {{"version": "Peer 1.0"}}
        if command == "open":
            folder = pathlib.Path(folder[0])
            layer = json.loads((folder / "problem.json").read_text())
            if "{kind}" == "ending" and layer["hidden"] == 9:
                sys.exit(1)
            model = ReferenceEvaluator(str(folder / "layer.onnx"))
            feed = {{"X": np.fromfile(folder / "x", np.float32).reshape(layer["time"], layer["batch"], layer["input"])}}
            if layer["streaming"]:
                feed["H"] = np.zeros((layer["layers"], layer["batch"], layer["hidden"]), np.float32)
            y = model.run(None, feed)[0]
            (y * {factor}).astype(np.float32).tofile(folder / "y")
            answer = {{}}
        elif command == "burst":
            answer = {{"us": 1000}}
        print(json.dumps(answer), flush=True)
"""

PROBLEMS = """\
    # Two problems on one thread
    first = gru:lbr:i5h9:b2:t1:fwd:f32
    gru:rbl:i5h8:b2:t4:fwd:f32  # beside gru:lbr:i5h200:b2:t4:fwd:f32
    stack = gru:lbr:i5h8l2:b1:t1:fwd:f32
"""


class Bench(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "small.txt").write_text(textwrap.dedent(PROBLEMS))

    def peer(self, kind, factor):
        path = self.folder / kind
        path.write_text(textwrap.dedent(PEER).format(python=sys.executable, kind=kind, factor=factor))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return ["--peer", f"{kind}={path}"]

    def script(self, name, *arguments):
        return subprocess.run([sys.executable, FOLDER / name, *arguments], capture_output=True, text=True, timeout=300)

    def compare(self, *arguments):
        return self.script("compare.py", "--hrnn", HRNN, "--results", self.folder / "results", "--seconds", "0.05", *arguments,
                           self.folder / "small.txt")

    def rows(self):
        return json.loads((self.folder / "results" / "small.json").read_text())["rows"]

    def write_rows(self, rows):
        path = self.folder / "results" / "small.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "rows": rows}))

    def test_measures_resumes_and_reports(self):
        peers = [*self.peer("right", 1), *self.peer("wrong", 1.01), *self.peer("ending", 1), "--peer", "gone=/nowhere"]
        result = self.compare(*peers, "--budget", "0")
        self.assertEqual((result.returncode, result.stdout), (3, ""), result.stderr)
        result = self.compare(*peers)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("gone is left out", result.stderr)
        rows = {row["name"]: row for row in self.rows()}
        self.assertEqual(set(rows), {"first", "", "stack"})
        for row in rows.values():
            self.assertAlmostEqual(row["peers"]["right"]["ratio"] * row["us"], 1000)
            self.assertLess(row["peers"]["right"]["difference"], 1e-5)
            self.assertIn("differs", row["peers"]["wrong"]["refused"])
            self.assertNotIn("us", row["peers"]["wrong"])
        self.assertGreater(rows[""]["to_beside"], 0)
        self.assertLess(rows[""]["to_beside"], 0.5)  # of 25 times as many units
        self.assertNotIn("to_beside", rows["first"])
        self.assertIn("ended", rows["first"]["peers"]["ending"]["refused"])
        self.assertIn("ratio", rows["stack"]["peers"]["ending"])  # started again

        # What is there is not measured again, unless others disturbed it and that is asked for.
        before = self.rows()
        result = self.compare(*peers)
        self.assertEqual((result.returncode, result.stdout, self.rows()), (0, "", before), result.stderr)
        before[1]["others"] = 2
        self.write_rows(before)
        self.assertIn(before[1]["problem"], self.compare(*peers, "--again").stdout)
        self.assertLess(self.rows()[1]["others"], 2)

        result = self.script("report.py", self.folder / "results", "--markdown", self.folder / "report.md")
        self.assertEqual(result.returncode, 0, result.stderr)
        text = (self.folder / "report.md").read_text()
        for part in ("| first | GRU | 1 | 2 | 5 | 9 |", "GRU, reset before", "GRU, 2 layers", "GFLOP/s", "Peer 1.0", "its output differs"):
            self.assertIn(part, text)

        # Figures of another build are not mixed in.
        other = {**json.loads((self.folder / "results" / "small.json").read_text()), "key": {}}
        (self.folder / "results" / "older.json").write_text(json.dumps(other))
        result = self.script("report.py", self.folder / "results", "--markdown", self.folder / "report.md")
        self.assertIn("older.json is left out", result.stderr)
        self.assertEqual((self.folder / "report.md").read_text(), text)

    def test_says_what_is_wrong(self):
        (self.folder / "small.txt").write_text("gru:lbr:i5h9:b2:t1:up:f32\n")
        result = self.compare()
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("'up'", result.stderr)
        (self.folder / "small.txt").write_text("gru:lbr:i5h9:b2:t1:fwd:f32  # beside gru:lbr:i5h9:b2:t1:down:f32\n")
        result = self.compare()
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("'down'", result.stderr)
        result = self.script("report.py", self.folder)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("no results", result.stderr)


if __name__ == "__main__":
    unittest.main()

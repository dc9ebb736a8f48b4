# SPDX-License-Identifier: Apache-2.0
"""hrnn tune as a user meets it: what is wrong with its arguments and files, and going on after a kill.

    tune_test.py HRNN
"""
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest

HRNN = sys.argv.pop(1)
PROBLEM = "rnn:tanh:i8h16:b1:t8:fwd:f32"


class Tune(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.database = self.path("samples.db")

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def command(self, *arguments):
        return [HRNN, "tune", *arguments, "--database", self.database, "--output", self.path("tuned"), "--variant", "sse41"]

    def tune(self, *arguments):
        result = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=300)
        # What a build with sanitizers says, now and then, of the stack that Halide compiles on.
        result.stderr = re.sub(r"==\d+==WARNING: ASan doesn't fully support makecontext.*\n", "", result.stderr)
        return result

    def expect(self, code, result, *parts):
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertTrue(result.stderr.startswith("hrnn: error: "), result.stderr)
        self.assertEqual(result.stdout, "")
        for part in parts:
            self.assertIn(part, result.stderr)

    def samples(self):
        connection = sqlite3.connect(self.database)
        try:
            return {row[:6]: row[6:] for row in connection.execute("SELECT * FROM sample")}
        except sqlite3.OperationalError:  # no table yet
            return {}
        finally:
            connection.close()

    def test_usage(self):
        self.expect(2, self.tune(), "DESCRIPTOR is required")
        self.expect(2, self.tune(PROBLEM, "--budget", "0"), "--budget: Value 0 not in range")
        self.expect(2, self.tune(PROBLEM, "--budget", "much"), "--budget")

    def test_wrong_problems_and_targets(self):
        self.expect(1, self.tune("gru:lbr:i64"), "problem 'gru:lbr:i64'", "3 fields instead of 7 or 8")
        self.expect(1, self.tune("gru:lbr:i64h64l2:b1:t50:fwd:f32"), "it has 2 layers; tiles are tuned on one")
        self.expect(1, self.tune("no_such_file"), "'no_such_file'")
        with open(self.path("empty.txt"), "w") as file:
            file.write("# nothing\n")
        self.expect(1, self.tune(self.path("empty.txt")), "no problem was given")
        for name, why in (("mmx", "no target is called 'mmx'"), ("cuda", "cuda")):
            command = [HRNN, "tune", PROBLEM, "--variant", name, "--database", self.database, "--output", self.path("tuned")]
            self.expect(1, subprocess.run(command, capture_output=True, text=True, timeout=60), why)

    def test_output_that_cannot_be_written(self):
        with open(self.path("tuned"), "w"):  # a file where the folder should be
            pass
        self.expect(1, self.tune(PROBLEM), self.path("tuned"), "--output")
        self.assertFalse(os.path.exists(self.database))  # said before anything is measured

    def test_files_that_are_damaged(self):
        with open(self.database, "wb") as file:
            file.write(b"this is no database" * 100)
        self.expect(1, self.tune(PROBLEM), self.database, "not a database", "--database")
        os.remove(self.database)
        os.makedirs(self.path("tuned"), exist_ok=True)
        with open(self.path("tuned/sse41.json"), "w") as file:
            file.write('{"target": "sse41", "tiles": [{"kind": "step", "gates": "three"}]}')
        self.expect(1, self.tune(PROBLEM), self.path("tuned/sse41.json"), "tiles[0]", "gates \"three\"")

    def test_goes_on_after_a_kill(self):
        process = subprocess.Popen(self.command(PROBLEM, "--budget", "200"), stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
            if os.path.exists(self.database) and len(self.samples()) >= 5:
                break
        self.assertIsNone(process.poll(), "it ended before it could be killed")
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = self.samples()
        self.assertGreaterEqual(len(before), 5)

        result = self.tune(PROBLEM, "--budget", "200", "--json")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        after = self.samples()
        self.assertGreater(len(after), len(before))
        for key, sample in before.items():
            self.assertEqual(after[key], sample)  # kept, not measured again
        answer = json.loads(result.stdout)
        self.assertTrue(answer["finished"])
        self.assertEqual(answer["target"], "sse41")
        self.assertGreater(len(answer["candidates"]), 0)
        for candidate in answer["candidates"]:
            self.assertIn(candidate["verdict"], ("faster", "no gain", "slower"))
            self.assertIn(PROBLEM, candidate["gain"])
        if answer["changes"]:
            with open(self.path("tuned/sse41.json")) as file:
                tiles = json.load(file)["tiles"]
            self.assertEqual([tile["tile"] for tile in tiles], [change["tile"] for change in answer["changes"]])
        else:
            self.assertFalse(os.path.exists(self.path("tuned/sse41.json")))


if __name__ == "__main__":
    unittest.main()

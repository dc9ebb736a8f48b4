# SPDX-License-Identifier: Apache-2.0
"""The instructions in the loops of products: sums stay in registers, and NEON multiplies by elements of a vector.

    loops_test.py ARCHIVE ...
"""
import pathlib
import shutil
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
import kernel_loops  # noqa: E402

ARCHIVES = sys.argv[1:]
del sys.argv[1:]


def tolerated_spills(kernel):
    """Accesses of the stack that are known of (docs/arm.md): a sum of one loop is spilled.

    The compiler keeps values for a long code that follows in registers, against all reason: on x86 for activations chosen at
    run time (with 32 registers, in one kernel), and on SSE4.1 in a fused step.
    """
    fused_with_few = kernel.target == "sse41" and kernel.kind == "fused"
    return 2 if fused_with_few or (kernel.target != "neon" and kernel.activations == "any") else 0


class Loops(unittest.TestCase):
    def each_kernel(self, check):
        for archive in ARCHIVES:
            kernels = list(kernel_loops.kernels(archive))
            self.assertGreater(len(kernels), 50, f"{archive}: too few kernels have names as expected")
            for kernel in kernels:
                with self.subTest(kernel.symbol):
                    check(kernel)

    def test_all_sums_have_a_loop(self):
        def check(kernel):
            multiply_adds = sum(loop.multiply_adds for loop in kernel.main_loops)
            self.assertGreater(multiply_adds, 0, "multiply-adds in loops on registers")
            self.assertEqual(0, multiply_adds % (kernel.elements * kernel.sums), "the same for each sum")
        self.each_kernel(check)

    def test_sums_are_not_spilled(self):
        def check(kernel):
            spills = sum(loop.spills for loop in kernel.loops)
            self.assertLessEqual(spills, tolerated_spills(kernel), "accesses of the stack in loops of products")
        self.each_kernel(check)

    def test_neon_multiplies_by_elements(self):
        """What is left of k, less than a vector, may be broadcast."""
        def check(kernel):
            if kernel.target != "neon":
                return
            for loop in kernel.main_loops:
                self.assertEqual(loop.by_element, loop.multiply_adds, "multiply-adds by element, of all")
            for loop in kernel.loops:
                if loop.by_element < loop.multiply_adds:
                    self.assertLessEqual(loop.multiply_adds, kernel.sums, "multiply-adds for what is left of k")
        self.each_kernel(check)


if missing := sorted({tool for tool in map(kernel_loops.objdump_for, ARCHIVES) if not shutil.which(tool)}):
    print("skipped: not found here:", ", ".join(missing))
    sys.exit(77)
unittest.main()

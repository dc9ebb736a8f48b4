# SPDX-License-Identifier: Apache-2.0
"""Estimates the cycles of the kernels' loops with llvm-mca, for cores that are not at hand, and prints Markdown tables.

    kernel_cycles.py ARCHIVE ...

What they are worth: docs/arm.md.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys

import kernel_loops

# For each target the cores, small ones first, and how many of the target's vectors they multiply and add in a cycle.
# LLVM's model of a core may let it do more; no loop is taken to be faster than this. SSE4.1 multiplies and adds in two
# instructions.
CORES = {
    "neon": {"cortex-a55": 1, "cortex-a510": 2, "neoverse-n1": 2, "neoverse-v2": 4},
    "sse41": {"haswell": 1, "skylake": 1, "znver4": 2},
    "avx2": {"haswell": 2, "skylake": 2, "znver4": 2},
    "avx512": {"skylake-avx512": 2, "znver4": 1},
}
TRIPLES = {"neon": "aarch64-linux-gnu"}
ITERATIONS = 500


def find_mca():
    """The newest there is: Debian's have their version in the name."""
    for name in [f"llvm-mca-{version}" for version in range(25, 15, -1)] + ["llvm-mca"]:
        if shutil.which(name):
            return name
    sys.exit("kernel_cycles: llvm-mca is not installed (Debian: llvm-19, which cmake/setup.sh bench brings)")


def assembly(loops):
    """A region of llvm-mca for each loop."""
    lines = []
    for i, loop in enumerate(loops):
        lines += [f"# LLVM-MCA-BEGIN loop{i}", f".Lloop{i}:"]
        lines += loop.instructions[:-1]
        lines += [re.sub(r"\b[0-9a-f]+ <.*", f".Lloop{i}", loop.instructions[-1]), "# LLVM-MCA-END"]
    return "\n".join(lines) + "\n"


def cycles_of(mca, target, core, loops):
    """Cycles an iteration of each loop."""
    command = [mca, f"-mtriple={TRIPLES.get(target, 'x86_64-linux-gnu')}", f"-mcpu={core}", f"-iterations={ITERATIONS}",
               "-noalias=false", "-json"]  # what is spilled is read again
    done = subprocess.run(command, input=assembly(loops), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"kernel_cycles: {' '.join(command)} failed:\n{done.stderr}")
    return [region["SummaryView"]["TotalCycles"] / ITERATIONS for region in json.loads(done.stdout)["CodeRegions"]]


def table(mca, target, kernels):
    cores = CORES[target]
    lines = [f"| {target} | k | instructions | multiply-adds | spills | " + " | ".join(cores) + " |",
             "|---|--:|--:|--:|--:|" + "--:|" * len(cores)]
    loops = [loop for kernel in kernels for loop in kernel.main_loops]
    cycles = {core: iter(cycles_of(mca, target, core, loops)) for core in cores}
    for kernel in kernels:
        of_kernel = kernel.main_loops
        instructions = sum(len(loop.instructions) for loop in of_kernel)
        multiply_adds = sum(loop.multiply_adds for loop in of_kernel)
        spills = sum(loop.spills for loop in of_kernel)
        cells = [f"{kernel.kind} {kernel.shape}",
                 *map(str, (multiply_adds // kernel.accumulators, instructions, multiply_adds, spills))]
        for core, peak in cores.items():
            total = sum(max(next(cycles[core]), loop.multiply_adds / peak) for loop in of_kernel)
            rate = multiply_adds / total
            cells.append(f"{total:.1f}: {rate * kernel.vector:.1f} of {peak * kernel.vector} ({100 * rate / peak:.0f} %)")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", nargs="+", metavar="ARCHIVE", help="kernels, as hrnn_add_kernels() makes them")
    parser.add_argument("--kernels", default=r"_(step|fused)_(gru_sigmoid_tanh|rnn_tanh)_f32",
                        help="regular expression of symbols (default: %(default)s)")
    arguments = parser.parse_args()
    mca = find_mca()
    version = subprocess.run([mca, "--version"], capture_output=True, text=True).stdout
    print(f"llvm-mca {re.search('version ([0-9.]+)', version)[1]}. A cell: cycles an iteration of the loops, and"
          " multiply-adds a cycle (single ones, not vectors) of the core's peak.")
    for archive in arguments.archives:
        kernels = [kernel for kernel in kernel_loops.kernels(archive) if re.search(arguments.kernels, kernel.symbol)]
        if not kernels:
            sys.exit(f"kernel_cycles: {archive} has no kernels whose names match '{arguments.kernels}'")
        for target in sorted({kernel.target for kernel in kernels}):
            if target not in CORES:
                sys.exit(f"kernel_cycles: no cores are named for target {target}: add them to CORES in {__file__}")
            print(f"\n{table(mca, target, [kernel for kernel in kernels if kernel.target == target])}")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""The loops of products in generated kernels, as objdump (GNU binutils) shows them.

A product's loop is straight-line code that branches back to its own beginning, has packed multiply-adds, and stores
nothing but what it spills: that is how it is found, whatever the compiler did around it.
"""

import dataclasses
import pathlib
import re
import subprocess

PANEL_BYTES = 64  # one packed row: runtime/src/pack.h
OBJDUMP = {"x86-64": "objdump", "arm-64": "aarch64-linux-gnu-objdump"}
VECTOR_BYTES = {"%zmm": 64, "%ymm": 32, "%xmm": 16, "v": 16}  # by the registers of multiply-adds
# Gates that a step multiplies, by the cell and phase in its name.
STEP_GATES = {"rnn": 1, "rnn_masked": 1, "gru": 3, "gru_reset_before_phase0": 2, "gru_reset_before_phase1": 1}

# kernel_symbol() in generators/kernels.cpp makes these names.
NAME = re.compile(r"\w*?_(?P<kind>projection|step|fused)_"
                  rf"(?:g(?P<gates>\d)|(?P<cell>{'|'.join(sorted(STEP_GATES, reverse=True))})_(?P<activations>\w+?))_"
                  r"f(?P<bits>32|64)(?:_k\d+)?_p(?P<panels>\d+)r(?P<rows>\d+)(?:c(?P<chains>\d+))?(?P<half>half)?_(?P<target>[a-z0-9]+)")
BRANCH = re.compile(r"(b|b\.\w+|cbn?z|tbn?z|j\w+)\s.*?\b([0-9a-f]+) <")
MULTIPLY_ADD = re.compile(r"(?:fmla\s+|vfmadd\d+p[sd]\s.*|v?mulp[sd]\s.*)(v|%[xyz]mm)\d+")
BY_ELEMENT = re.compile(r"fmla\s+v\d+\.\w+, v\d+\.\w+, v\d+\.[sd]\[\d\]$")
STORE = re.compile(r"st(?:[rpu]|ur|nt)\w*\s|st1\s|v?mov\w*\s+%[^()]*,[^,]*\(")


@dataclasses.dataclass
class Loop:
    instructions: list
    stack: re.Pattern

    @property
    def multiply_adds(self):
        return sum(bool(MULTIPLY_ADD.match(text)) for text in self.instructions)

    @property
    def vector_bytes(self):
        return max(VECTOR_BYTES[match[1]] for text in self.instructions if (match := MULTIPLY_ADD.match(text)))

    @property
    def by_element(self):
        return sum(bool(BY_ELEMENT.match(text)) for text in self.instructions)

    @property
    def spills(self):
        """Instructions that read or write the stack."""
        return sum(bool(self.stack.search(text)) for text in self.instructions)

    @property
    def stores(self):
        return sum(bool(STORE.match(text)) and not self.stack.search(text) for text in self.instructions)


@dataclasses.dataclass
class Kernel:
    symbol: str
    kind: str          # projection, step, fused
    shape: str         # gates or cell, and the tile
    activations: str   # of steps
    target: str
    gate_sums: int     # vector registers of sums of a gate, all products together
    gates: int
    vector: int        # elements in a vector register
    loops: list        # of products, without those for an inner dimension of 0

    @property
    def sums(self):
        """Those that main loops add to: of all gates, or of one where gates are a loop around it."""
        count = sum(loop.multiply_adds for loop in self.main_loops)
        return self.gate_sums * (self.gates if count % (self.elements * self.gate_sums * self.gates) == 0 else 1)

    @property
    def elements(self):
        """Of k, in a turn of a main loop: a vector where they are taken from a register, else one or a few."""
        return self.vector if self.target == "neon" else 1

    @property
    def main_loops(self):
        """Without those for a rest of k and the compiler's other versions of a loop."""
        most = max((loop.multiply_adds for loop in self.loops), default=0)
        return [loop for loop in self.loops if 2 * loop.multiply_adds > most]


def functions(archive, objdump):
    """(name, [(address, text)]) of every function, without comments."""
    listing = subprocess.run([objdump, "-d", "--no-show-raw-insn", archive], check=True, capture_output=True, text=True)
    name, body = None, []
    for line in listing.stdout.splitlines():
        if match := re.match(r"[0-9a-f]+ <([^>]+)>:$", line):
            if name:
                yield name, body
            name, body = match[1], []
        elif match := re.match(r"\s*([0-9a-f]+):\s+(.*)", line):
            body.append((int(match[1], 16), re.sub(r"\s*(//|#\s|# ).*", "", match[2]).replace("\t", " ").strip()))
    if name:
        yield name, body


def straight_loops(body):
    """Instructions of loops without a branch into or out of their middle."""
    texts, addresses = [text for _, text in body], [address for address, _ in body]
    at = {address: i for i, address in enumerate(addresses)}
    branches = [(at.get(int(match[2], 16), -1), i) for i, text in enumerate(texts) if (match := BRANCH.match(text))]
    for begin, end in branches:
        if not 0 <= begin <= end:
            continue
        if any(begin <= source < end or (begin < target <= end) for target, source in branches):
            continue
        yield texts[begin:end + 1]


def objdump_for(archive):
    """Archives lie in folders called by their architecture."""
    return OBJDUMP[pathlib.Path(archive).parent.name]


def kernels(archive):
    """What `archive` (of hrnn_add_kernels) holds, without kernels of other cells than STEP_GATES."""
    for symbol, body in functions(archive, objdump_for(archive)):
        match = NAME.fullmatch(symbol)
        if not match:
            continue
        frame = any(re.match(r"mov\s+%rsp, ?%rbp|(mov|add)\s+x29, sp", text) for _, text in body)
        stack = re.compile(r"%rsp|\bsp\b" + (r"|\(%rbp|\bx29\b" if frame else ""))
        loops = [Loop(texts, stack) for texts in straight_loops(body)]
        loops = [loop for loop in loops if loop.multiply_adds and not loop.stores]
        vector_bytes = max((loop.vector_bytes for loop in loops), default=PANEL_BYTES)
        gates = int(match["gates"] or STEP_GATES[match["cell"]])
        products = 2 if match["kind"] == "fused" else 1
        panel_bytes = PANEL_BYTES // 2 if match["half"] else PANEL_BYTES
        chains = int(match["chains"] or 1)
        gate_sums = products * int(match["panels"]) * int(match["rows"]) * chains * panel_bytes // vector_bytes
        panels = "half" if match["half"] else match["panels"]
        shape = f"{match['cell'] or match['gates'] + ' gates'}, {panels} x {match['rows']}" + (f", {chains} chains" if chains > 1 else "")
        yield Kernel(symbol, match["kind"], shape, match["activations"], match["target"], gate_sums, gates,
                     vector_bytes * 8 // int(match["bits"]), loops)

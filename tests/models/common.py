# SPDX-License-Identifier: Apache-2.0
"""What the tests of whole models share: running the command, comparing arrays, the variants this machine can run."""
import json
import pathlib
import subprocess
import tempfile

import ml_dtypes
import numpy as np


def usable_variants(hrnn):
    """Instruction sets with kernels in this build that this machine offers, by `hrnn kernels --json`."""
    listed = json.loads(subprocess.run([hrnn, "kernels", "--json"], check=True, capture_output=True, text=True).stdout)
    return sorted({kernel["target"] for kernel in listed["kernels"] if kernel["usable"]})


class Refused(AssertionError):
    """The command said why it cannot run a model."""

    def __init__(self, text, message):
        super().__init__(text)
        self.message = message


def run(hrnn, model, inputs, variant=""):
    """Outputs of `hrnn run`, by name."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = pathlib.Path(folder) / "in.npz", pathlib.Path(folder) / "out.npz"
        np.savez(given, **inputs)
        command = [hrnn, "run", str(model), "--inputs", str(given), "--outputs", str(made)]
        if variant:
            command += ["--variant", variant]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode == 1:
            raise Refused(f"{model} on {variant or 'the chosen variant'}: {result.stderr}", result.stderr)
        if result.returncode != 0:
            raise AssertionError(f"{model} on {variant or 'the chosen variant'}: exit code {result.returncode}: {result.stderr}")
        with np.load(made) as outputs:  # numpy knows bfloat16 as two bytes
            return {name: value.view(ml_dtypes.bfloat16) if value.dtype == np.dtype("V2") else value
                    for name, value in outputs.items()}


def largest_difference(got, want):
    """Over all arrays; names, shapes and types must be the same."""
    assert set(got) == set(want), f"outputs {sorted(got)}, expected {sorted(want)}"
    worst = [0.0]
    for name, expected in want.items():
        assert got[name].shape == expected.shape, f"{name} has shape {got[name].shape}, expected {expected.shape}"
        assert got[name].dtype == expected.dtype, f"{name} has type {got[name].dtype}, expected {expected.dtype}"
        worst.append(np.max(np.abs(got[name].astype(np.float64) - expected.astype(np.float64)), initial=0.0))
    return float(np.max(worst))  # a NaN stays one, and fails every comparison

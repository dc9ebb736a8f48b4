#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the test images, PyTorch's recorded logits and the labels as one file that demo.c reads.

int32 count, float32 pixels [count, 8, 8], float32 logits [count, 10], int32 labels [count]; little-endian.
"""
import pathlib
import sys

import numpy as np

here = pathlib.Path(__file__).parent
test, expected = np.load(here / "test.npz"), np.load(here / "expected.npz")
with open(sys.argv[1], "wb") as out:
    np.int32(len(test["pixels"])).tofile(out)
    test["pixels"].astype("<f4").tofile(out)
    expected["logits"].astype("<f4").tofile(out)
    expected["labels"].astype("<i4").tofile(out)

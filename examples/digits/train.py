#!/usr/bin/env python3
"""Train a small GRU that reads handwritten digits, and export it to ONNX.

The data are the 1797 digits of 8x8 pixels that scikit-learn bundles. An image
is read row by row: a sequence of 8 time steps, each of 8 pixels in 0..1. One
GRU layer (8 -> 64) reads the rows and a linear layer (64 -> 10) turns its last
output into one score per digit.

Written to --out (this folder unless told otherwise):

  digits_gru.onnx  the model as torch.onnx.export makes it: input `pixels`
                   [batch, time, 8], output `logits` [batch, 10]
  test.npz         `pixels`  float32 [N, 8, 8]: the test images
  expected.npz     `logits`  float32 [N, 10]: what PyTorch answers for them
                   `labels`  int64 [N]: the true digits

The test images take no part in the training. The files beside this script were
made with Python 3.11, torch 2.15.0, onnx 1.23.2, onnxscript 0.7.2,
onnxruntime 1.31.1, scikit-learn 1.9.1 and numpy 2.4.6 (requirements.txt);
another version or processor may give slightly different weights.

    pip install -r requirements.txt
    python train.py
"""

import argparse
import pathlib

import numpy as np
import onnx
import onnxruntime
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 1
EPOCHS = 60
BATCH = 32
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2


class DigitsGRU(nn.Module):
    """Rows of pixels in, one score per digit out."""

    def __init__(self, pixels=8, hidden=64, classes=10):
        super().__init__()
        self.gru = nn.GRU(pixels, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, pixels):  # [batch, time, pixels]
        states, _ = self.gru(pixels)
        return self.head(states[:, -1])  # the state after the last row


def load():
    """The data as float32 [N, 8 rows, 8 pixels] in 0..1: train and test."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)
    labels = digits.target.astype(np.int64)
    return train_test_split(
        images, labels, test_size=0.25, stratify=labels, random_state=SEED
    )


def train(images, labels):
    """A trained model. The number of epochs is fixed: nothing is selected."""
    model = DigitsGRU()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    data = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(
            torch.from_numpy(images), torch.from_numpy(labels)
        ),
        batch_size=BATCH,
        shuffle=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=EPOCHS * len(data)
    )
    for epoch in range(EPOCHS):
        total = 0.0
        for x, y in data:
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(y)
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1:3}  training loss {total / len(labels):.5f}")
    return model.eval()


def export(model, path):
    """Write the model to ONNX: any batch, any number of rows, one file."""
    # Otherwise every node carries the file paths of the machine it came from.
    torch.fx.config.do_not_emit_stack_traces = True
    torch.onnx.export(
        model,
        (torch.zeros(2, 8, 8),),
        path,
        dynamo=True,
        verbose=False,
        external_data=False,
        input_names=["pixels"],
        output_names=["logits"],
        dynamic_shapes={
            "pixels": {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}
        },
    )


def check(path, model, images, logits):
    """The file holds a GRU node, and ONNX Runtime agrees with PyTorch on it."""
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    (gru,) = [node for node in proto.graph.node if node.op_type == "GRU"]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in gru.attribute}
    assert attributes["linear_before_reset"] == 1, "PyTorch resets after the product"

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (answer,) = session.run(["logits"], {"pixels": images})
    worst = np.abs(answer - logits).max()
    print(f"ONNX Runtime: largest difference from PyTorch {worst:.2e}")
    assert worst < 1e-4

    # The exported axes are dynamic: another batch and another number of rows.
    few = images[:3, :5]
    (answer,) = session.run(["logits"], {"pixels": few})
    with torch.no_grad():
        assert np.abs(answer - model(torch.from_numpy(few)).numpy()).max() < 1e-4


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path(__file__).parent,
        metavar="DIR",
        help="folder to write to (default: this script's)",
    )
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    # One thread and fixed seeds: the same machine gives the same file again.
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)

    train_x, test_x, train_y, test_y = load()
    model = train(train_x, train_y)
    with torch.no_grad():
        logits = model(torch.from_numpy(test_x)).numpy()
    right = (logits.argmax(axis=1) == test_y).sum()
    print(f"test accuracy {right / len(test_y):.2%} ({right} of {len(test_y)})")

    path = str(out / "digits_gru.onnx")
    export(model, path)
    np.savez(out / "test.npz", pixels=test_x)
    np.savez(out / "expected.npz", logits=logits, labels=test_y)
    check(path, model, test_x, logits)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PyTorch on a CUDA device (cuDNN), answering as peer.h says. A run takes x from the host and brings y back, as hrnn's does;
arithmetic is in float32 (no TF32), as everywhere here. By hand: compare.py --variant cuda --peer pytorch_cuda=THIS_FILE."""

import json
import pathlib
import statistics
import sys
import time

import numpy as np
import torch

BURST_SECONDS = 0.003


class Layer:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        p = json.loads((self.folder / "problem.json").read_text())
        refused = [
            ("its GRU resets after the product", p["cell"] == "gru_reset_before"),
            ("it has no lengths, but sequences packed one by one", bool(p["lengths"])),
            ("it has no reverse direction alone", p["reverse"]),
        ]
        self.refused = next((why for why, holds in refused if holds), None)
        self.steps, self.streaming = p["steps"], p["streaming"]
        self.sizes = [p[name] for name in ("layers", "directions", "hidden", "input", "batch", "time")]
        self.rnn = p["cell"] == "rnn"

    def array(self, name):
        return torch.from_numpy(np.fromfile(self.folder / name, np.float32))

    def open(self):
        layers, directions, hidden, inputs, batch, steps = self.sizes
        made = torch.nn.RNN if self.rnn else torch.nn.GRU
        self.layer = made(inputs, hidden, layers, bidirectional=directions == 2)
        gates = 1 if self.rnn else 3
        rest = {name: self.array(name) for name in "wrb"}

        def take(name, *shape):
            count = gates * hidden * (shape[0] if shape else 1)
            values, rest[name] = rest[name][:count].view(gates, hidden, *shape), rest[name][count:]
            return (values if gates == 1 else values[[1, 0, 2]]).reshape(gates * hidden, *shape)  # ONNX: z, r, h

        state = {}
        for layer in range(layers):
            for direction in range(directions):
                end = f"_l{layer}" + ("_reverse" if direction else "")
                state["weight_ih" + end] = take("w", inputs if layer == 0 else directions * hidden)
                state["weight_hh" + end] = take("r", hidden)
                state["bias_ih" + end], state["bias_hh" + end] = take("b"), take("b")
        self.layer.load_state_dict(state)
        self.layer.cuda().eval().flatten_parameters()
        self.x = self.array("x").view(steps, batch, inputs).pin_memory()
        self.y = torch.empty(steps, batch, directions * hidden).pin_memory()
        self.zeros = self.state = torch.zeros(layers * directions, batch, hidden, device="cuda")
        self.run()
        result = self.state.cpu() if self.streaming else self.y.view(steps, batch, directions, hidden).transpose(1, 2)
        result.contiguous().numpy().tofile(self.folder / "y")

    def run(self):
        x = self.x.to("cuda", non_blocking=True)
        y, self.state = self.layer(x, self.state if self.streaming else self.zeros)
        self.y.copy_(y, non_blocking=True)
        torch.cuda.synchronize()

    def burst(self):
        """As burst.h."""
        self.run()
        times, end = [], time.perf_counter() + BURST_SECONDS
        while not times or time.perf_counter() < end:
            begin = time.perf_counter()
            self.run()
            times.append(time.perf_counter() - begin)
        return statistics.median(times) * 1e6 / self.steps


def main():
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_grad_enabled(False)
    layer = None
    for line in sys.stdin:
        command, *folder = line.split()
        answer = {}
        if command == "version":
            answer["version"] = f"PyTorch {torch.__version__}, {torch.cuda.get_device_name()}, cuDNN {torch.backends.cudnn.version()}"
        elif command == "open":
            layer = Layer(folder[0])
            if layer.refused:
                answer["refused"] = layer.refused
            else:
                layer.open()
        elif command == "burst":
            answer["us"] = layer.burst()
        else:
            sys.exit(f"pytorch_cuda: not understood: '{line.strip()}'")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

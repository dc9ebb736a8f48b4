# SPDX-License-Identifier: Apache-2.0
"""ONNX RNN and GRU in numpy and double precision, one step and one sequence at a time, from the operators' equations.

Where ONNX is silent: steps from a sequence's length on are zero in Y, Y_h is the state of its last step in the direction
of travel (zeros for length 0), a reverse direction starts at length - 1.
"""
import numpy as np


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def elu(x, alpha):
    return np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0)))


# name: (function of x, alpha, beta; takes alpha, takes beta; defaults)
ACTIVATIONS = {
    "Relu": (lambda x, a, b: np.maximum(x, 0), False, False, None, None),
    "Tanh": (lambda x, a, b: np.tanh(x), False, False, None, None),
    "Sigmoid": (lambda x, a, b: 1 / (1 + np.exp(-x)), False, False, None, None),
    "Affine": (lambda x, a, b: a * x + b, True, True, 1.0, 0.0),
    "LeakyRelu": (lambda x, a, b: np.where(x >= 0, x, a * x), True, False, 0.01, None),
    "ThresholdedRelu": (lambda x, a, b: np.where(x > a, x, 0), True, False, 1.0, None),
    "ScaledTanh": (lambda x, a, b: a * np.tanh(b * x), True, True, None, None),
    "HardSigmoid": (lambda x, a, b: np.clip(a * x + b, 0, 1), True, True, 0.2, 0.5),
    "Elu": (lambda x, a, b: elu(x, a), True, False, 1.0, None),
    "Softsign": (lambda x, a, b: x / (1 + np.abs(x)), False, False, None, None),
    "Softplus": (lambda x, a, b: softplus(x), False, False, None, None),
}


def gru_step(x, h, w, r, wb, rb, f, g, reset_after):
    wz, wr, wh = np.split(w, 3)
    rz, rr, rh = np.split(r, 3)
    wbz, wbr, wbh = np.split(wb, 3)
    rbz, rbr, rbh = np.split(rb, 3)
    z = f(wz @ x + rz @ h + wbz + rbz)
    reset = f(wr @ x + rr @ h + wbr + rbr)
    if reset_after:
        candidate = g(wh @ x + reset * (rh @ h + rbh) + wbh)
    else:
        candidate = g(wh @ x + rh @ (reset * h) + rbh + wbh)
    return (1 - z) * candidate + z * h


def recurrent(kind, x, w, r, b=None, lengths=None, initial=None, reverse=(False,), functions=(), clip=None, reset_after=False):
    """x [time, batch, inputs] -> Y [time, directions, batch, hidden], Y_h [directions, batch, hidden].

    `functions`: a list of (name, alpha, beta) for every direction.
    """
    x, w, r = (np.asarray(value, np.float64) for value in (x, w, r))
    steps, batch, _ = x.shape
    directions, _, hidden = r.shape
    gates = 3 if kind == "GRU" else 1
    b = np.zeros((directions, 2 * gates * hidden)) if b is None else np.asarray(b, np.float64)
    y, last = np.zeros((steps, directions, batch, hidden)), np.zeros((directions, batch, hidden))

    def activation(name, alpha, beta):
        compute = ACTIVATIONS[name][0]
        return lambda a: compute(a if clip is None else np.clip(a, -clip, clip), alpha, beta)

    for d in range(directions):
        f = [activation(*function) for function in functions[d]]
        wb, rb = np.split(b[d], 2)
        for n in range(batch):
            length = steps if lengths is None else int(lengths[n])
            h = np.zeros(hidden) if initial is None else np.asarray(initial[d, n], np.float64)
            for t in reversed(range(length)) if reverse[d] else range(length):
                if kind == "GRU":
                    h = gru_step(x[t, n], h, w[d], r[d], wb, rb, f[0], f[1], reset_after)
                else:
                    h = f[0](w[d] @ x[t, n] + r[d] @ h + wb + rb)
                y[t, d, n] = h
            if length > 0:
                last[d, n] = h
    return y, last

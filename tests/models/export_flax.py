#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the flax_*.onnx models in exported/: Flax cells in jax.lax.scan, through jax2onnx.

    python export_flax.py    (jax 0.10.2, flax 0.12.8, jax2onnx 0.17.1, numpy 2.4.6)

jax2onnx cannot trace nnx.RNN and linen.RNN of these versions (docs/compatibility.md), so the scan is written out. The
expected outputs are what JAX computes.
"""
import pathlib

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import onnx
from flax import nnx
from jax2onnx import to_onnx

EXPORTED = pathlib.Path(__file__).parent / "exported"
BATCH, STEPS, INPUTS, UNITS = 3, 7, 4, 6


def randomized(module, rng):
    """Biases start as zeros, which would hide a mistake."""
    graph, state = nnx.split(module)
    state = jax.tree.map(lambda v: jnp.asarray(rng.uniform(-0.7, 0.7, v.shape), v.dtype)
                         if jnp.issubdtype(v.dtype, jnp.floating) else v, state)
    return nnx.merge(graph, state)


def scan(cell, reverse=False, units=UNITS):
    """x [batch, time, inputs] -> states of every step, the last one."""
    def model(x):
        last, y = jax.lax.scan(cell, jnp.zeros((x.shape[0], units)), jnp.swapaxes(x, 0, 1), reverse=reverse)
        return jnp.swapaxes(y, 0, 1), last
    return model


def nnx_cell(kind, rng, inputs=INPUTS, **how):
    cell = randomized(kind(inputs, UNITS, rngs=nnx.Rngs(0), **how), rng)
    return lambda h, x: cell(h, x)


def linen_cell(kind, rng):
    cell = kind(UNITS)
    params = cell.init(jax.random.key(0), jnp.zeros((2, UNITS)), jnp.zeros((2, INPUTS)))
    params = jax.tree.map(lambda v: jnp.asarray(rng.uniform(-0.7, 0.7, v.shape), v.dtype), params)
    return lambda h, x: cell.apply(params, h, x)


def haiku_like(rng):
    """h' = (1 - z) h + z n, as DeepMind's Haiku defines its GRU."""
    wi, wh = (jnp.asarray(rng.uniform(-0.7, 0.7, (n, 3 * UNITS)), jnp.float32) for n in (INPUTS, UNITS))
    b = jnp.asarray(rng.uniform(-0.7, 0.7, 3 * UNITS), jnp.float32)

    def cell(h, x):
        gates = x @ wi[:, :2 * UNITS] + h @ wh[:, :2 * UNITS] + b[:2 * UNITS]
        z, r = jnp.split(jax.nn.sigmoid(gates), 2, axis=-1)
        n = jnp.tanh(x @ wi[:, 2 * UNITS:] + (r * h) @ wh[:, 2 * UNITS:] + b[2 * UNITS:])
        h = (1 - z) * h + z * n
        return h, h
    return cell


def two_layers(rng):
    first, second = nnx_cell(nnx.GRUCell, rng), nnx_cell(nnx.SimpleCell, rng, inputs=UNITS)

    def model(x):
        y, _ = scan(first)(x)
        return scan(second)(y)
    return model


def both_directions(rng):
    forward, backward = nnx_cell(nnx.GRUCell, rng), nnx_cell(nnx.GRUCell, rng)

    def model(x):
        y, last = scan(forward)(x)
        z, first = scan(backward)(jnp.flip(x, 1))
        return jnp.concatenate([y, jnp.flip(z, 1)], -1), jnp.concatenate([last, first], -1)
    return model


MODELS = {
    "nnx_gru": lambda rng: scan(nnx_cell(nnx.GRUCell, rng)),
    "nnx_simple": lambda rng: scan(nnx_cell(nnx.SimpleCell, rng)),
    "nnx_simple_relu_residual": lambda rng: scan(nnx_cell(nnx.SimpleCell, rng, activation_fn=jax.nn.relu, residual=True)),
    "nnx_gru_hard_sigmoid": lambda rng: scan(nnx_cell(nnx.GRUCell, rng, gate_fn=jax.nn.hard_sigmoid)),
    "linen_gru": lambda rng: scan(linen_cell(linen.GRUCell, rng)),
    "linen_mgu": lambda rng: scan(linen_cell(linen.MGUCell, rng)),
    "haiku_gru": lambda rng: scan(haiku_like(rng)),
    "two_layers": two_layers,
    "both_directions": both_directions,
    "reverse_scan": lambda rng: scan(nnx_cell(nnx.GRUCell, rng), reverse=True),
}


def main():
    for seed, (name, build) in enumerate(MODELS.items()):
        rng = np.random.default_rng(seed)
        model = build(rng)
        x = rng.standard_normal((BATCH, STEPS, INPUTS)).astype(np.float32)
        expected = [np.asarray(value) for value in model(jnp.asarray(x))]
        path = EXPORTED / f"flax_{name}.onnx"
        try:
            exported = to_onnx(model, [("batch", "time", INPUTS)])
        except Exception as error:  # what an exporter cannot write is worth knowing
            print(f"{name}: {type(error).__name__}: {str(error)[:300]}")
            continue
        onnx.save(exported, path)
        np.savez(path.with_suffix(".in.npz"), **{exported.graph.input[0].name: x})
        np.savez(path.with_suffix(".expected.npz"), **{value.name: data for value, data in zip(exported.graph.output, expected)})


if __name__ == "__main__":
    main()

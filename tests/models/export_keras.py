#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the keras_BACKEND_*.onnx models in exported/: Keras layers with random weights, through Model.export.

    KERAS_BACKEND=tensorflow python export_keras.py    (keras 3.15.1, tensorflow 2.21.0, tf2onnx 1.17.0, numpy 2.4.6)
    KERAS_BACKEND=jax python export_keras.py           (keras 3.15.1, jax 0.10.2, jax2onnx 0.17.1)

The expected outputs are what Keras computes itself. The torch backend is left out: it freezes the number of steps
(docs/compatibility.md).
"""
import pathlib
import sys

import keras
import numpy as np
import onnx
from keras import layers

EXPORTED = pathlib.Path(__file__).parent / "exported"
BATCH, STEPS, INPUTS, UNITS = 3, 7, 4, 6


def floats(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def model_of(build, shape=(None, INPUTS), dtype="float32", batch=None):
    x = keras.Input(shape, batch_size=batch, dtype=dtype, name="x")
    return keras.Model(x, build(x))


def two_inputs():
    x, h = keras.Input((None, INPUTS), name="x"), keras.Input((UNITS,), name="h")
    return keras.Model([x, h], layers.GRU(UNITS, return_sequences=True)(x, initial_state=h))


def gru(**how):
    return layers.GRU(UNITS, **{"return_sequences": True, **how})


def rnn(**how):
    return layers.SimpleRNN(UNITS, **{"return_sequences": True, **how})


MODELS = {
    "gru": lambda: model_of(gru()),
    "gru_reset_before": lambda: model_of(gru(reset_after=False)),
    "gru_last": lambda: model_of(gru(return_sequences=False)),
    "gru_no_bias": lambda: model_of(gru(use_bias=False)),
    "gru_states": lambda: model_of(gru(return_state=True)),
    "gru_initial_state": two_inputs,
    "gru_go_backwards": lambda: model_of(gru(go_backwards=True)),
    "gru_relu_hard_sigmoid": lambda: model_of(gru(activation="relu", recurrent_activation="hard_sigmoid")),
    "gru_linear": lambda: model_of(gru(activation=None)),
    "gru_fixed_steps": lambda: model_of(gru(), (STEPS, INPUTS)),
    "gru_unrolled": lambda: model_of(gru(unroll=True), (STEPS, INPUTS)),
    "gru_stateful": lambda: model_of(gru(stateful=True), (STEPS, INPUTS), batch=BATCH),
    "rnn": lambda: model_of(rnn()),
    "rnn_relu": lambda: model_of(rnn(activation="relu")),
    "stack": lambda: model_of(lambda x: rnn()(gru(reset_after=False)(gru()(x)))),
    "bidirectional": lambda: model_of(layers.Bidirectional(gru())),
    "bidirectional_sum": lambda: model_of(layers.Bidirectional(gru(), merge_mode="sum")),
    "bidirectional_stack": lambda: model_of(lambda x: layers.Bidirectional(gru(return_sequences=False))(
        layers.Bidirectional(rnn())(x))),
    "stacked_cells": lambda: model_of(layers.RNN([layers.GRUCell(UNITS), layers.SimpleRNNCell(UNITS)], return_sequences=True)),
    "masking": lambda: model_of(lambda x: gru()(layers.Masking()(x))),
    "masking_anywhere": lambda: model_of(lambda x: rnn()(gru(reset_after=False)(layers.Masking()(x)))),
    "masking_bidirectional": lambda: model_of(lambda x: layers.Bidirectional(gru())(layers.Masking()(x))),
    "masking_last": lambda: model_of(lambda x: rnn(return_sequences=False)(layers.Masking()(x))),
    "dense_softmax": lambda: model_of(lambda x: layers.Dense(3, activation="softmax")(gru(return_sequences=False)(x))),
    "layer_norm": lambda: model_of(lambda x: gru()(layers.LayerNormalization()(x))),
    "conv1d": lambda: model_of(lambda x: gru()(layers.Conv1D(5, 3, padding="same", activation="relu")(x))),
    "embedding": lambda: model_of(lambda x: gru()(layers.Embedding(10, INPUTS)(x)), (None,), "int32"),
}


def probe(model, rng):
    for value in model.inputs:
        shape = [BATCH if value.shape[0] is None else value.shape[0], *(STEPS if d is None else d for d in value.shape[1:])]
        if value.dtype == "int32":
            yield rng.integers(0, 10, shape).astype(np.int32)
        else:
            data = floats(rng, *shape)
            yield data


def save(name, build, seed):
    rng = np.random.default_rng(seed)
    model = build()
    model.set_weights([rng.uniform(-0.7, 0.7, w.shape).astype(w.dtype) for w in model.get_weights()])
    inputs = list(probe(model, rng))
    if name.startswith("masking"):
        inputs[0][1, 4:] = 0  # padding at the end of one sequence
    if name == "masking_anywhere":
        inputs[0][0, :2] = inputs[0][2, 3] = 0
    for layer in model.layers:
        if getattr(layer, "stateful", False):
            layer.reset_states()
    outputs = model(inputs if len(inputs) > 1 else inputs[0])
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    expected = [keras.ops.convert_to_numpy(value) for value in outputs]
    for layer in model.layers:
        if getattr(layer, "stateful", False):
            layer.reset_states()
    path = EXPORTED / f"keras_{keras.backend.backend()}_{name}.onnx"
    model.export(str(path), format="onnx", verbose=False)
    graph = onnx.load(path).graph
    np.savez(path.with_suffix(".in.npz"), **{value.name: data for value, data in zip(graph.input, inputs)})
    np.savez(path.with_suffix(".expected.npz"), **{value.name: data for value, data in zip(graph.output, expected)})


def main(chosen):
    for seed, (name, build) in enumerate(MODELS.items()):
        if chosen and name not in chosen:
            continue
        try:
            save(name, build, seed)
        except Exception as error:  # what an exporter cannot write is worth knowing
            print(f"{name}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])

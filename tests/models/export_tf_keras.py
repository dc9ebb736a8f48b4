#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the tf_keras_*.onnx models in exported/: Keras 2 layers with random weights, through tf2onnx.

    python export_tf_keras.py    (tf_keras 2.21.0, tensorflow 2.21.0, tf2onnx 1.17.0, numpy 2.4.6)
"""
import os
import pathlib

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
import tf_keras as keras

EXPORTED = pathlib.Path(__file__).parent / "exported"
BATCH, STEPS, INPUTS, UNITS = 3, 7, 4, 6
layers = keras.layers

MODELS = {
    "gru": layers.GRU(UNITS, return_sequences=True),
    "gru_reset_before": layers.GRU(UNITS, return_sequences=True, reset_after=False),
    "gru_hard_sigmoid": layers.GRU(UNITS, return_sequences=True, recurrent_activation="hard_sigmoid"),
    "rnn": layers.SimpleRNN(UNITS, return_sequences=True),
    "bidirectional": layers.Bidirectional(layers.GRU(UNITS, return_sequences=True)),
    "bidirectional_rnn": layers.Bidirectional(layers.SimpleRNN(UNITS, return_sequences=True)),
}


def main():
    for seed, (name, layer) in enumerate(MODELS.items()):
        rng = np.random.default_rng(seed)
        x = keras.Input((None, INPUTS), name="x")
        model = keras.Model(x, layer(x))
        model.set_weights([rng.uniform(-0.7, 0.7, w.shape) for w in model.get_weights()])
        data = rng.standard_normal((BATCH, STEPS, INPUTS)).astype(np.float32)
        expected = model(data).numpy()
        exported, _ = tf2onnx.convert.from_keras(model, [tf.TensorSpec((None, None, INPUTS), tf.float32, name="x")], opset=17)
        path = EXPORTED / f"tf_keras_{name}.onnx"
        onnx.save(exported, path)
        np.savez(path.with_suffix(".in.npz"), x=data)
        np.savez(path.with_suffix(".expected.npz"), **{exported.graph.output[0].name: expected})


if __name__ == "__main__":
    main()

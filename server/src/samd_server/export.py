"""From the network to one TFLite file that infers, trains and evaluates over a flat weight vector.

Weights are data, the graph is the program. Everything is a TFLite builtin operator, so a device needs the
bare interpreter. What the converter refuses, and the way round it: `ReluGrad` (ReLU is a maximum with its own
gradient), `BroadcastGradientArgs` (the batch has a static size inside the loop), `StridedSliceGrad`
(the split tensors are differentiated, never the flat vector), the fused gradient of softmax cross-entropy
(the loss has a gradient of its own, too).
"""

import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from samd_data.features import FeatureSpec
from samd_data.tasks import SEVERITY, task_of
from samd_protocol.bundle import Bundle, Features, Layer, Manifest
from samd_server import keras_file, network

BATCH_SIZE = 32
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7


def export(
    spec: FeatureSpec,
    hidden: Sequence[int] = (32, 16),
    seed: int = 0,
    name: str = "",
    *,
    task: str = SEVERITY,
) -> Bundle:
    """An untrained bundle (version 0); needs TensorFlow, about 15 s. The same seed gives the same weights.

    ``name`` is that of the task unless another is given. Raises ValueError for an unknown task.
    """
    classes = task_of(task).classes
    tf = network.tensorflow()
    layers = network.layers(spec.size, hidden, len(classes))
    with network.quiet():
        model = network.build(spec.size, hidden, len(classes), seed, name=task)
        graph = build_graph(layers, BATCH_SIZE)
        archive = _keras_bytes(model)
    weights = network.flatten(model)
    manifest = Manifest(
        name=name or task,
        version=0,
        task=task,
        trained=False,
        features=Features(name=spec.name, labels=spec.labels, size=spec.size),
        classes=list(classes),
        layers=layers,
        batch_size=BATCH_SIZE,
        metrics={},
        provenance={
            "seed": seed,
            "hidden": list(hidden),
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": tf.keras.__version__,
            "numpy": np.__version__,
        },
    )
    return Bundle(
        manifest=manifest,
        graph=graph,
        weights=weights,
        keras=keras_file.with_weights(archive, layers, weights),
    )


def _keras_bytes(model: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()


def build_graph(
    layers: Sequence[Layer],
    batch_size: int,
    *,
    inputs: int | None = None,
    forward: network.Forward = network.dense,
) -> bytes:
    """The TFLite file of a network of this layout; needs TensorFlow. The same layout gives the same bytes.

    `forward` and `inputs` (the number of features) are for networks of another kind than `network.layers`.
    """
    tf = network.tensorflow()
    module = _module(tf, layers, batch_size, layers[0].shape[0] if inputs is None else inputs, forward)
    with network.quiet(), tempfile.TemporaryDirectory() as folder:
        signatures = {name: getattr(module, name) for name in ("infer", "train", "evaluate")}
        tf.saved_model.save(module, folder, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        return bytes(converter.convert())


def _module(tf: Any, layers: Sequence[Layer], batch: int, inputs: int, forward: network.Forward) -> Any:
    """The three signatures as a `tf.Module`."""
    shapes = [tuple(layer.shape) for layer in layers]
    classes = shapes[-1][0]
    size = sum(layer.size for layer in layers)

    def split(weights: Any) -> list[Any]:
        parts, start = [], 0
        for shape in shapes:
            count = int(np.prod(shape))
            parts.append(tf.reshape(weights[start : start + count], shape))
            start += count
        return parts

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def relu(x: Any) -> Any:
        y = tf.maximum(x, 0.0)
        return y, lambda upstream: upstream * tf.cast(y > 0.0, tf.float32)

    def logits(parts: Sequence[Any], x: Any) -> Any:
        return forward(tf, relu, parts, x)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def cross_entropy(z: Any, truth: Any, share: Any) -> Any:
        """The sum of `truth` times -log softmax(z); `share` [B, 1] is the sum of each row of `truth`. With
        the gradient written out, for the tape's own takes fifteen operators more."""
        log_p = tf.nn.log_softmax(z)

        def gradient(upstream: Any) -> Any:
            return upstream * (tf.exp(log_p) * share - truth), None, None

        return -tf.reduce_sum(truth * log_p), gradient

    rows = tf.TensorSpec([None, inputs], tf.float32, name="features")
    indices = tf.TensorSpec([None], tf.int32)
    vector = tf.TensorSpec([size], tf.float32)
    scalar = tf.TensorSpec([], tf.float32)
    prior = tf.TensorSpec([classes], tf.float32)

    class Graph(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[rows, vector])  # type: ignore[untyped-decorator]
        def infer(self, features: Any, weights: Any) -> Any:
            return {"probabilities": tf.nn.softmax(logits(split(weights), features))}

        @tf.function(input_signature=[rows, indices, vector])  # type: ignore[untyped-decorator]
        def evaluate(self, features: Any, labels: Any, weights: Any) -> Any:
            z = logits(split(weights), features)
            truth = tf.one_hot(labels, classes)
            answer = tf.one_hot(tf.argmax(z, -1, output_type=tf.int32), classes)
            loss = -tf.reduce_mean(tf.reduce_sum(truth * tf.nn.log_softmax(z), -1))
            return {"loss": loss, "confusion": tf.matmul(tf.transpose(truth), answer)}

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[
                rows, indices, indices, vector, vector, vector, scalar, scalar, vector, scalar, vector, prior
            ]
        )  # fmt: skip
        def train(  # noqa: PLR0917 - a signature of the graph has no other kind
            self,
            features: Any,
            labels: Any,
            order: Any,
            weights: Any,
            m: Any,
            v: Any,
            t: Any,
            learning_rate: Any,
            anchor: Any,
            mu: Any,
            trainable: Any,
            log_prior: Any,
        ) -> Any:
            steps = tf.shape(order)[0] // batch
            answers = tf.one_hot(labels, classes)

            def step(k: Any, weights: Any, m: Any, v: Any, t: Any, total: Any, seen: Any) -> Any:  # noqa: PLR0917
                chosen = tf.slice(order, [k * batch], [batch])
                real = chosen >= 0
                at = tf.maximum(chosen, 0)
                # A padding row is zeroed, not only weighted 0: whatever row 0 holds must not reach the sum.
                x = tf.reshape(tf.gather(features, at), [batch, inputs])
                x = tf.where(tf.reshape(real, [batch, 1]), x, tf.zeros_like(x))
                counted = tf.reshape(tf.cast(real, tf.float32), [batch, 1])
                count = tf.reduce_sum(counted)
                share = counted / tf.maximum(count, 1.0)
                truth = tf.reshape(tf.gather(answers, at), [batch, classes]) * share
                with tf.GradientTape() as tape:
                    parts = split(weights)
                    tape.watch(parts)
                    loss = cross_entropy(logits(parts, x) + log_prior, truth, share)
                gradient = tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(loss, parts)], 0)
                gradient += mu * (weights - anchor)
                # The gate closes for a frozen weight, and for all of them in a batch of padding alone.
                live = tf.minimum(count, 1.0)
                m += trainable * (live * (1 - BETA_1)) * (gradient - m)
                v += trainable * (live * (1 - BETA_2)) * (gradient * gradient - v)
                alpha = learning_rate * tf.sqrt(1 - tf.pow(BETA_2, t + 1)) / (1 - tf.pow(BETA_1, t + 1))
                weights -= trainable * (live * alpha) * m / (tf.sqrt(v) + EPSILON)
                return k + 1, weights, m, v, t + live, total + loss * count, seen + count

            _, weights, m, v, t, total, seen = tf.while_loop(
                lambda k, *_: k < steps,
                step,
                [tf.constant(0), weights, m, v, t, tf.constant(0.0), tf.constant(0.0)],
            )
            return {"weights": weights, "m": m, "v": v, "t": t, "loss": total / tf.maximum(seen, 1.0)}

    return Graph()

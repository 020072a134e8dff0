"""The reference trainer: the same maths on the bundle's Keras network, by TensorFlow's own gradients.

Mini-batch Adam (Kingma and Ba, 2015; beta 0.9 and 0.999, epsilon 1e-7) on cross-entropy over logits plus the
log prior, plus the gradient mu * (weights - anchor) of the proximal term. Slow and large beside the graph: it
is there to check it, and for networks that the converter refuses.
"""

import os
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from samd_edge.extras import install
from samd_edge.runtime import Floats, GraphError, Ints, RuntimeUnavailable, TrainState
from samd_protocol.bundle import Bundle

BETA_1: Final = 0.9
BETA_2: Final = 0.999
EPSILON: Final = 1e-7


def warm_up() -> str:
    """Import TensorFlow, quietly and without looking for a graphics card; raises RuntimeUnavailable."""
    for name, value in (
        ("TF_CPP_MIN_LOG_LEVEL", "3"),
        ("TF_ENABLE_ONEDNN_OPTS", "0"),
        ("CUDA_VISIBLE_DEVICES", "-1"),
    ):
        os.environ.setdefault(name, value)
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise RuntimeUnavailable(
            f"the tensorflow trainer needs TensorFlow ({error}); {install('tensorflow')}"
        ) from error
    return "tensorflow"


def load(bundle: Bundle) -> "TensorflowTrainer":
    """The trainer of a bundle; raises GraphError for a Keras file that does not fit its layout."""
    return TensorflowTrainer(bundle)


class TensorflowTrainer:
    """Holds the network; weights come and go as one flat vector in the order of ``Manifest.layers``."""

    def __init__(self, bundle: Bundle) -> None:
        import tensorflow as tf

        self._tf = tf
        self._batch = bundle.manifest.batch_size
        self._classes = len(bundle.manifest.classes)
        self._shapes = [tuple(layer.shape) for layer in bundle.manifest.layers]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            path.write_bytes(bundle.keras)
            try:
                self._model = tf.keras.models.load_model(path, compile=False, safe_mode=True)
            except (ValueError, OSError, KeyError, TypeError) as error:
                raise GraphError(f"model.keras cannot be loaded ({error})") from error
        found = [tuple(variable.shape) for variable in self._model.trainable_variables]
        if found != self._shapes:
            raise GraphError(f"model.keras has weights of the shapes {found}, the layout says {self._shapes}")
        self._model.layers[-1].activation = tf.keras.activations.linear  # logits: the loss has the softmax
        size = bundle.manifest.weights_size
        self._size = size
        rows = tf.TensorSpec([None, bundle.manifest.features.size], tf.float32)
        labels, vector = tf.TensorSpec([None], tf.int32), tf.TensorSpec([size], tf.float32)
        scalar, prior = tf.TensorSpec([], tf.float32), tf.TensorSpec([self._classes], tf.float32)
        self._step = tf.function(
            self._step_eagerly,
            input_signature=[
                rows,
                labels,
                vector,
                vector,
                vector,
                scalar,
                scalar,
                vector,
                scalar,
                vector,
                prior,
            ],
        )
        self._loss = tf.function(self._loss_eagerly, input_signature=[rows, labels, prior])

    def train_epoch(
        self,
        *,
        features: Floats,
        labels: Ints,
        order: Ints,
        state: TrainState,
        learning_rate: float,
        anchor: Floats,
        mu: float,
        trainable: Floats,
        log_prior: Floats,
    ) -> tuple[TrainState, float]:
        """One epoch; see ``samd_edge.runtime.Graph.train_epoch``."""
        if order.size == 0 or order.max(initial=-1) >= len(features) or order.min(initial=0) < -1:
            raise GraphError(f"order names rows outside 0 to {len(features) - 1}, or none")
        self._check(state.weights, anchor, trainable)
        tf = self._tf
        weights, m, v, t = (tf.constant(value, tf.float32) for value in state)
        fixed = [
            tf.constant(value, tf.float32) for value in (learning_rate, anchor, mu, trainable, log_prior)
        ]
        total = 0.0
        for start in range(0, len(order) - len(order) % self._batch, self._batch):
            chosen = order[start : start + self._batch]
            chosen = chosen[chosen >= 0]
            if not len(chosen):
                continue
            weights, m, v, t, loss = self._step(
                features[chosen].astype(np.float32), labels[chosen].astype(np.int32), weights, m, v, t, *fixed
            )
            total += float(loss) * len(chosen)
        new = TrainState(weights.numpy(), m.numpy(), v.numpy(), float(t))
        return new, total / max(int((order >= 0).sum()), 1)

    def evaluate(self, features: Floats, labels: Ints, weights: Floats) -> tuple[float, NDArray[np.int64]]:
        """The mean loss, and counts ``int64[C, C]`` as ``[true][predicted]``."""
        self._check(weights)
        self._put(self._tf.constant(weights, self._tf.float32))
        loss, logits = self._loss(
            features.astype(np.float32), labels.astype(np.int32), np.zeros(self._classes, np.float32)
        )
        confusion = np.zeros((self._classes, self._classes), dtype=np.int64)
        np.add.at(confusion, (labels, logits.numpy().argmax(axis=1)), 1)
        return float(loss), confusion

    def infer(self, features: Floats, weights: Floats) -> Floats:
        """Class probabilities ``float32[N, C]``."""
        self._check(weights)
        self._put(self._tf.constant(weights, self._tf.float32))
        logits = self._model(features.astype(np.float32), training=False)
        return np.asarray(self._tf.nn.softmax(logits).numpy(), dtype=np.float32)

    def _check(self, *vectors: Floats) -> None:
        for vector in vectors:
            if vector.shape != (self._size,):
                raise GraphError(
                    f"a vector of the shape {vector.shape}; the network has {self._size} weights"
                )

    def _put(self, weights: Any) -> None:
        tf = self._tf
        pieces = tf.split(weights, [int(np.prod(shape)) for shape in self._shapes])
        for variable, piece, shape in zip(self._model.trainable_variables, pieces, self._shapes, strict=True):
            variable.assign(tf.reshape(piece, shape))

    def _loss_eagerly(self, features: Any, labels: Any, log_prior: Any) -> Any:
        tf = self._tf
        logits = self._model(features, training=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits + log_prior)
        return tf.reduce_mean(losses), logits

    def _step_eagerly(  # noqa: PLR0917  (tf.function takes them in the order of its signature)
        self,
        features: Any,
        labels: Any,
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
        tf = self._tf
        self._put(weights)
        with tf.GradientTape() as tape:
            loss, _ = self._loss_eagerly(features, labels, log_prior)
        pieces = tape.gradient(loss, self._model.trainable_variables)
        gradient = tf.concat([tf.reshape(piece, [-1]) for piece in pieces], 0) + mu * (weights - anchor)
        t += 1.0
        m += trainable * (gradient - m) * (1 - BETA_1)
        v += trainable * (gradient * gradient - v) * (1 - BETA_2)
        rate = learning_rate * tf.sqrt(1 - tf.pow(BETA_2, t)) / (1 - tf.pow(BETA_1, t))
        return weights - trainable * m * rate / (tf.sqrt(v) + EPSILON), m, v, t, loss

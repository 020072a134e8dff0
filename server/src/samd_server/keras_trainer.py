"""The same training by TensorFlow: Keras layers, Keras' own Adam, gradients by tape.

It is the reference for the graph (the same rows in the same order give the same weights to 1e-4) and the way
out for a network that the converter refuses. It needs TensorFlow, and so a process without `tflite-runtime`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samd_protocol.bundle import Layer
from samd_server import network
from samd_server.export import BETA_1, BETA_2, EPSILON


class KerasTrainer:
    """Weights and Adam's state, held by Keras. `part` "body" or "head" freezes the rest."""

    def __init__(
        self,
        layers: Sequence[Layer],
        weights: NDArray[np.float32],
        *,
        learning_rate: float,
        batch_size: int = 32,
        mu: float = 0.0,
        part: Literal["body", "head"] | None = None,
        log_prior: ArrayLike | None = None,
    ) -> None:
        self._tf = network.tensorflow()
        kernels = [layer.shape for layer in layers if len(layer.shape) == 2]
        self._model = network.build(kernels[0][0], [shape[1] for shape in kernels[:-1]], kernels[-1][1], 0)
        start = network.unflatten(np.asarray(weights, dtype=np.float32), layers)
        self._model.set_weights(start)
        self._optimizer = self._tf.keras.optimizers.Adam(learning_rate, BETA_1, BETA_2, epsilon=EPSILON)
        self._batch_size = batch_size
        self._chosen = [number for number, layer in enumerate(layers) if part in (None, layer.part)]
        self._optimizer.build([self._model.weights[number] for number in self._chosen])
        self._anchor = [self._tf.constant(array) for array in start]
        self._mu = mu
        prior = np.zeros(kernels[-1][1]) if log_prior is None else np.asarray(log_prior)
        self._prior = self._tf.constant(prior, dtype=self._tf.float32)
        self._step = self._tf.function(self._one_step, reduce_retracing=True)

    @property
    def weights(self) -> NDArray[np.float32]:
        """float32[P]."""
        return network.flatten(self._model)

    def epoch(self, features: NDArray[np.float32], labels: ArrayLike, order: ArrayLike) -> float:
        """One epoch over `order` (row numbers; -1 is padding); the mean loss over its rows."""
        classes, total, seen = np.asarray(labels, dtype=np.int32), 0.0, 0
        for batch in np.asarray(order).reshape(-1, self._batch_size):
            rows = batch[batch >= 0]
            if len(rows):
                total += float(self._step(features[rows], classes[rows])) * len(rows)
                seen += len(rows)
        return total / seen if seen else 0.0

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities float32[N, 4]."""
        return np.asarray(self._model(features), dtype=np.float32)

    def _one_step(self, x: Any, y: Any) -> Any:
        tf = self._tf
        with tf.GradientTape() as tape:
            *hidden, head = self._model.layers
            for layer in hidden:
                x = layer(x)
            z = tf.matmul(x, head.kernel) + head.bias + self._prior
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=z))
        variables = [self._model.weights[number] for number in self._chosen]
        gradients = [
            gradient + self._mu * (variable - self._anchor[number])
            for gradient, variable, number in zip(
                tape.gradient(loss, variables), variables, self._chosen, strict=True
            )
        ]
        self._optimizer.apply(gradients, variables)
        return loss

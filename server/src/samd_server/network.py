"""The network: dense layers, ReLU between them, softmax over the classes; and the flat vector it becomes.

The layout is decided here, without TensorFlow: kernel (row-major, inputs by outputs) and bias of each dense
layer in order. The last layer is the head, which personalisation may keep apart (FedPer); the rest is body.
"""

import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from samd_protocol.bundle import Layer


def layers(inputs: int, hidden: Sequence[int], classes: int) -> list[Layer]:
    """The layout of the flat weight vector. Raises ValueError for a width that is not positive."""
    widths = [inputs, *hidden, classes]
    if any(width < 1 for width in widths):
        raise ValueError(f"the widths of the layers are {widths}; each is 1 or more")
    pieces = []
    for number, (rows, columns) in enumerate(itertools.pairwise(widths), start=1):
        part: Literal["body", "head"] = "head" if number == len(widths) - 1 else "body"
        pieces.append(Layer(name=f"dense_{number}/kernel", shape=[rows, columns], part=part))
        pieces.append(Layer(name=f"dense_{number}/bias", shape=[columns], part=part))
    return pieces


def trainable(pieces: Sequence[Layer], part: Literal["body", "head"] | None = None) -> NDArray[np.float32]:
    """float32[P]: 1 for each weight of `part` ("body" or "head"; None: all), else 0."""
    return np.concatenate(
        [np.full(piece.size, part is None or piece.part == part, dtype=np.float32) for piece in pieces]
    )


def tensorflow() -> Any:
    """TensorFlow, imported without its chatter and without looking for a graphics card.

    oneDNN is off: it sums in an order that depends on the machine.
    """
    for name, value in (
        ("TF_CPP_MIN_LOG_LEVEL", "3"),
        ("TF_CPP_MAX_VLOG_LEVEL", "0"),
        ("ABSL_MIN_LOG_LEVEL", "3"),
        ("TF_ENABLE_ONEDNN_OPTS", "0"),
        ("CUDA_VISIBLE_DEVICES", "-1"),
    ):
        os.environ.setdefault(name, value)
    with quiet():
        import absl.logging
        import tensorflow as tf

    absl.logging.set_verbosity(absl.logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    return tf


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the chatter of TensorFlow's C++ off stderr; if the work fails, show it after all.

    It is written to the file descriptor before any log level is heeded, so nothing less helps.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(saved, said.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def build(inputs: int, hidden: Sequence[int], classes: int, seed: int, name: str = "severity") -> Any:
    """The Keras model, Glorot-initialised from `seed` alone; needs TensorFlow."""
    keras = tensorflow().keras
    widths = [*hidden, classes]
    stack = [keras.Input((inputs,), name="features")]
    for number, width in enumerate(widths, start=1):
        stack.append(
            keras.layers.Dense(
                width,
                activation="softmax" if number == len(widths) else "relu",
                kernel_initializer=keras.initializers.GlorotUniform(seed=seed * 1000 + number),
                name=f"dense_{number}",
            )
        )
    return keras.Sequential(stack, name=name)


Forward = Callable[[Any, Callable[[Any], Any], Sequence[Any], Any], Any]
"""From TensorFlow, a rectifier, the arrays of the layout and rows [B, F] to logits [B, C]."""


def dense(tf: Any, relu: Callable[[Any], Any], parts: Sequence[Any], x: Any) -> Any:
    """The forward pass of `layers`: kernel and bias of each dense layer in turn, the last without ReLU."""
    for kernel, bias in zip(parts[:-2:2], parts[1:-2:2], strict=True):
        x = relu(tf.matmul(x, kernel) + bias)
    return tf.matmul(x, parts[-2]) + parts[-1]


def flatten(model: Any) -> NDArray[np.float32]:
    """The weights of a Keras model as one flat vector float32[P] in the order of `layers`."""
    return np.concatenate([np.asarray(values, dtype=np.float32).ravel() for values in model.get_weights()])


def unflatten(vector: NDArray[np.float32], pieces: Sequence[Layer]) -> list[NDArray[np.float32]]:
    """The arrays of each piece. Raises ValueError for a vector that does not fit the layout."""
    size = sum(piece.size for piece in pieces)
    if vector.shape != (size,):
        raise ValueError(f"weights of the shape {vector.shape}; the layout has {size} values")
    arrays, start = [], 0
    for piece in pieces:
        arrays.append(vector[start : start + piece.size].reshape(piece.shape))
        start += piece.size
    return arrays

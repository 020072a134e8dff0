"""Vocabulary 2, the wire: topics, messages, training tasks and updates, the model bundle, the broker's URL.

What crosses between the programs is defined here and nowhere else. Nothing in this package computes a
score, trains a model or keeps state; it knows nothing of the programs and nothing of the clinical words
beyond their spelling on the wire.
"""

PROTOCOL_VERSION = 1
"""Version written into every message; a program accepts its own version and the one before."""

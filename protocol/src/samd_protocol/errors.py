"""The errors of this package.

ProtocolError
├── MessageError   a message, task or update that cannot be accepted: drop it, count it, go on
├── BundleError    a model file that cannot be trusted or read: never load it
└── BrokerError    a broker setting that cannot work: stop and correct the configuration
"""


class ProtocolError(Exception):
    """Base of everything that this package raises on purpose; its text is one plain sentence."""


class MessageError(ProtocolError):
    """A received message is malformed, too old, too new, or damaged; `reason` is a short fixed word."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class BundleError(ProtocolError):
    """A bundle is truncated, tampered with, or of an unknown format."""


class BrokerError(ProtocolError):
    """A broker URL or its files are unusable."""

"""The errors of this package.

ProtocolError
├── MessageError   a message, task or update that cannot be accepted: drop it, count it, go on
├── BundleError    a model file that cannot be trusted or read: never load it
└── BrokerError    a broker setting that cannot work: stop and correct the configuration
"""

_LONGEST = 600  # characters


class ProtocolError(Exception):
    """Base of everything that this package raises on purpose; its text is one plain sentence.

    Whatever a sender wrote into it: on one line, printable, and cut in the middle when it is long."""

    def __init__(self, text: str) -> None:
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 3 :]}"
        if not text.isprintable():
            text = "".join(
                char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
            )
        super().__init__(text)


class MessageError(ProtocolError):
    """A received message is malformed, too old, too new, or damaged; `reason` is a short fixed word."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class BundleError(ProtocolError):
    """A bundle is truncated, tampered with, or of an unknown format."""


class BrokerError(ProtocolError):
    """A broker URL or its files are unusable."""

"""What a receiver's certificate is checked with."""

import ssl
from pathlib import Path

from samd_gateway.alerts.channel import secret_path
from samd_gateway.alerts.delivery import DeliveryError


def context_for(folder: Path, ca: str | None) -> ssl.SSLContext:
    """TLS 1.2 or later, the name checked, against an authority of one's own or those of the system."""
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(secret_path(folder, ca)))
    except OSError as error:
        raise DeliveryError(
            f"the file {ca} cannot be used as an authority ({type(error).__name__})"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context

"""When the device's own certificate ends: one field of X.509 (RFC 5280), read without a library.

A device has no library for certificates (the one that the field uses is larger than the client), and Python's
`ssl` tells the end of the peer's certificate only. The walk stops at the first byte that is not as expected.
"""

import ssl
from datetime import UTC, datetime
from pathlib import Path

_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def expires_at(path: str | Path) -> datetime | None:
    """The `notAfter` of the first certificate in a PEM file; None where there is none that can be read."""
    try:
        text = Path(path).read_text("ascii")
        first = text[text.index(_BEGIN) : text.index(_END) + len(_END)]
        return not_after(ssl.PEM_cert_to_DER_cert(first))
    except (OSError, ValueError, IndexError):
        return None


def not_after(der: bytes) -> datetime:
    """The end of a certificate's validity. Raises ValueError or IndexError for what is no certificate."""
    _, certificate, _ = _element(der, 0)
    _, tbs, _ = _element(certificate, 0)
    fields = _elements(tbs)
    if fields[0][0] == _VERSION:
        fields = fields[1:]
    # serialNumber, signature, issuer, validity
    tag, validity = fields[3]
    if tag != _SEQUENCE:
        raise ValueError("no validity where it should stand")
    tag, value = _elements(validity)[1]
    text = value.decode("ascii")
    if tag == _UTC_TIME:
        # two digits of the year: 50 to 99 are of the 20th century
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time where the end should stand")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(data):
        tag, value, at = _element(data, at)
        found.append((tag, value))
    return found


def _element(data: bytes, at: int) -> tuple[int, bytes, int]:
    """Tag, content and end of the DER element that begins at `at`."""
    tag, length, start = data[at], data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    end = start + length
    if end > len(data):
        raise ValueError("an element is longer than what holds it")
    return tag, data[start:end], end

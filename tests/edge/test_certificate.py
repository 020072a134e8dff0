"""The end of the device's own certificate, beside what the `cryptography` library reads."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from samd_edge.certificate import expires_at, not_after


def certificate(end: datetime) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bed-01")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=1))
        .not_valid_after(end)
        .sign(key, hashes.SHA256())
    )


@pytest.mark.parametrize("year", [1999, 2027, 2049, 2050, 2120])
def test_the_end_is_what_the_library_says(tmp_path, year: int) -> None:
    # until 2049 it is written with two digits of the year, from 2050 on with four
    made = certificate(datetime(year, 6, 30, 23, 59, 58, tzinfo=UTC))
    path = tmp_path / "bed-01.pem"
    path.write_bytes(b"Bag Attributes\n" + made.public_bytes(serialization.Encoding.PEM) * 2)
    assert expires_at(path) == made.not_valid_after_utc == datetime(year, 6, 30, 23, 59, 58, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"]
)
def test_what_is_none_has_no_end(tmp_path, text: str) -> None:
    path = tmp_path / "bed-01.pem"
    path.write_text(text)
    assert expires_at(path) is None
    assert expires_at(tmp_path / "missing.pem") is None


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_refused_and_nothing_worse(data: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        not_after(data)


def test_a_certificate_that_was_cut_is_refused_at_every_length() -> None:
    der = certificate(datetime(2030, 1, 1, tzinfo=UTC)).public_bytes(serialization.Encoding.DER)
    for length in range(len(der)):
        with pytest.raises((ValueError, IndexError)):
            not_after(der[:length])

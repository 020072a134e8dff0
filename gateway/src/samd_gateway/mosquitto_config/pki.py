"""Certificates for a closed group: an authority (P-256), what it issues, and its list of revoked ones (CRL).

For a trial and for a small site. The authority's key makes any certificate: keep it off the broker's machine.
A CRL has an end, and a broker refuses everybody once it has passed: it is written anew on each run.
"""

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from samd_gateway.errors import UsageError

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 398
CRL_DAYS = 30
BACK = timedelta(minutes=5)
"""Valid so long before it was made: clocks differ."""

Key = ec.EllipticCurvePrivateKey


def write_private(path: Path, content: bytes) -> None:
    """A secret: for its owner alone, whole or not at all."""
    part = path.with_suffix(path.suffix + ".part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
    part.replace(path)


def _pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign,
        crl_sign=sign,
        encipher_only=False,
        decipher_only=False,
    )


def _hosts(names: list[str]) -> x509.SubjectAlternativeName:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return x509.SubjectAlternativeName(found)


class Authority:
    """`NAME.crt`, `keys/NAME.key`, `NAME.crl` in a folder; what it issues lies in `certs` and `keys`."""

    def __init__(self, folder: Path, name: str, *, now: datetime | None = None) -> None:
        """Make it, or take what is there. Raises UsageError for files that cannot be used."""
        self.folder = folder
        self.name = name
        self._now = now or datetime.now(UTC)
        for each in (folder, folder / "keys", folder / "certs"):
            each.mkdir(mode=0o711 if each.name == "keys" else 0o755, parents=True, exist_ok=True)
        self.certificate_file = folder / f"{name}.crt"
        self.revoked_file = folder / f"{name}.revoked"
        key_file = folder / "keys" / f"{name}.key"
        if self.certificate_file.exists() != key_file.exists():
            raise UsageError(f"{folder}: {name}.crt and keys/{name}.key belong together, and one is missing")
        if not key_file.exists():
            self._make(key_file)
        try:
            key = serialization.load_pem_private_key(key_file.read_bytes(), None)
            self._certificate = x509.load_pem_x509_certificate(self.certificate_file.read_bytes())
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"{key_file}: cannot be read as the authority's key; {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise UsageError(f"{key_file}: is no key of an elliptic curve")
        self._key = key

    def _make(self, key_file: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _named(f"samd {self.name}")
        certificate = (
            self._builder(name, name, key.public_key(), AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        write_private(key_file, _pem(key))
        self.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: float
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - BACK)
            .not_valid_after(self._now + timedelta(days=days))
        )

    def issue(self, common_name: str, *, hosts: list[str] | None = None, file: str | None = None) -> bool:
        """A certificate with its key, for a server with these `hosts`, else for a client; whether it was
        made: one that is there, and not about to end, stays."""
        file = file or common_name
        certificate_file, key_file = (
            self.folder / "certs" / f"{file}.crt",
            self.folder / "keys" / f"{file}.key",
        )
        if certificate_file.exists() and key_file.exists() and self._good(certificate_file, hosts):
            return False
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            self._builder(_named(common_name), self._certificate.subject, key.public_key(), CERTIFICATE_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if hosts:
            builder = builder.add_extension(_hosts(hosts), critical=False)
        write_private(key_file, _pem(key))
        signed = builder.sign(self._key, hashes.SHA256())
        certificate_file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return True

    def _good(self, file: Path, hosts: list[str] | None) -> bool:
        try:
            found = x509.load_pem_x509_certificate(file.read_bytes())
        except (OSError, ValueError):
            return False
        if found.not_valid_after_utc < self._now + timedelta(days=CERTIFICATE_DAYS / 3):
            return False
        if not hosts:
            return True
        try:
            named = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return False
        return named == _hosts(hosts)

    def revoke(self, name: str) -> None:
        """Never again. Raises UsageError for a certificate that is not here."""
        file = self.folder / "certs" / f"{name}.crt"
        try:
            found = x509.load_pem_x509_certificate(file.read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError(f"--revoke {name}: {file} cannot be read; it lists what was issued") from error
        with self.revoked_file.open("a", encoding="utf-8") as out:
            out.write(f"{found.serial_number:x} {self._now.isoformat()} {name}\n")
        file.replace(file.with_suffix(".revoked"))
        (self.folder / "keys" / f"{name}.key").unlink(missing_ok=True)

    def write_crl(self) -> datetime:
        """The list of revoked certificates, signed anew; returns when it ends."""
        end = self._now + timedelta(days=CRL_DAYS)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(self._now - BACK)
            .next_update(end)
        )
        lines = self.revoked_file.read_text("utf-8").splitlines() if self.revoked_file.exists() else []
        for line in lines:
            serial, at, _ = line.split(" ", 2)
            revoked = (
                x509.RevokedCertificateBuilder()
                .serial_number(int(serial, 16))
                .revocation_date(datetime.fromisoformat(at))
                .build()
            )
            builder = builder.add_revoked_certificate(revoked)
        signed = builder.sign(self._key, hashes.SHA256())
        part = self.folder / f"{self.name}.crl.part"
        part.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        part.replace(self.folder / f"{self.name}.crl")
        return end

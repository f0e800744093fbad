"""Keys and certificates for tests, made on the spot."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID


class Identity(NamedTuple):
    """Paths of a private key and its certificate."""

    key: Path
    certificate: Path


def new_key(is_rsa: bool = True):
    return rsa.generate_private_key(65537, 2048) if is_rsa else ec.generate_private_key(ec.SECP256R1())


def make(
    directory: Path, name: str, *, days: tuple[float, float] = (-1, 365), password: str = "", key=None, store=None
) -> Identity:
    """Write the key of ``name`` and a certificate that is valid from and to so many days from now.

    The certificate lies in the directory ``store`` if one is given.
    """
    key = key or new_key()
    directory.mkdir(exist_ok=True)
    now = datetime.now(timezone.utc)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Celeriac"),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .sign(key, hashes.SHA256())
    )
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password.encode())
    store = store or directory
    store.mkdir(exist_ok=True)
    identity = Identity(directory / f"{name}.key", store / f"{name}.pem")
    identity.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, encryption)
    )
    identity.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return identity

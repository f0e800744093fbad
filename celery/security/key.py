"""The private key that signs."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from kombu.utils.encoding import ensure_bytes

from celery.security.utils import reraise_errors

__all__ = ("PrivateKey",)


class PrivateKey:
    """An RSA key in PEM format.

    Raises:
        SecurityError: it is none, or ``password`` does not open it.
    """

    def __init__(self, key: str | bytes, password: str | bytes | None = None) -> None:
        with reraise_errors("Invalid private key: {0!r}", errors=(ValueError, TypeError)):
            loaded = serialization.load_pem_private_key(ensure_bytes(key), ensure_bytes(password) or None)
            if not isinstance(loaded, rsa.RSAPrivateKey):
                raise ValueError("only RSA keys can sign messages")
        self._key = loaded

    def sign(self, data: str | bytes, digest: Any) -> bytes:
        """Return the signature of ``data`` (PSS) with ``digest``, an object of cryptography's."""
        return self._key.sign(ensure_bytes(data), padding.PSS(padding.MGF1(digest), padding.PSS.MAX_LENGTH), digest)

    def belongs_to(self, public_key: Any) -> bool:
        """Return whether ``public_key``, an object of cryptography's, is its other half."""
        return bool(self._key.public_key().public_numbers() == public_key.public_numbers())

"""The serializer `auth`: a body, signed.

What travels is the base64 form of five parts between separators: the id of the certificate (base64), the signature of
the last part (base64), content type and content encoding of the last part, and the serialized value itself.
Upstream: Celery's format, either way.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Any

from kombu.serialization import dumps, loads, registry
from kombu.utils.encoding import bytes_to_str, ensure_bytes

from celery.exceptions import SecurityError
from celery.security.certificate import Certificate, FSCertStore
from celery.security.key import PrivateKey
from celery.security.utils import get_digest_algorithm, reraise_errors

__all__ = ("SecureSerializer", "register_auth")

DEFAULT_SEPARATOR = b"\x00\x01"

_PARTS = 5


class SecureSerializer:
    """Signs with ``key``, whose certificate is ``cert``; takes what a certificate of ``cert_store`` has signed.

    ``serializer`` is the one inside.  The signature does not cover its name, so besides it only JSON and
    ``allowed_serializers`` are read: else a captured body could be given to another decoder.
    """

    def __init__(
        self,
        key: PrivateKey | None = None,
        cert: Certificate | None = None,
        cert_store: Any = None,
        digest: str = "sha256",
        serializer: str = "json",
        allowed_serializers: Iterable[str] = (),
    ) -> None:
        self._key = key
        self._cert = cert
        self._cert_store = cert_store
        self._digest = get_digest_algorithm(digest)
        self._serializer = serializer
        names = {"json", serializer, *allowed_serializers} - {"auth"}
        self._inner_types = {registry.name_to_type[name] for name in names if name in registry.name_to_type}

    def serialize(self, data: Any) -> str:
        """Return ``data`` serialized and signed.

        Raises:
            SecurityError: it cannot be serialized, or there is no key to sign with.
        """
        if self._key is None or self._cert is None:
            raise SecurityError("Unable to serialize: a key and its certificate are needed to sign")
        with reraise_errors("Unable to serialize: {0!r}", (Exception,)):
            content_type, content_encoding, body = dumps(data, serializer=self._serializer)
            body = ensure_bytes(body)
            return self._pack(content_type, content_encoding, body, self._key.sign(body, self._digest))

    def _pack(self, content_type: str, content_encoding: str, body: bytes, signature: bytes) -> str:
        assert self._cert is not None
        head = (ensure_bytes(self._cert.get_id()), signature)
        parts = (*map(b64encode, head), ensure_bytes(content_type), ensure_bytes(content_encoding), body)
        return bytes_to_str(b64encode(DEFAULT_SEPARATOR.join(parts)))

    def deserialize(self, data: str | bytes) -> Any:
        """Return the value in ``data``.

        Raises:
            SecurityError: it is not signed, not by one of the store, by an expired certificate, or was changed.
        """
        if self._cert_store is None:
            raise SecurityError("Unable to deserialize: a certificate store is needed to tell who has signed")
        with reraise_errors("Unable to deserialize: {0!r}", (Exception,)):
            signer, signature, content_type, content_encoding, body = _unpack(data)
            certificate = self._cert_store[signer]
            certificate.check_time()
            certificate.verify(body, signature, self._digest)
            if content_type not in self._inner_types:
                raise SecurityError(f"content of type {content_type!r} is not taken from signed messages")
            return loads(body, content_type, content_encoding, force=True)


def _unpack(data: str | bytes) -> tuple[str, bytes, str, str, bytes]:
    """Return id of the certificate, signature, content type, content encoding and body."""
    # At most so many parts: the body may hold the separator.
    parts = b64decode(ensure_bytes(data), validate=True).split(DEFAULT_SEPARATOR, maxsplit=_PARTS - 1)
    if len(parts) != _PARTS:
        raise SecurityError("it is not signed")
    signer, signature, content_type, content_encoding, body = parts
    return (
        b64decode(signer, validate=True).decode(),
        b64decode(signature, validate=True),
        content_type.decode(),
        content_encoding.decode(),
        body,
    )


def register(serializer: SecureSerializer) -> None:
    """Make ``serializer`` the one called `auth` in this process."""
    registry.register(
        "auth",
        serializer.serialize,
        serializer.deserialize,
        content_type="application/data",
        content_encoding="utf-8",
    )
    registry.enable("auth")


def register_auth(
    key: str | bytes | None = None,
    key_password: Any = None,
    cert: str | bytes | None = None,
    store: str | None = None,
    digest: str = "sha256",
    serializer: str = "json",
) -> None:
    """Register the serializer `auth`; ``key`` and ``cert`` are PEM texts, ``store`` a directory or a pattern."""
    register(
        SecureSerializer(
            key and PrivateKey(key, key_password),  # type: ignore[arg-type]  # an empty text is none
            cert and Certificate(cert),  # type: ignore[arg-type]
            store and FSCertStore(store),
            digest,
            serializer,
        )
    )

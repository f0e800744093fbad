"""Signed messages: who may send, proved by certificates.

::

    setup_security ─ register_auth      the serializer `auth`, as Celery has it: the body is signed
                   └ Signing            ours: one signature over all that decides what runs, in a header

See docs/design/signing.md for what each of the two keeps out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kombu.serialization import disable_insecure_serializers

from celery._state import get_current_app
from celery.exceptions import ImproperlyConfigured, SecurityError

__all__ = ("setup_security",)

_NEEDS_CRYPTOGRAPHY = "Signed messages need the library cryptography: pip install 'celery[auth]'."

_NEEDS_SERIALIZER = (
    "Signed messages need `task_serializer = 'auth'`, which signs, and `accept_content = ['auth']`, which refuses what "
    "is not signed."
)

_NEEDS_FILES = (
    "Signed messages need a private key, its certificate and the certificates of all who may send: set `security_key`, "
    "`security_certificate` and `security_cert_store`."
)


def setup_security(
    allowed_serializers: Iterable[str] | None = None,
    key: str | None = None,
    key_password: Any = None,
    cert: str | None = None,
    store: str | None = None,
    digest: str | None = None,
    serializer: str = "json",
    app: Any = None,
) -> None:
    """Sign what ``app`` sends, and refuse what nobody in the certificate store has signed.

    Every other serializer is switched off in this process, but those in ``allowed_serializers``.  ``key``, ``cert``
    and ``store`` are paths (the last a directory or a pattern); without them the settings ``security_key``,
    ``security_certificate`` and ``security_cert_store`` count, and likewise for ``key_password`` and ``digest``.
    ``serializer`` is the one inside of the signed body.

    Raises:
        ImproperlyConfigured: a setting or the library cryptography is missing.
        SecurityError: key or certificate cannot be read, they do not belong together, or a certificate of the store
            has expired.
    """
    app = app or get_current_app()
    conf = app.conf
    if conf.task_serializer != "auth" or list(conf.accept_content or ()) != ["auth"]:
        raise ImproperlyConfigured(_NEEDS_SERIALIZER)
    key = key or conf.security_key
    cert = cert or conf.security_certificate
    store = store or conf.security_cert_store
    if not (key and cert and store):
        raise ImproperlyConfigured(_NEEDS_FILES)
    try:
        from celery.security import certificate, serialization, signing
        from celery.security.key import PrivateKey
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cryptography":
            raise
        raise ImproperlyConfigured(_NEEDS_CRYPTOGRAPHY) from error

    allowed_serializers = list(allowed_serializers or ())
    private_key = PrivateKey(_read(key), key_password or conf.security_key_password)
    own = certificate.Certificate(_read(cert))
    if not private_key.belongs_to(own.get_pubkey()):
        raise SecurityError(f"The key in {key} is not that of the certificate in {cert}")
    known = certificate.FSCertStore(store)
    digest = digest or conf.security_digest
    secure = serialization.SecureSerializer(private_key, own, known, digest, serializer, allowed_serializers)
    disable_untrusted_serializers(allowed_serializers)
    serialization.register(secure)
    app.signing = signing.Signing(private_key, own, known, digest, conf)


def disable_untrusted_serializers(whitelist: Iterable[str] | None = None) -> None:
    """Refuse content of every serializer but those named in ``whitelist``."""
    disable_insecure_serializers(allowed=whitelist)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()

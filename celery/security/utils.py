"""Digests by name, and errors of the cryptography library made ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cryptography.exceptions
from cryptography.hazmat.primitives import hashes

from celery.exceptions import SecurityError

__all__ = ("get_digest_algorithm", "reraise_errors")


def get_digest_algorithm(digest: str = "sha256") -> Any:
    """Return the digest called ``digest``, as cryptography names it.

    Raises:
        SecurityError: there is no such digest.
    """
    found = getattr(hashes, str(digest).upper(), None)
    if not (isinstance(found, type) and issubclass(found, hashes.HashAlgorithm)):
        raise SecurityError(f"Unknown digest {digest!r} (setting `security_digest`): sha256, sha384 or sha512 will do.")
    return found()


@contextmanager
def reraise_errors(msg: str = "{0!r}", errors: Any = None) -> Iterator[None]:
    """Turn ``errors`` (default: those of cryptography) into `SecurityError`; ``msg`` is formatted with the cause."""
    expected: Any = cryptography.exceptions.InvalidSignature if errors is None else errors
    try:
        yield
    except expected as error:
        raise SecurityError(msg.format(error)) from error

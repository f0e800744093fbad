"""Certificates, and the store of those who may send."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509 import load_pem_x509_certificate
from kombu.utils.encoding import bytes_to_str, ensure_bytes

from celery.exceptions import SecurityError
from celery.security.utils import reraise_errors

__all__ = ("CertStore", "Certificate", "FSCertStore")

#: A store on disk is looked at again at most so often.
LOOK_SECONDS = 5.0


class Certificate:
    """An X.509 certificate in PEM format, of an RSA key.

    Raises:
        SecurityError: it is none.
    """

    def __init__(self, cert: str | bytes) -> None:
        with reraise_errors("Invalid certificate: {0!r}", errors=(ValueError, TypeError)):
            self._cert = load_pem_x509_certificate(ensure_bytes(cert))
            key = self._cert.public_key()
            if not isinstance(key, rsa.RSAPublicKey):
                raise ValueError("only certificates of RSA keys can prove who sent a message")
        self._key = key
        self._id = f"{self.get_issuer()} {self.get_serial_number()}"
        self._begins, self._ends = _validity(self._cert)

    def has_expired(self) -> bool:
        """Return whether its time is over."""
        return datetime.now(timezone.utc) >= self._ends

    def check_time(self) -> None:
        """Complain unless it is valid now.

        Raises:
            SecurityError: it has expired, or is not valid yet.
        """
        now = datetime.now(timezone.utc)
        if now >= self._ends:
            raise SecurityError(f"Expired certificate: {self._id!r}")
        if now < self._begins:
            raise SecurityError(f"Certificate is not valid yet: {self._id!r}")

    def get_pubkey(self) -> Any:
        """Return the public key, an object of cryptography's."""
        return self._key

    def get_serial_number(self) -> int:
        """Return the number that the issuer gave it."""
        return self._cert.serial_number

    def get_issuer(self) -> str:
        """Return the values of the issuer's name, separated by spaces."""
        return " ".join(str(part.value) for part in self._cert.issuer)

    def get_id(self) -> str:
        """Return what names it in messages: issuer and serial number."""
        return self._id

    def verify(self, data: str | bytes, signature: bytes, digest: Any) -> None:
        """Check that its key has signed ``data``.

        Raises:
            SecurityError: it has not.
        """
        with reraise_errors("Bad signature: {0!r}"):
            scheme = padding.PSS(padding.MGF1(digest), padding.PSS.AUTO)
            self._key.verify(signature, ensure_bytes(data), scheme, digest)


def _validity(cert: Any) -> tuple[datetime, datetime]:
    """Return when it begins and ends; cryptography before 42 gives times of UTC that do not say so."""
    if hasattr(cert, "not_valid_after_utc"):
        return cert.not_valid_before_utc, cert.not_valid_after_utc
    begins, ends = cert.not_valid_before, cert.not_valid_after
    return begins.replace(tzinfo=timezone.utc), ends.replace(tzinfo=timezone.utc)


class CertStore:
    """Certificates by id."""

    def __init__(self) -> None:
        self._certs: dict[str, Certificate] = {}

    def itercerts(self) -> Iterator[Certificate]:
        """Yield every certificate."""
        yield from self._certs.values()

    def __getitem__(self, id: str | bytes) -> Certificate:
        try:
            return self._certs[bytes_to_str(id)]
        except KeyError:
            raise SecurityError(f"Unknown certificate: {id!r}") from None

    def add_cert(self, cert: Certificate) -> None:
        """Add one.

        Raises:
            SecurityError: there is one with its id.
        """
        id = bytes_to_str(cert.get_id())
        if id in self._certs:
            raise SecurityError(f"Duplicate certificate: {id!r}")
        self._certs[id] = cert


class FSCertStore(CertStore):
    """The certificates in a directory, or in the files that a pattern finds.

    Files that come and go later are noticed within seconds, so that keys can be changed while workers run.

    Raises:
        SecurityError: one of them is no certificate, or has expired, when the store is opened.
    """

    def __init__(self, path: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._pattern = os.path.join(path, "*") if os.path.isdir(path) else path
        self._monotonic = monotonic
        self._files = self._look()
        for name in self._files:
            certificate = _certificate_in(name)
            if certificate.has_expired():
                raise SecurityError(f"Expired certificate: {certificate.get_id()!r}")
            self.add_cert(certificate)

    def __getitem__(self, id: str | bytes) -> Certificate:
        if self._monotonic() >= self._look_at:
            files = self._look()
            if files != self._files:
                self._files, self._certs = files, _certificates_in(files)
        return super().__getitem__(id)

    def _look(self) -> dict[str, tuple[int, int]]:
        """Return the files there are, with what tells that one has changed."""
        self._look_at = self._monotonic() + LOOK_SECONDS
        found = {}
        for name in sorted(glob.glob(self._pattern)):
            try:
                status = os.stat(name)
            except OSError:  # gone between the two looks
                continue
            found[name] = status.st_mtime_ns, status.st_ino
        return found


def _certificate_in(name: str) -> Certificate:
    with open(name, "rb") as file:
        return Certificate(file.read())


def _certificates_in(names: Any) -> dict[str, Certificate]:
    """Return what is good among the files, by id: one that is half written must not shut the others out."""
    found = {}
    for name in names:
        try:
            certificate = _certificate_in(name)
        except (SecurityError, OSError):
            continue
        found[bytes_to_str(certificate.get_id())] = certificate
    return found

from __future__ import annotations

import os

import pytest

from celery.exceptions import SecurityError
from celery.security.certificate import LOOK_SECONDS, Certificate, CertStore, FSCertStore
from celery.security.key import PrivateKey
from celery.security.utils import get_digest_algorithm, reraise_errors

DIGEST = get_digest_algorithm()


def test_what_a_key_signs_its_certificate_verifies(read):
    key, certificate = PrivateKey(read("alice.key")), Certificate(read("alice.pem"))
    signature = key.sign("grüße", DIGEST)

    certificate.verify("grüße", signature, DIGEST)
    certificate.verify("grüße".encode(), signature, DIGEST)
    with pytest.raises(SecurityError, match="Bad signature"):
        certificate.verify("gruesse", signature, DIGEST)
    with pytest.raises(SecurityError, match="Bad signature"):
        Certificate(read("bob.pem")).verify("grüße", signature, DIGEST)
    with pytest.raises(SecurityError, match="Bad signature"):
        certificate.verify("grüße", signature, get_digest_algorithm("sha512"))


def test_a_key_knows_its_other_half(read):
    key = PrivateKey(read("alice.key").encode())

    assert key.belongs_to(Certificate(read("alice.pem").encode()).get_pubkey())
    assert not key.belongs_to(Certificate(read("bob.pem")).get_pubkey())


@pytest.mark.parametrize("password", ["secret", b"secret"])
def test_a_locked_key_opens_with_its_password(read, password):
    assert PrivateKey(read("locked.key"), password).sign("x", DIGEST)


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("locked.key", None),
        ("locked.key", "wrong"),
        ("alice.key", "needless"),
        ("curve.key", None),
        ("alice.pem", None),
    ],
)
def test_what_is_no_usable_key_is_refused(read, name, password):
    with pytest.raises(SecurityError, match="Invalid private key"):
        PrivateKey(read(name), password)


@pytest.mark.parametrize("text", ["junk", b"", None])
def test_what_is_no_certificate_is_refused(text):
    with pytest.raises(SecurityError, match="Invalid certificate"):
        Certificate(text)


def test_a_certificate_of_another_kind_of_key_is_refused(read):
    with pytest.raises(SecurityError, match="RSA"):
        Certificate(read("curve.pem"))


def test_a_certificate_is_named_by_issuer_and_serial_number(read):
    certificate = Certificate(read("alice.pem"))

    assert certificate.get_issuer() == "alice Celeriac"
    assert certificate.get_id() == f"alice Celeriac {certificate.get_serial_number()}"


def test_a_certificate_has_its_time(read):
    assert not Certificate(read("alice.pem")).has_expired()
    assert Certificate(read("old.pem")).has_expired()
    assert not Certificate(read("early.pem")).has_expired()
    Certificate(read("alice.pem")).check_time()
    with pytest.raises(SecurityError, match="Expired"):
        Certificate(read("old.pem")).check_time()
    with pytest.raises(SecurityError, match="not valid yet"):
        Certificate(read("early.pem")).check_time()


def test_a_store_finds_certificates_by_id(read):
    store, certificate = CertStore(), Certificate(read("alice.pem"))
    store.add_cert(certificate)

    assert store[certificate.get_id()] is store[certificate.get_id().encode()] is certificate
    assert list(store.itercerts()) == [certificate]
    with pytest.raises(SecurityError, match="Duplicate"):
        store.add_cert(certificate)
    with pytest.raises(SecurityError, match="Unknown certificate: 'nobody'"):
        store["nobody"]


@pytest.mark.parametrize("end", ["", "/", "/*.pem"])
def test_a_store_on_disk_is_a_directory_or_a_pattern(directory, end):
    found = FSCertStore(f"{directory}/store{end}")

    assert sorted(certificate.get_issuer() for certificate in found.itercerts()) == ["alice Celeriac", "bob Celeriac"]


def test_a_store_on_disk_with_an_expired_certificate_is_not_opened(directory):
    with pytest.raises(SecurityError, match="Expired certificate: 'old Celeriac"):
        FSCertStore(f"{directory}/old.pem")


def test_a_store_on_disk_notices_what_comes_and_goes(read, tmp_path):
    now = 0.0
    (tmp_path / "alice.pem").write_text(read("alice.pem"))
    store = FSCertStore(str(tmp_path), monotonic=lambda: now)
    alice, bob = (Certificate(read(name)).get_id() for name in ("alice.pem", "bob.pem"))

    (tmp_path / "bob.pem").write_text(read("bob.pem"))
    (tmp_path / "half.pem").write_text("half written")
    with pytest.raises(SecurityError):
        store[bob]
    now += LOOK_SECONDS
    assert store[bob].get_id() == bob

    os.unlink(tmp_path / "alice.pem")
    assert store[alice].get_id() == alice
    now += LOOK_SECONDS
    with pytest.raises(SecurityError):
        store[alice]


@pytest.mark.parametrize("name", ["sha256", "SHA512", "sha384"])
def test_digests_have_names(name):
    assert get_digest_algorithm(name).name == name.lower()


@pytest.mark.parametrize("name", ["nonsense", "HashAlgorithm", None, ""])
def test_an_unknown_digest_is_refused_by_name(name):
    with pytest.raises(SecurityError, match="security_digest"):
        get_digest_algorithm(name)


def test_errors_become_security_errors_with_their_cause():
    with (
        pytest.raises(SecurityError, match="while reading: ValueError") as caught,
        reraise_errors("while reading: {0!r}", (ValueError,)),
    ):
        raise ValueError("bad")
    assert isinstance(caught.value.__cause__, ValueError)

    with pytest.raises(KeyError), reraise_errors():
        raise KeyError("another matter")

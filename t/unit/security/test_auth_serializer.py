"""The serializer `auth`, against what Celery 5.7.0 has signed (``t/facts/signed.json``) and against meddling."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from kombu.exceptions import ContentDisallowed, DecodeError, EncodeError
from kombu.serialization import dumps, loads

from celery.exceptions import SecurityError
from celery.security.certificate import Certificate, CertStore, FSCertStore
from celery.security.key import PrivateKey
from celery.security.serialization import DEFAULT_SEPARATOR, SecureSerializer, register_auth

FACTS = json.loads((Path(__file__).parents[2] / "facts" / "signed.json").read_text())


@pytest.fixture
def serializer_of(directory, read):
    """``serializer_of("alice")``: one that signs as alice and knows alice and bob."""

    def make(name="alice", **options):
        store = FSCertStore(str(directory / "store"))
        return SecureSerializer(PrivateKey(read(f"{name}.key")), Certificate(read(f"{name}.pem")), store, **options)

    return make


@pytest.mark.parametrize("record", FACTS["recorded"], ids=lambda r: f"{r['name']}-{r['digest']}-{r['serializer']}")
def test_what_celery_signed_is_read(record):
    store = CertStore()
    store.add_cert(Certificate(FACTS["certificate"]))
    serializer = SecureSerializer(cert_store=store, digest=record["digest"], serializer=record["serializer"])

    assert serializer.deserialize(record["text"]) == record["value"]
    assert serializer.deserialize(record["text"].encode()) == record["value"]


def test_what_is_signed_looks_as_celery_writes_it(serializer_of, read):
    parts = b64decode(serializer_of().serialize([1, {"a": None}])).split(DEFAULT_SEPARATOR)
    theirs = b64decode(FACTS["recorded"][0]["text"]).split(DEFAULT_SEPARATOR)

    assert len(parts) == len(theirs) == 5
    assert b64decode(parts[0]).decode() == Certificate(read("alice.pem")).get_id()
    assert b64decode(theirs[0]).decode() == FACTS["id"]
    assert len(parts[1]) == len(theirs[1])
    assert parts[2:4] == theirs[2:4] == [b"application/json", b"utf-8"]
    assert parts[4] == b'[1, {"a": null}]'


def test_one_in_the_store_reads_what_another_signed(serializer_of):
    assert serializer_of("bob").deserialize(serializer_of("alice").serialize({"a": "ä"})) == {"a": "ä"}


def test_a_body_may_hold_the_separator(serializer_of):
    serializer = serializer_of(serializer="msgpack")

    assert serializer.deserialize(serializer.serialize({"a": DEFAULT_SEPARATOR * 3})) == {"a": DEFAULT_SEPARATOR * 3}


def test_a_stranger_is_refused(serializer_of):
    with pytest.raises(SecurityError, match="Unknown certificate: 'mallory"):
        serializer_of().deserialize(serializer_of("mallory").serialize([]))


def test_a_certificate_that_expired_since_is_refused(read):
    store, old = CertStore(), Certificate(read("old.pem"))
    store.add_cert(old)
    serializer = SecureSerializer(PrivateKey(read("old.key")), old, store)

    with pytest.raises(SecurityError, match="Expired certificate"):
        serializer.deserialize(serializer.serialize([]))


def test_every_flipped_bit_is_noticed(serializer_of):
    serializer = serializer_of()
    good = b64decode(serializer.serialize([1, 2]))
    readings = set()
    for position in range(0, len(good), 3):
        bad = bytearray(good)
        bad[position] ^= 1
        try:
            readings.add(json.dumps(serializer.deserialize(b64encode(bytes(bad)))))
        except SecurityError:
            continue
    # The signature covers the body alone; but no other value is read, and by no other decoder.
    assert readings <= {"[1, 2]"}


@pytest.mark.parametrize("junk", ["", "junk", "////", b"\xff\xfe", b64encode(b"a\x00\x01b").decode(), "A" * 5])
def test_junk_is_refused(serializer_of, junk):
    with pytest.raises(SecurityError):
        serializer_of().deserialize(junk)


def test_a_signed_body_is_given_to_no_other_decoder(serializer_of):
    serializer = serializer_of()
    parts = b64decode(serializer.serialize(["!!python/object/apply:os.system ['true']"])).split(DEFAULT_SEPARATOR)
    for content_type in (b"application/x-python-serialize", b"application/x-yaml", b"text/plain", b"nonsense"):
        switched = b64encode(DEFAULT_SEPARATOR.join([*parts[:2], content_type, *parts[3:]]))
        with pytest.raises(SecurityError, match="is not taken"):
            serializer.deserialize(switched)


def test_a_serializer_that_is_allowed_may_be_inside(serializer_of):
    signed = serializer_of(serializer="yaml").serialize({"a": 1})

    with pytest.raises(SecurityError):
        serializer_of().deserialize(signed)
    assert serializer_of(allowed_serializers=["yaml"]).deserialize(signed) == {"a": 1}


def test_without_a_key_nothing_is_signed_and_without_a_store_nothing_is_read(serializer_of):
    with pytest.raises(SecurityError, match="key"):
        SecureSerializer().serialize([])
    with pytest.raises(SecurityError, match="store"):
        SecureSerializer().deserialize(serializer_of().serialize([]))


def test_what_cannot_be_serialized_is_a_security_error(serializer_of):
    with pytest.raises(SecurityError, match="Unable to serialize"):
        serializer_of().serialize(object())


def test_registered_it_is_one_of_kombus_serializers(directory, read):
    register_auth(read("alice.key"), None, read("alice.pem"), str(directory / "store"))
    content_type, encoding, signed = dumps({"a": 1}, serializer="auth")

    assert (content_type, encoding) == ("application/data", "utf-8")
    assert loads(signed, content_type, encoding, accept=["auth"]) == {"a": 1}
    with pytest.raises(DecodeError, match="SecurityError"):
        loads(signed[:-8] + "AAAAAAAA", content_type, encoding, accept=["auth"])
    with pytest.raises(EncodeError):
        dumps(object(), serializer="auth")
    with pytest.raises(ContentDisallowed):
        loads("[1]", "application/json", "utf-8", accept=["auth"])

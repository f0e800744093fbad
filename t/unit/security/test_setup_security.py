from __future__ import annotations

import pytest
from kombu.exceptions import ContentDisallowed
from kombu.serialization import dumps, loads

from celery import Celery
from celery.exceptions import ImproperlyConfigured, SecurityError
from celery.security import disable_untrusted_serializers, setup_security
from celery.security.document import SIGNATURE, read_header


@pytest.fixture
def app(directory):
    app = Celery("signing", broker="memory://", set_as_current=False)
    app.conf.update(
        task_serializer="auth",
        accept_content=["auth"],
        security_key=str(directory / "alice.key"),
        security_certificate=str(directory / "store" / "alice.pem"),
        security_cert_store=str(directory / "store" / "*.pem"),
    )
    yield app
    app.close()


def test_an_app_does_not_sign_unless_it_is_told_to(app):
    assert app.signing is None


def test_signing_is_set_up_from_the_settings(app):
    app.setup_security()

    assert loads(*reversed_dumps([1]), accept=["auth"]) == [1]
    assert app.signing is not None


def reversed_dumps(value):
    content_type, encoding, data = dumps(value, serializer="auth")
    return data, content_type, encoding


def test_arguments_go_before_settings(app, directory):
    app.setup_security(key=str(directory / "bob.key"), cert=str(directory / "store" / "bob.pem"))
    headers = {}
    app.signing.sign("task", "[]", "application/json", "utf-8", headers, {}, "", "q")

    assert read_header(headers[SIGNATURE]).key_id.startswith("bob")


def test_a_password_opens_the_key(app, directory):
    app.conf.update(
        security_key=str(directory / "locked.key"),
        security_certificate=str(directory / "locked.pem"),
        security_key_password="secret",
    )
    app.setup_security()

    assert dumps([1], serializer="auth")


def test_the_digest_is_that_of_the_setting(app, directory, read):
    app.conf.security_digest = "sha512"
    app.setup_security()

    from celery.security.certificate import FSCertStore
    from celery.security.serialization import SecureSerializer

    signed = dumps([1], serializer="auth")[2]
    store = FSCertStore(str(directory / "store"))
    assert SecureSerializer(cert_store=store, digest="sha512").deserialize(signed) == [1]
    with pytest.raises(SecurityError):
        SecureSerializer(cert_store=store).deserialize(signed)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"task_serializer": "json"}, "task_serializer"),
        ({"accept_content": ["json"]}, "accept_content"),
        ({"accept_content": ["auth", "json"]}, "accept_content"),
        ({"security_key": None}, "security_key"),
        ({"security_certificate": None}, "security_certificate"),
        ({"security_cert_store": None}, "security_cert_store"),
    ],
)
def test_what_is_missing_is_named(app, change, text):
    app.conf.update(change)

    with pytest.raises(ImproperlyConfigured, match=text):
        app.setup_security()
    assert app.signing is None
    assert loads("[1]", "application/json", "utf-8") == [1]  # nothing is switched off by halves


def test_a_key_and_another_ones_certificate_are_refused(app, directory):
    with pytest.raises(SecurityError, match="is not that of the certificate"):
        app.setup_security(key=str(directory / "bob.key"))


def test_other_serializers_are_switched_off_but_those_allowed(app):
    app.setup_security()
    for content_type in ("application/json", "application/x-python-serialize", "application/x-yaml"):
        with pytest.raises(ContentDisallowed):
            loads(b"[1]", content_type, "utf-8")

    app.setup_security(allowed_serializers=["json"])
    assert loads(b"[1]", "application/json", "utf-8") == [1]
    assert loads(*reversed_dumps([2])) == [2]
    with pytest.raises(ContentDisallowed):
        loads(b"[1]", "application/x-yaml", "utf-8")


def test_serializers_can_be_switched_off_alone():
    disable_untrusted_serializers(["json"])

    assert loads(b"[1]", "application/json", "utf-8") == [1]
    with pytest.raises(ContentDisallowed):
        loads(b"[1]", "application/x-yaml", "utf-8")


def test_without_an_app_the_current_one_is_set_up(app):
    app.set_current()
    setup_security()

    assert app.signing is not None

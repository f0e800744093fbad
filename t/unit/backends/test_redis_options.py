"""From URL and settings to the parameters of a Redis connection."""

from __future__ import annotations

import ssl

import pytest

pytest.importorskip("redis")

import redis
from redis.connection import SSLConnection, UnixDomainSocketConnection
from redis.credentials import UsernamePasswordCredentialProvider

from celery import Celery
from celery.exceptions import BackendStoreError, ImproperlyConfigured


class Provider(UsernamePasswordCredentialProvider):
    def __init__(self):
        super().__init__("from", "provider")


@pytest.fixture
def make():
    made = []

    def make(url="redis://", **conf):
        app = Celery("options", broker="memory://", backend=url, set_as_current=False)
        app.conf.update(conf)
        made.append(app)
        return app.backend

    yield make
    for app in made:
        app.close()


def params(backend, *names):
    return tuple(backend.connparams.get(name) for name in names)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", ("localhost", 6379, 0, None, None)),
        ("redis://h:1/3", ("h", 1, 3, None, None)),
        ("redis://:pw@h", ("h", 6379, 0, None, "pw")),
        ("redis://u:p%40w@h/", ("h", 6379, 0, "u", "p@w")),
        ("redis:///4", ("localhost", 6379, 4, None, None)),
        ("redis://h?virtual_host=7", ("h", 6379, 7, None, None)),
    ],
)
def test_a_url_names_host_port_database_and_login(make, url, expected):
    assert params(make(url), "host", "port", "db", "username", "password") == expected


@pytest.mark.parametrize("url", ["redis+socket:///tmp/x.sock?virtual_host=4", "redis+socket:///tmp/x.sock?db=4"])
def test_a_unix_socket(make, url):
    backend = make(url, redis_socket_connect_timeout=3, redis_socket_keepalive=True)

    assert params(backend, "connection_class", "path", "db") == (UnixDomainSocketConnection, "/tmp/x.sock", 4)
    assert "host" not in backend.connparams
    assert "socket_connect_timeout" not in backend.connparams


def test_what_the_url_says_of_time_outs_are_numbers(make):
    backend = make("redis://h?socket_timeout=5&health_check_interval=7&socket_keepalive=true&retry_on_timeout=no")

    assert params(backend, "socket_timeout", "health_check_interval") == (5.0, 7)
    assert params(backend, "socket_keepalive", "retry_on_timeout") == (True, False)


def test_settings_fill_in_what_the_url_leaves_out(make):
    backend = make(
        "redis://h",
        redis_username="u",
        redis_password="p",
        redis_db=4,
        redis_socket_timeout=3,
        redis_socket_connect_timeout=2,
        redis_socket_keepalive=True,
        redis_retry_on_timeout=True,
        redis_max_connections=7,
        redis_backend_health_check_interval=9,
        redis_client_name="me",
        result_backend_transport_options={"socket_keepalive_options": {1: 2}},
    )

    assert params(backend, "username", "password", "db") == ("u", "p", 4)
    assert params(backend, "socket_timeout", "socket_connect_timeout", "socket_keepalive") == (3.0, 2.0, True)
    assert params(backend, "retry_on_timeout", "health_check_interval", "client_name") == (True, 9, "me")
    assert params(backend, "socket_keepalive_options", "max_connections") == ({1: 2}, 7)
    assert backend.max_connections == 7


def test_settings_alone_name_the_server(make):
    assert params(make("redis", redis_host="hh", redis_port=5), "host", "port") == ("hh", 5)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("CERT_REQUIRED", ssl.CERT_REQUIRED),
        ("required", ssl.CERT_REQUIRED),
        ("CERT_OPTIONAL", ssl.CERT_OPTIONAL),
        ("none", ssl.CERT_NONE),
    ],
)
def test_tls_by_url(make, written, meant):
    backend = make(f"rediss://h?ssl_cert_reqs={written}&ssl_ca_certs=/x")

    assert params(backend, "connection_class", "ssl_cert_reqs", "ssl_ca_certs") == (SSLConnection, meant, "/x")


def test_tls_by_setting(make):
    backend = make("redis://h", redis_backend_use_ssl={"ssl_cert_reqs": ssl.CERT_NONE})

    assert params(backend, "connection_class", "ssl_cert_reqs") == (SSLConnection, ssl.CERT_NONE)


@pytest.mark.parametrize("url", ["rediss://h/0", "rediss://h?ssl_cert_reqs=maybe"])
def test_tls_must_say_whether_the_certificate_is_checked(make, url):
    with pytest.raises(ValueError, match="ssl_cert_reqs"):
        make(url)


def test_a_database_is_a_number(make):
    with pytest.raises(ValueError, match="'abc'"):
        make("redis://h/abc")


@pytest.mark.parametrize("given", [f"{__name__}:Provider", Provider, Provider()])
def test_a_credential_provider_replaces_the_login(make, given, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or pytest)
    monkeypatch.setattr(sys.modules[__name__], "Provider", Provider, raising=False)
    backend = make("redis://u:p@h", redis_backend_credential_provider=given)

    assert backend.connparams["credential_provider"].get_credentials() == ("from", "provider")
    assert "password" not in backend.connparams


def test_a_credential_provider_must_be_one(make):
    with pytest.raises(ImproperlyConfigured, match="credential_provider"):
        make("redis://h", redis_backend_credential_provider=5)


def test_the_password_is_masked(make):
    assert make("redis://u:secret@h/1").as_uri() == "redis://u:**@h/1"
    assert "secret" in make("redis://u:secret@h/1").as_uri(include_password=True)


def test_the_retry_policy_is_an_option(make):
    backend = make(result_backend_transport_options={"retry_policy": {"max_retries": 3, "timeout": 5.0}})

    assert backend.retry_policy == {
        "max_retries": 3,
        "interval_start": 0,
        "interval_step": 1,
        "interval_max": 1,
        "timeout": 5.0,
    }


def test_more_connection_errors_are_an_option(make):
    backend = make(result_backend_transport_options={"additional_connection_errors": [ZeroDivisionError]})

    assert backend.exception_safe_to_retry(ZeroDivisionError())
    assert not make().exception_safe_to_retry(ZeroDivisionError())


def test_a_wrong_password_is_not_tried_again(make):
    assert not make().exception_safe_to_retry(redis.exceptions.AuthenticationError("no"))
    assert make().exception_safe_to_retry(redis.exceptions.ConnectionError("lost"))


def test_a_value_too_large_is_refused_with_both_numbers(make):
    class Huge(bytes):
        def __len__(self):
            return 536_870_913

    with pytest.raises(BackendStoreError, match=r"536870913.*536870912"):
        make().set(b"k", Huge())


def test_publishing_asks_nothing_of_the_result_store(make):
    from celery.backends.base import Backend

    assert type(make()).on_task_call is Backend.on_task_call


def test_sentinels_are_named_one_after_the_other(make):
    backend = make(
        "sentinel://:pw@a:1/3;sentinel://b:2",
        result_backend_transport_options={"master_name": "main", "sentinel_kwargs": {"password": "sp"}},
    )
    pool = backend.client.connection_pool

    assert backend.as_uri() == "sentinel://:**@a:1/3;sentinel://b:2/"
    assert [(host["host"], host["port"]) for host in backend.connparams["hosts"]] == [("a", 1), ("b", 2)]
    assert params(backend, "db", "password") == (3, "pw")
    assert pool.service_name == "main"
    assert len(pool.sentinel_manager.sentinels) == 2
    assert pool.sentinel_manager.sentinel_kwargs["password"] == "sp"
    assert pool.connection_kwargs["password"] == "pw"


def test_sentinels_over_tls(make):
    from celery.backends.redis import SentinelManagedSSLConnection

    backend = make(
        "sentinel://a:1",
        redis_backend_use_ssl={"ssl_cert_reqs": ssl.CERT_NONE},
        result_backend_transport_options={"master_name": "main"},
    )

    assert backend.client.connection_pool.connection_class is SentinelManagedSSLConnection

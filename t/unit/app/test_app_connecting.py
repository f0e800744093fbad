"""Connections and pools; broker URLs that cannot be understood."""

from __future__ import annotations

import os
import socket

import kombu
import pytest

from celery import Celery
from celery.exceptions import ImproperlyConfigured, OperationalError


@pytest.fixture
def app():
    with Celery("test", set_as_current=False, fixups=[], broker="memory://") as app:
        yield app


def app_of(**settings):
    return Celery("test", set_as_current=False, fixups=[], **settings)


# -- what a connection is made of


def test_a_connection_takes_everything_from_the_configuration():
    connection = app_of(
        broker_url=["amqp://a", "amqp://b"],
        broker_connection_timeout=9,
        broker_login_method="PLAIN",
        broker_use_ssl={"ca_certs": "x"},
        broker_failover_strategy="shuffle",
        broker_transport_options={"confirm_publish": True},
    ).connection_for_write()

    assert connection.alt == ["amqp://a", "amqp://b"]
    assert connection.connect_timeout == 9
    assert connection.login_method == "PLAIN"
    assert connection.ssl == {"ca_certs": "x"}
    assert connection.failover_strategy is kombu.connection.failover_strategies["shuffle"]
    assert connection.transport_options == {"confirm_publish": True}
    assert not connection.heartbeat


def test_parts_of_an_address_may_be_settings_of_their_own():
    connection = app_of(
        broker_host="h",
        broker_port=33,
        broker_user="u",
        broker_password="p",
        broker_vhost="v",
        broker_transport="pyamqp",
    ).connection_for_write()

    assert connection.as_uri(include_password=True) == "amqp://u:p@h:33/v"


def test_arguments_go_before_settings():
    connection = app_of(broker_url="amqp://a", broker_transport_options={"x": 1, "y": 1}).connection(
        userid="me", password="pw", virtual_host="v", port=9, ssl=True, connect_timeout=1, heartbeat=3,
        login_method="PLAIN", transport_options={"x": 2},
    )  # fmt: skip

    assert connection.as_uri(include_password=True) == "amqp://me:pw@a:9/v"
    assert (connection.ssl, connection.connect_timeout, connection.heartbeat) == (True, 1, 3)
    assert connection.transport_options == {"x": 2, "y": 1}


def test_reading_and_writing_may_go_to_different_brokers():
    app = app_of(broker_url="amqp://a", broker_read_url="amqp://r", broker_write_url="amqp://w")

    assert app.connection_for_read().hostname == "r"
    assert app.connection_for_write().hostname == "w"
    assert app.connection().hostname == "w"
    assert app.connection_for_read("amqp://given").hostname == "given"
    assert app.broker_connection(hostname="amqp://old").hostname == "old"


def test_redis_is_our_own_transport_and_stays_it_in_a_clone():
    connection = app_of(broker_url="redis://h/1").connection_for_write()

    assert connection.transport_cls == "redis"
    assert connection.get_transport_cls().__module__.startswith("celery.transports.redis")
    assert connection.clone().get_transport_cls() is connection.get_transport_cls()


def test_a_connection_class_of_the_users_own_is_used():
    from celery.app.amqp import AMQP

    class Mine(kombu.Connection):
        pass

    class MyAMQP(AMQP):
        Connection = Mine

    assert type(app_of(broker_url="memory://", amqp=MyAMQP).connection()) is Mine


# -- URLs that cannot be understood


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("reddis://u:s3cret@h", "Unknown broker scheme `reddis` in `broker_url`. Did you mean `redis`? Known: amqp, "),
        ("postgres://u:s3cret@h", "Unknown broker scheme `postgres` in `broker_url`. For a database as broker write `sqla+postgresql://…`."),
        ("redis://h:abc/0", "`broker_url` (redis://h:abc/0): the port is `abc`, which is no number"),
        ("amqp://u:s3cret@h:99999//", "`broker_url` (amqp://u:********@h:99999//): the port is `99999`"),
        ("redis://u:s3#cret@h:1/0", "`broker_url` (redis://u:********@h:1/0): a password with `#`, `/` or `?` must be percent-encoded"),
        ("redis://u:s3/cret@h:1/0", "`broker_url` (redis://u:********@h:1/0): a password with `#`, `/` or `?` must be percent-encoded"),
        ("redis://u:s3[cret@h", "`broker_url` (redis://u:********@h): it cannot be understood."),
        ("amqp://u:s3cret@a;amqp://u:s3cret@b:x", "`broker_url` (amqp://u:********@b:x): the port is `x`"),
        (["redis://a", "redis://b:x"], "`broker_url` (redis://b:x): the port is `x`"),
    ],
)  # fmt: skip
def test_a_bad_url_is_one_clear_line_without_its_password(url, told):
    app = app_of(broker_url=url)
    with pytest.raises(ImproperlyConfigured) as caught:
        app.connection_for_write()

    message = str(caught.value)
    assert message.startswith(told)
    assert "\n" not in message
    assert "cret" not in message


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:p@w@h:6379/0",
        "redis+socket:///tmp/x",
        "sentinel://a:1;sentinel://b:2",
        "amqp://",
        "h",
        "redis://[::1]:6379/0",
    ],
)
def test_a_good_url_is_taken(url):
    assert app_of(broker_url=url).connection_for_write()


def test_the_place_of_a_bad_url_is_named(monkeypatch):
    with pytest.raises(ImproperlyConfigured, match=r"^`broker_read_url` "):
        app_of(broker_read_url="amqp://h:x", broker_url="amqp://h").connection_for_read()
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://h:x")
    with pytest.raises(ImproperlyConfigured, match=r"^`broker_url` \(environment variable CELERY_BROKER_URL\) "):
        app_of(broker_url="amqp://h").connection_for_write()


def test_a_transport_without_its_package_is_named(monkeypatch):
    import builtins

    real = builtins.__import__

    def without_boto(name, *args, **kwargs):
        if name.startswith(("boto", "pymongo")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_boto)
    monkeypatch.delitem(__import__("sys").modules, "kombu.transport.mongodb", raising=False)
    with pytest.raises(ImproperlyConfigured, match="`mongodb` of `broker_url` needs a package"):
        app_of(broker_url="mongodb://h").connection_for_write()


# -- pools


def test_a_connection_is_given_or_comes_from_the_pool(app):
    with app.connection_or_acquire() as pooled:
        assert pooled in app.pool._dirty
    assert pooled not in app.pool._dirty
    with app.connection_or_acquire(pooled) as same:
        assert same is pooled
    with app.connection_or_acquire(pool=False) as fresh:
        assert fresh is not pooled
    with app.default_connection() as again:
        assert again is pooled


def test_a_producer_is_given_or_comes_from_the_pool(app):
    with app.producer_or_acquire() as pooled:
        assert isinstance(pooled, kombu.Producer)
    with app.default_producer(pooled) as same:
        assert same is pooled
    assert app.producer_pool is app.amqp.producer_pool


@pytest.mark.parametrize(("limit", "size"), [(3, 3), (None, 0), (0, 0)])
def test_the_pool_has_the_size_of_the_setting(limit, size):
    assert app_of(broker_url="memory://", broker_pool_limit=limit).pool.limit == size


def test_an_empty_pool_says_so_when_the_time_is_up():
    app = app_of(broker_url="memory://pool-of-one", broker_pool_limit=1, broker_pool_acquire_timeout=0.01)
    with app.connection_or_acquire() as _, pytest.raises(OperationalError, match="broker_pool_limit"):
        with app.connection_or_acquire():
            pass


def test_a_forked_child_leaves_the_parents_socket_alone(app):
    """What a destructor in the child does to a pooled AMQP socket must not reach the parent."""
    ours, theirs = socket.socketpair()
    connection = app.pool.acquire()
    connection._connection = type("Opened", (), {"sock": ours})()
    child = os.fork()
    if child == 0:
        try:
            ours.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        os._exit(0)
    os.waitpid(child, 0)
    ours.sendall(b"alive")

    assert theirs.recv(5) == b"alive"
    connection._connection = None
    connection.release()
    ours.close()
    theirs.close()

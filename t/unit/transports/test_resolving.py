"""Which transport a URL means."""

from __future__ import annotations

import sys

import kombu
import pytest

from celery.exceptions import ImproperlyConfigured
from celery.transports import Connection, resolve


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://:secret@host:6379/1",
        "rediss://host",
        "redis+socket:///tmp/x.sock",
        "redis",
        "sentinel://a:26379;sentinel://b:26379",
    ],
)
def test_redis_in_every_form_is_ours(url):
    assert resolve(url).__module__ == "celery.transports.redis.transport"


@pytest.mark.parametrize("url", ["memory://", "filesystem://", "sqla+sqlite:///x"])
def test_all_else_is_kombus(url):
    assert resolve(url).__module__.startswith("kombu.transport")


def test_classes_lists_and_dotted_paths_are_taken_as_they_are():
    assert resolve(kombu.transport.virtual.Transport) is kombu.transport.virtual.Transport
    assert resolve(["memory://", "redis://"]).__module__ == "kombu.transport.memory"
    assert resolve("kombu.transport.memory:Transport").__module__ == "kombu.transport.memory"


def test_an_unknown_scheme_names_its_nearest():
    with pytest.raises(ImproperlyConfigured, match=r"Unknown broker scheme `reddis`.*Did you mean `redis`\?") as caught:
        resolve("reddis://:topsecret@x")
    assert "topsecret" not in str(caught.value)


def test_a_url_cannot_make_us_import_a_module():
    with pytest.raises(ImproperlyConfigured):
        resolve("os.path://x")


def test_connections_keep_their_scheme_through_clones_and_failover():
    connection = Connection("redis://:secret@localhost:1/2;redis://localhost:2/3")
    assert connection.as_uri() == "redis://:**@localhost:1/2"
    assert connection.clone().transport.__class__ is resolve("redis")
    connection.maybe_switch_next()
    assert connection.transport.__class__ is resolve("redis")
    assert connection.as_uri() == "redis://:**@localhost:2/3"
    connection.release()


def test_a_user_may_still_choose_kombus_transport():
    connection = Connection("redis://localhost:1", transport="kombu.transport.redis:Transport")
    assert connection.get_transport_cls().__module__ == "kombu.transport.redis"


def test_a_missing_client_library_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr("kombu.transport.redis.redis", None)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImproperlyConfigured, match=r"the package `redis`: pip install celery\[redis\]\. \(.+\)"):
        Connection("redis://localhost/").transport
